"""The engines that compute frozen features: ONNX Runtime in float32 on a CPU, torch on a GPU.

Measured (docs/lab-notes.md): on one CPU core ONNX Runtime computes mobilenetv2_100's features 2.5 times as
fast as torch in float32 and no slower than torch in bfloat16, which differs by 14 %; it differs by 2e-6.
Where OpenVINO is installed and bfloat16 pays (`runtime.bfloat16_pays`), heads are fitted on its features,
which cost about half and differ by 16 %, without loss of held-out accuracy.
"""

from __future__ import annotations

import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saccade.caches.store import cache_folder
from saccade.errors import EngineError, ModelError
from saccade.features.compute import Engine, Engines
from saccade.features.exported import exported
from saccade.imports import import_openvino
from saccade.runtime import Runtime, bfloat16_pays
from saccade.threads import usable_cores
from saccade.training.inference import evaluation_mode
from saccade.training.memory import Pieces

if TYPE_CHECKING:
    import onnx

    from saccade.models import BuiltModel

TOLERANCE, QUICK_TOLERANCE = 1e-3, 0.3  # relative, on random images
# images at once: what they become on the way should stay in the processor's cache
ONNX_BATCH, OPENVINO_BATCH = 2, 4
EXACT_NAME = "ONNX Runtime, float32"
QUICK_NAME = "OpenVINO, bfloat16; those of validation ONNX Runtime, float32"


def feature_engines(
    backbone: nn.Module, runtime: Runtime, size: int, *, kept: Path | None = None, channels: int = 3
) -> Engines:
    """The fastest engine with the backbone's own features, and a faster approximate one, if any.

    `kept` is a folder that keeps what exporting the backbone makes for the next time.
    """
    if runtime.device.type != "cpu":
        return Engines(torch_engine(backbone, runtime), f"torch on {runtime.device}, {runtime.precision}")
    try:
        model = exported(backbone, size, kept, channels=channels)
        exact = onnx_engine(model, backbone, size, channels=channels)
    except ModelError:
        return Engines(torch_engine(backbone, runtime), "torch on cpu, float32")  # whatever it can train
    quick, network = openvino_engine(model), model.SerializeToString()
    if quick is None or not _difference(quick, exact, size, channels) <= QUICK_TOLERANCE:
        return Engines(exact, EXACT_NAME, network=network)
    return Engines(exact, EXACT_NAME, quick, QUICK_NAME, network)


def engine_of(network: bytes, *, quick: bool) -> Engine:
    """An engine of `Engines` once more, in another process; raises EngineError where it cannot be had."""
    if not quick:
        return _run_by_onnxruntime(network)
    import onnx

    engine = openvino_engine(onnx.load_model_from_string(network))
    if engine is None:
        raise EngineError(
            f"{platform.node()} cannot compute features in bfloat16, as the machine that asks for them does",
            hint="take machines of one kind, or leave --engine out",
        )
    return engine


def onnx_engine(model: onnx.ModelProto, backbone: nn.Module, size: int, *, channels: int = 3) -> Engine:
    """The exported backbone in ONNX Runtime, one core a call; raises ModelError where features differ."""
    engine = _run_by_onnxruntime(model.SerializeToString())
    difference = _difference(engine, _own(backbone), size, channels)
    if not difference <= TOLERANCE:
        raise ModelError(
            f"features differ by {difference:.1e}",
            hint="use another backbone",
        )
    return engine


def _run_by_onnxruntime(network: bytes) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the callers are the threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

    def engine(images: Tensor) -> Tensor:
        return torch.cat([run(part) for part in torch.split(images, ONNX_BATCH)])

    return engine


def openvino_engine(model: onnx.ModelProto) -> Engine | None:
    """The exported backbone in OpenVINO and bfloat16, one core a call; None where that cannot be had, or is
    slower than float32."""
    if not bfloat16_pays():
        return None
    try:
        return _compiled_by_openvino(model)
    except Exception:  # not installed, or installed and broken: whatever it raises, there is another engine
        return None


def _compiled_by_openvino(model: onnx.ModelProto) -> Engine | None:
    openvino = import_openvino()
    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    threads = usable_cores()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,  # the callers are the threads
    }
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    own = threading.local()

    def infer(images: Tensor) -> Tensor:
        found = own.request.infer([images.contiguous().numpy()])
        return torch.from_numpy(found[compiled.output(0)].copy())  # the request's memory is used again

    def engine(images: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return torch.cat([infer(part) for part in torch.split(images, OPENVINO_BATCH)])

    return engine


def torch_engine(backbone: nn.Module, runtime: Runtime) -> Engine:
    """The backbone itself: in training precision on a GPU, one batch at a time; float32 on a CPU."""
    taking_turns = threading.Lock()
    device = runtime.device
    reduced = device.type != "cpu" and runtime.precision == "bfloat16"
    features_of = Pieces(lambda images: backbone(runtime.images(images)), runtime)

    def engine(images: Tensor) -> Tensor:
        with taking_turns, torch.inference_mode(), evaluation_mode(backbone):
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                features = features_of(images)
            return features.float().cpu()

    return engine


def _own(backbone: nn.Module) -> Engine:
    def engine(images: Tensor) -> Tensor:
        with torch.inference_mode(), evaluation_mode(backbone):
            features: Tensor = backbone(images)
        return features

    return engine


def _difference(engine: Engine, reference: Engine, size: int, channels: int) -> float:
    """Distance of two engines' features of random images, as a share of their length."""
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    expected = reference(images)
    return float((engine(images) - expected).norm() / expected.norm().clamp(min=1e-12))


def engines_of(network: BuiltModel, runtime: Runtime) -> Engines:
    """What computes the features of the network's backbone as it is now."""
    kept = cache_folder() / "networks"
    side, channels = network.preprocess.size, network.preprocess.pixels.count
    return feature_engines(network.module.backbone, runtime, side, kept=kept, channels=channels)
