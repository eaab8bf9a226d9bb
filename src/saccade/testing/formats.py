"""What an export format must keep to: its file answers as torch does, wherever it is put."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.answer import Answer
from saccade.artefact import Image
from saccade.bundle import Bundle
from saccade.export.formats import FORMATS, Format
from saccade.extensions import accepted
from saccade.preprocess import Preprocess
from saccade.transforms.apply import to_input

TOLERANCE = 1e-3
SIZE = 24
CLASSES = ("zebra", "ant", "mole")  # not in alphabetical order: a format must keep the order it is given
SHAPES = ((30, 40), (30, 40), (30, 40), (40, 30), (24, 24), (9, 7), (120, 8))


def check_format(
    format: Format,
    *,
    tolerance: float = TOLERANCE,
    bundle: Callable[[Preprocess], Bundle] | None = None,
) -> None:
    """One file, or one folder, that can be moved, and answers as torch does, an image alone and among others.

    `tolerance` is the largest difference of a probability; a format that reduces the network (kind "int8")
    needs a larger one. `bundle` makes a model of 3 classes for a format that does not take every network.
    Raises AssertionError.

    >>> from saccade.export.formats import FORMATS
    >>> check_format(FORMATS["onnx"])
    """
    for preprocess in (Preprocess(SIZE), Preprocess(SIZE, "pad", "bicubic", 1.0, (0.5,) * 3, (0.25,) * 3)):
        model = (bundle or tiny_bundle)(preprocess)
        with tempfile.TemporaryDirectory() as folder:
            path = _written(format, model, Path(folder))
            _check_answers(format.load(path), model, tolerance)


class TinyNetwork(nn.Module):
    """A convolution, BatchNorm with statistics of its own, dropout and a steep linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.conv(images)).relu().mean((2, 3))
        logits: Tensor = self.head(self.dropout(features))
        return logits


def tiny_bundle(preprocess: Preprocess) -> Bundle:
    """A bundle with random weights that tells noisy images apart; always the same one."""
    generator = torch.Generator().manual_seed(0)
    network = TinyNetwork()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
        network.norm.running_mean = torch.randn(8, generator=generator) * 0.1
    return Bundle(
        module=network.eval(),
        classes=CLASSES,
        preprocess=preprocess,
        architecture={},
        answer=Answer("softmax", (1.7,)),
        data_fingerprint="0" * 16,
    )


def _written(format: Format, bundle: Bundle, folder: Path) -> Path:
    """The written file after it was moved; the network must be what it was."""
    before = copy.deepcopy(bundle.module.state_dict())
    first = folder / "first"
    first.mkdir()
    format.write(bundle, first / format.file_name, **_helps(format, bundle, folder))
    names = sorted(path.name for path in first.iterdir())
    kind = "folder" if format.folder else "file"
    assert names == [format.file_name], f"one {kind} was asked for, there are: {', '.join(names)}"
    assert (first / names[0]).is_dir() == format.folder, f"{names[0]} is no {kind}"
    for name, tensor in bundle.module.state_dict().items():
        assert torch.equal(tensor, before[name]), f"writing changed the network's {name}"
    moved = folder / f"moved{format.suffix}"
    shutil.move(first / format.file_name, moved)
    shutil.rmtree(first)
    return moved


def _helps(format: Format, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """What `write` asks for by the names of its parameters, as `saccade export` gives it."""
    options = accepted(format.write, decoding={}, float_onnx=folder / "float.onnx", images=None)
    if "float_onnx" in options:
        FORMATS["onnx"].write(bundle, options["float_onnx"], decoding={})
    if "images" in options:
        options["images"] = (_picture(shape, seed) for seed, shape in enumerate(SHAPES))
    return options


def _check_answers(answer: Callable[[Sequence[Image]], Any], bundle: Bundle, tolerance: float) -> None:
    images = [_picture(shape, seed) for seed, shape in enumerate(SHAPES)]
    expected = _torch_answers(bundle, images)
    assert np.ptp(expected, axis=0).max() > 0.1, "the network must tell these images apart"
    together = np.asarray(answer(images))
    assert together.shape == expected.shape, f"{together.shape} in place of {expected.shape}"
    largest = float(np.nan_to_num(np.abs(together - expected), nan=1.0).max())
    assert largest <= tolerance, f"probabilities differ from torch's by {largest:.2g}, more than {tolerance}"
    if bundle.answer.activation == "softmax":
        sums = float(np.abs(together.sum(axis=1) - 1).max())
        assert sums < 1e-5, f"probabilities of an image sum to 1 +- {sums:.2g}"
    alone = np.concatenate([np.asarray(answer([image])) for image in images])
    largest = float(np.abs(alone - together).max())
    assert largest <= tolerance, f"an image alone and the same in a batch differ by {largest:.2g}"
    backwards = np.asarray(answer(images[::-1]))[::-1]
    largest = float(np.abs(backwards - together).max())
    assert largest <= tolerance, f"answers depend on the order of the images ({largest:.2g})"


def _picture(shape: tuple[int, int], seed: int) -> Image:
    """Noise around a colour of its own."""
    random = np.random.default_rng(seed)
    noise = random.normal(random.uniform(0, 255, 3), 60, (*shape, 3))
    return noise.clip(0, 255).astype(np.uint8)


def _torch_answers(bundle: Bundle, images: Sequence[Image]) -> NDArray[np.float64]:
    """The evaluation path, image by image."""
    with torch.inference_mode():
        inputs = torch.stack([to_input(image, bundle.preprocess) for image in images])
        logits: Tensor = bundle.module(inputs)
    return bundle.answer.probabilities(logits.numpy())
