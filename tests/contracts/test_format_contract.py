"""saccade's own format keeps the contract of an exporter, and the contract notices those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saccade.answer import Answer
from saccade.bundle import Bundle
from saccade.export.formats import FORMATS, Format, load_onnx
from saccade.export.onnx import write_onnx
from saccade.models import rebuild
from saccade.preprocess import Preprocess
from saccade.testing import check_format
from saccade.testing.formats import tiny_bundle


def timm_bundle(preprocess: Preprocess) -> Bundle:
    """A small network of timm, for formats that take those alone; always the same one."""
    torch.manual_seed(0)
    architecture = {
        "library": "timm",
        "backbone": "test_resnet",
        "options": {},
        "head": "linear",
        "classes": 3,
        "dropout": 0.0,
        "image_size": preprocess.size,
    }
    module = rebuild(architecture).eval()
    with torch.no_grad():
        module.head.dense.weight.mul_(200)  # type: ignore[union-attr,operator]
        module.head.dense.bias.copy_(torch.tensor([0.3, -0.2, 0.1]))  # type: ignore[union-attr,operator]
    return Bundle(module, ("zebra", "ant", "mole"), preprocess, architecture, Answer("softmax", (1.7,)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("web_library")
def test_our_own_keep_it(name: str) -> None:
    check_format(
        FORMATS[name],
        tolerance=0.1 if FORMATS[name].kind == "int8" else 1e-3,
        bundle=timm_bundle if name == "hf" else None,
    )


@pytest.mark.parametrize("name", ["onnx", "hf"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer("softmax", (1.7,), (1.5, 0.0, -1.0)),
        Answer("sigmoid", (0.9, 1.7, 2.5)),
        Answer("sigmoid", (1.7,), (0.5, 0, 0)),
    ],
    ids=str,
)
def test_offsets_and_sigmoids_go_with_the_file(name: str, answer: Answer) -> None:
    make = timm_bundle if name == "hf" else tiny_bundle
    check_format(FORMATS[name], bundle=lambda preprocess: replace(make(preprocess), answer=answer))


def _wrong_mean(bundle: Bundle, path: Path) -> None:
    write_onnx(replace(bundle, preprocess=replace(bundle.preprocess, mean=(0.1, 0.2, 0.3))), path)


def _wrong_filter(bundle: Bundle, path: Path) -> None:
    other = "bicubic" if bundle.preprocess.interpolation == "bilinear" else "bilinear"
    write_onnx(replace(bundle, preprocess=replace(bundle.preprocess, interpolation=other)), path)  # type: ignore[arg-type]


def _without_temperature(bundle: Bundle, path: Path) -> None:
    write_onnx(replace(bundle, answer=Answer()), path)


def _two_files(bundle: Bundle, path: Path) -> None:
    write_onnx(bundle, path)
    path.with_suffix(".weights").write_bytes(b"")


def _touches_the_network(bundle: Bundle, path: Path) -> None:
    write_onnx(bundle, path)
    bundle.module.norm.running_mean.add_(1)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_wrong_mean, "differ from torch's"),
        (_wrong_filter, "differ from torch's"),
        (_without_temperature, "differ from torch's"),
        (_two_files, "one file was asked for"),
        (_touches_the_network, "writing changed the network's norm.running_mean"),
    ],
)
def test_it_notices_what_is_wrong_in_the_file(write: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_format(Format(write, load_onnx, "model.onnx"))


def _sorted_classes(path: Path) -> Any:
    answer = load_onnx(path)
    return lambda images: answer(images)[:, [1, 2, 0]]


def _by_position(path: Path) -> Any:
    answer = load_onnx(path)

    def shifted(images: Sequence[Any]) -> np.ndarray:
        probabilities = answer(images)
        probabilities[-1] = np.roll(probabilities[-1], 1) if len(images) == 1 else probabilities[-1]
        return probabilities

    return shifted


@pytest.mark.parametrize(
    ("load", "words"),
    [(_sorted_classes, "differ from torch's"), (_by_position, "alone and the same in a batch")],
)
def test_it_notices_what_is_wrong_in_the_answers(load: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_format(Format(write_onnx, load, "model.onnx"))
