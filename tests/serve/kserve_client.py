"""Asks a server through KServe's client and prints what it says; run in an environment that has it."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request(array, datatype, *, name="image", binary, **parameters):
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    wanted = RequestedOutput("probabilities", {"binary_data": binary, **parameters})
    return InferRequest("colours", [tensor], request_id="42", request_outputs=[wanted])


async def main(address, pixels_file, image_file):
    pixels, image = np.load(pixels_file), np.array([Path(image_file).read_bytes()], dtype=object)
    requests = {
        "json": request(pixels, "UINT8", binary=False),
        "binary": request(pixels, "UINT8", binary=True),
        "file": request(image, "BYTES", name="encoded_image", binary=True),
        "classes": request(pixels, "UINT8", binary=False, classification=3),
    }
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found = {
            "live": await client.is_server_live(address),
            "ready": await client.is_server_ready(address),
            "model_ready": await client.is_model_ready(address, "colours"),
            "another_ready": await client.is_model_ready(address, "another"),
        }
        for kind, asked in requests.items():
            answer = await client.infer(address, asked, model_name="colours")
            found[kind] = {"id": answer.id, "probabilities": answer.outputs[0].as_numpy().tolist()}
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
