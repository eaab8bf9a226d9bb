"""Small runs for benchmarks that kill them: photos, weights, and processes forked from one that has torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def import_what_a_run_needs() -> None:
    """Define only: a process in which torch has computed must not be forked."""
    from saccade.imports import import_training_libraries

    import_training_libraries()
    for name in ("matplotlib.pyplot", "onnxruntime", "saccade.cli", "saccade.pipeline.fit"):
        importlib.import_module(name)


def ended(child: int) -> int:
    """The exit code of a process, once it has ended; -9 for one that was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_a_process(work: Callable[[], None]) -> None:
    """For what computes with torch."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    assert ended(child) == 0


def write_weights(path: Path) -> None:
    """Random weights of timm's smallest test network, read like published ones."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path.parent.mkdir(exist_ok=True)
    network = timm.create_model("test_efficientnet", pretrained=False)
    save_file(network.state_dict(), path, metadata={"arch": "test_efficientnet"})


def write_photos(root: Path) -> Path:
    """Three classes of noise around a colour of their own."""
    draw = np.random.default_rng(0)
    for label, colour in (("blue", 2), ("green", 1), ("red", 0)):
        (root / label).mkdir(parents=True)
        for number in range(24):
            pixels = draw.integers(0, 180, (24, 24, 3))
            pixels[..., colour] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number}.png")
    return root
