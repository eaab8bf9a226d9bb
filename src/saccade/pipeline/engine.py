"""The engine that computes frozen features: ONNX Runtime in float32 on a CPU, torch on a GPU.

Measured (docs/lab-notes.md): on one CPU core ONNX Runtime computes mobilenetv2_100's features 2.5 times as
fast as torch in float32 and no slower than torch in bfloat16, which differs by 14 %; it differs by 2e-6.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from saccade.errors import ModelError
from saccade.runtime import Runtime
from saccade.training.features import Engine
from saccade.training.inference import evaluation_mode

TOLERANCE = 1e-3  # relative, on random images


def feature_engine(backbone: nn.Module, runtime: Runtime, size: int) -> tuple[Engine, str]:
    """The quickest engine whose features are the backbone's own, and its name."""
    if runtime.device.type == "cpu":
        try:
            return onnx_engine(backbone, size), "ONNX Runtime, float32"
        except ModelError:
            pass  # torch computes whatever it can train
    return torch_engine(backbone, runtime), f"torch on {runtime.device}, {runtime.precision}"


def onnx_engine(backbone: nn.Module, size: int) -> Engine:
    """The backbone in ONNX Runtime, one core a call; raises ModelError where that gives other features."""
    import onnxruntime

    from saccade.export.onnx import export_network

    model = export_network(backbone, size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the callers are the threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def engine(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

    _refuse_other_features(backbone, engine, size)
    return engine


def torch_engine(backbone: nn.Module, runtime: Runtime) -> Engine:
    """The backbone itself: in training precision on a GPU, one batch at a time; float32 on a CPU."""
    taking_turns = threading.Lock()
    device = runtime.device
    reduced = device.type != "cpu" and runtime.precision == "bfloat16"

    def engine(images: Tensor) -> Tensor:
        with taking_turns, torch.inference_mode(), evaluation_mode(backbone):
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                features: Tensor = backbone(runtime.images(images))
            return features.float().cpu()

    return engine


def _refuse_other_features(backbone: nn.Module, engine: Engine, size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), evaluation_mode(backbone):
        expected = backbone(images)
    difference = float((engine(images) - expected).norm() / expected.norm().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(f"features differ by {difference:.1e}; use another backbone")
