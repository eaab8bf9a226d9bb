"""The network as a folder that timm and transformers load: `config.json` and `model.safetensors`.

The temperature is divided into the classifier's weights and an offset added to its bias. So a plain softmax
gives the calibrated probabilities; or a sigmoid, which `problem_type` in `config.json` then says. Both
libraries resize with Pillow, in whole grey levels, and round crop offsets in their own way, which no
configuration can change. The certificate has a row with the trained preprocessing, which decides, and one
with theirs, which says how far that is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.answer import Answer as PlainAnswer
from saccade.artefact import Image
from saccade.errors import ModelError
from saccade.export.beside import read_beside, write_beside
from saccade.export.runtimes import Answer, Probabilities, Runtime, Runtimes
from saccade.files import parse_json, read_text
from saccade.preprocess import Preprocess
from saccade.run_folder import json_bytes, write_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.bundle import Bundle

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SEVERAL_CLASSES = "multi_label_classification"  # as transformers names it
CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash"}  # ours -> timm's
CHECKED = 1e-4  # of a probability, between timm's network and ours on the same pixels
BATCH = 32


def write_hf(bundle: Bundle, path: Path, *, decoding: Mapping[str, Any]) -> None:
    """Write the folder; raises ModelError for a network that timm does not know as it is."""
    from saccade.bundle import tensors_to_bytes

    if not bundle.preprocess.pixels.is_colour:
        raise ModelError(
            f"the model takes images of {bundle.preprocess.pixels}, and the image processors of timm and "
            "transformers read RGB only",
            hint="use --format onnx",
        )
    network = _timm_network(bundle)
    path.mkdir()
    write_bytes(path / CONFIG, json_bytes(_config(bundle, network)))
    write_bytes(path / WEIGHTS, tensors_to_bytes(network.state_dict()))
    write_beside(bundle, path, decoding, model=WEIGHTS)
    _check(bundle, path)


def load_hf(path: Path) -> Answer:
    """timm's network behind the preprocessing that it was trained with."""
    from saccade.transforms.apply import to_input

    preprocess = Preprocess.from_json(read_beside(path)["preprocess"])
    return _answer(path, lambda image: to_input(image, preprocess))


def engines(path: Path) -> Runtimes:
    """timm's network with the trained preprocessing, and with timm's own transforms, as `pipeline` has it."""
    import timm

    rows = [
        Runtime("timm", timm.__version__, load_hf(path)),
        Runtime("timm with its transforms", timm.__version__, _own(path), binding=False),
    ]
    return rows, {}


def _own(path: Path) -> Answer:
    from PIL import Image as PillowImage
    from timm.data import create_transform, resolve_data_config

    network = _loaded(path)
    transform = create_transform(**resolve_data_config({}, model=network), is_training=False)
    return _answer(path, lambda image: transform(PillowImage.fromarray(image)))


def _answer(path: Path, prepare: Callable[[Image], Tensor]) -> Answer:
    import torch

    network, plain = _loaded(path), _plain_answer(path)

    def answer(images: Sequence[Image]) -> Probabilities:
        with torch.inference_mode():
            chunks = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
            batches = (torch.stack([prepare(image) for image in chunk]) for chunk in chunks)
            logits = torch.cat([network(batch) for batch in batches]).numpy()
        return plain.probabilities(logits)

    return answer


def _plain_answer(path: Path) -> PlainAnswer:
    """What is left to do behind the folder's network: a softmax, or a sigmoid a class."""
    several = parse_json(read_text(path / CONFIG)).get("problem_type") == SEVERAL_CLASSES
    return PlainAnswer("sigmoid" if several else "softmax")


def _loaded(path: Path) -> Any:
    import timm

    return timm.create_model(f"local-dir:{path}", pretrained=True).eval()


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────


def _timm_network(bundle: Bundle) -> nn.Module:
    """timm's own network with the trained weights in it, the answer's numbers moved into its classifier."""
    import timm
    import torch

    architecture = bundle.architecture
    _refuse_foreign(architecture)
    network = timm.create_model(
        architecture["backbone"], pretrained=False, num_classes=len(bundle.classes), **_arguments(bundle)
    ).eval()
    classifier = network.get_classifier()
    if not isinstance(classifier, torch.nn.Linear):
        raise ModelError(
            f"the classifier of timm/{architecture['backbone']} is no single dense layer",
            hint="ship model.onnx, or train with another --backbone",
        )
    ours = dict(bundle.module.get_submodule("backbone").state_dict())
    dense: Any = bundle.module.get_submodule("head.dense")
    network.load_state_dict({**network.state_dict(), **ours})
    answer = bundle.answer
    temperatures = torch.tensor(answer.temperatures)
    with torch.no_grad():
        classifier.weight.copy_(dense.weight / temperatures[:, None])
        classifier.bias.copy_(dense.bias / temperatures)
        if answer.offsets:
            classifier.bias.add_(torch.tensor(answer.offsets))
    return network  # type: ignore[no-any-return]  # timm has no types


def _refuse_foreign(architecture: Any) -> None:
    library, name = architecture.get("library", "its own"), architecture.get("backbone", "network")
    why = ""
    if "members" in architecture:
        why = "it is an ensemble of several networks"
    elif library != "timm":
        why = f"{library}/{name} is no network of timm"
    elif architecture.get("head", "linear") != "linear":
        why = f"a head {architecture['head']!r} is not part of timm's {name}"
    elif architecture.get("flip", False):
        why = "it answers with the mean of an image and its mirror image, which timm's networks do not"
    if why:
        raise ModelError(
            f"this model cannot be written for timm and transformers: {why}",
            hint="ship model.onnx, or train a timm network with --head linear",
        )


def _arguments(bundle: Bundle) -> dict[str, Any]:
    """What builds timm's network besides its name and the number of classes."""
    size, options = bundle.preprocess.size, dict(bundle.architecture.get("options", {}))
    sized = hasattr(bundle.module.get_submodule("backbone"), "set_input_size")
    return {**options, "img_size": size} if sized else options


def _config(bundle: Bundle, network: Any) -> dict[str, Any]:
    """`config.json` as timm and transformers' TimmWrapper read it."""
    preprocess = bundle.preprocess
    name, _, tag = str(bundle.architecture["backbone"]).partition(".")
    own = network.pretrained_cfg
    whole = preprocess.resize != "crop"
    several = {"problem_type": SEVERAL_CLASSES, "thresholds": dict(bundle.thresholds)}
    several = several if bundle.answer.activation == "sigmoid" else {}
    return {
        **several,
        "architecture": name,
        "num_classes": len(bundle.classes),
        "num_features": network.num_features,
        "label_names": list(bundle.classes),
        "model_args": _arguments(bundle),
        "pretrained_cfg": {
            "tag": tag,
            "custom_load": False,
            "input_size": [3, preprocess.size, preprocess.size],
            "fixed_input_size": "img_size" in _arguments(bundle),
            "interpolation": preprocess.interpolation,
            "crop_pct": 1.0 if whole else preprocess.crop_fraction,
            "crop_mode": CROP_MODES[preprocess.resize],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "num_classes": len(bundle.classes),
            "pool_size": None,
            "first_conv": own.get("first_conv"),
            "classifier": own.get("classifier"),
            "license": bundle.training.get("weights", {}).get("licence"),
        },
    }


def _check(bundle: Bundle, path: Path) -> None:
    """What timm loads must answer as the trained network does; raises ModelError where it does not."""
    import torch

    size = bundle.preprocess.size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = bundle.answer.probabilities(bundle.module(pixels).numpy())
        found = _plain_answer(path).probabilities(_loaded(path)(pixels).numpy())
    difference = float(np.abs(found - expected).max())
    if not difference <= CHECKED:
        raise ModelError(
            f"timm's {bundle.architecture['backbone']} with these weights answers otherwise "
            f"(by {difference:.2g} of a probability)",
            hint="ship model.onnx, or train with another --backbone",
        )
