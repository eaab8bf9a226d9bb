"""Evaluation at a larger size: kept where it is better by more than chance and quick enough."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.artefact import Artefact
from saccade.building import check_network
from saccade.cli import main
from saccade.errors import RecipeError
from saccade.methods import make_plan
from saccade.models import BuiltModel, Classifier, build_model
from saccade.pipeline import prepare
from saccade.pipeline.larger import Tried, choose_size, compared, larger_sizes
from saccade.pipeline.work import Work
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.terminal import Terminal
from saccade.training import predict_logits
from saccade.training.monitors import calibrated_losses

QUIET = Terminal(quiet=True)


class Sees(nn.Module):
    """Knows the class of a photo by its brightness.

    By size: `off` moves the brightness at which it begins to say "bright", `loud` multiplies its answers.
    """

    def __init__(self, off: dict[int, float], loud: dict[int, float] | None = None) -> None:
        super().__init__()
        self.off, self.loud = off, loud or {}

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) - self.off.get(images.shape[-1], 0.0)
        return torch.stack([bright, -bright], 1) * self.loud.get(images.shape[-1], 1.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    for label, level in (("bright", 160), ("dark", 90)):
        (folder / label).mkdir()
        for number in range(24):
            pixels = rng.normal(level, 40, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    recipe = Recipe.from_mapping({"split.near_duplicates": False, "split.validation": 0.5})
    examined = prepare.examine(prepare.list_data(str(folder), recipe), recipe, QUIET)
    return prepare.divide(examined, recipe, QUIET).dataset


def chosen(
    dataset: Dataset, folder: Path, off: dict[int, float], loud: dict[int, float] | None = None, **fields: Any
) -> Any:
    values = {"model.backbone": "small_cnn", "data.image_size": 32, "train.batch_size": 8, **fields}
    recipe = Recipe.from_mapping(values)
    module = Classifier(Sees(off, loud), nn.Identity())
    network = BuiltModel(module, Preprocess(32, resize="squash"), {"backbone": "sees"}, False)
    plan = make_plan(recipe, network)
    runtime = Runtime.create("cpu")
    work = Work(RunFolder(folder), dataset, dataset, recipe, QUIET, 0.0)

    def answers() -> Any:
        from saccade.pipeline.batches import ValidationBatches

        return predict_logits(module, ValidationBatches(dataset, plan), runtime)[:2]

    return choose_size(work, network, plan, answers, runtime), answers


def test_sizes_that_are_tried() -> None:
    assert larger_sizes(224) == (256, 288)
    assert larger_sizes(160) == (192,)
    assert larger_sizes(32) == (40,)
    for side in range(24, 600, 8):
        assert all(1.1 <= size / side <= 1.4 for size in larger_sizes(side))


def test_a_better_size_is_kept_with_its_answers(dataset: Dataset, tmp_path: Path) -> None:
    found, answers = chosen(dataset, tmp_path, {32: 1.0}, **{"evaluate.size": "auto"})
    assert found.network.preprocess.size == 40
    assert found.facts["size"] == 40
    assert found.facts["tried"][0]["loss"] < found.facts["trained"]["loss"]
    assert "40 pixels instead of 32" in found.note
    larger, labels = found.answers()
    usual, same_labels = answers()
    assert (labels == same_labels).all()
    assert (larger.argmax(axis=1) == labels).mean() > (usual.argmax(axis=1) == labels).mean()


def test_a_worse_one_is_not_and_neither_is_one_that_is_the_same(dataset: Dataset, tmp_path: Path) -> None:
    for off in ({40: 1.0}, {}):
        found, _ = chosen(dataset, tmp_path, off, **{"evaluate.size": "auto"})
        assert found.network.preprocess.size == 32
        assert "stays at 32 pixels" in found.note


@pytest.mark.parametrize("loud", [0.5, 4.0])
def test_the_same_answers_less_sure_or_surer_are_not_better(
    dataset: Dataset, tmp_path: Path, loud: float
) -> None:
    for off in (0.0, 1.0):  # all right, and with errors
        found, _ = chosen(dataset, tmp_path, {32: off, 40: off}, {40: loud}, **{"evaluate.size": "auto"})
        assert found.network.preprocess.size == 32
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    logits = (rng.normal(size=(200, 3)) + 2 * np.eye(3)[labels]).astype(np.float32)
    for truth in (labels, logits.argmax(axis=1)):
        row = compared(40, (loud * logits, truth), (logits, truth))
        assert row.gain == pytest.approx(0, abs=1e-5)
        assert not row.better


def test_by_default_nothing_is_tried(dataset: Dataset, tmp_path: Path) -> None:
    found, answers = chosen(dataset, tmp_path, {32: 1.0})
    assert (found.facts, found.note) == ({}, "")
    assert found.network.preprocess.size == 32
    assert (found.answers()[0] == answers()[0]).all()


def test_a_size_that_is_given_is_taken(dataset: Dataset, tmp_path: Path) -> None:
    found, _ = chosen(dataset, tmp_path, {48: 1.0}, **{"evaluate.size": 48})
    assert found.network.preprocess.size == 48


def test_better_means_by_more_than_chance() -> None:
    row = Tried(256, 0.4, 0.9, gain=0.02, error=0.02)
    assert not row.better
    assert replace(row, gain=0.04).better
    assert not replace(row, gain=-0.04).better


def test_images_with_several_labels_are_compared_by_their_own_loss() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    sure = ((2 * labels - 1) * 3).astype(np.float32)
    wrong = sure.copy()
    wrong[:3, 0] *= -0.5
    row = compared(40, (sure, labels), (wrong, labels))
    assert row.loss == pytest.approx(calibrated_losses(sure, labels, spread=math.inf).mean(), rel=1e-4)
    assert (row.accuracy, row.better) == (1.0, True)
    assert not compared(40, (sure, labels), (0.1 * sure, labels)).better


def test_a_network_of_one_size_says_so(dataset: Dataset, tmp_path: Path) -> None:
    values = {"model.backbone": "small_cnn", "evaluate.size": "auto"}
    recipe = Recipe.from_mapping(values).with_batch_size(20)

    class Fixed(Sees):
        def set_input_size(self, img_size: tuple[int, int]) -> None:
            raise NotImplementedError

    module = Classifier(Fixed({}), nn.Identity())
    network = BuiltModel(module, Preprocess(32, resize="squash"), {"backbone": "vit"}, False)
    work = Work(RunFolder(tmp_path), dataset, dataset, recipe, QUIET, 0.0)
    plan = make_plan(recipe, network)
    found = choose_size(work, network, plan, lambda: pytest.fail("not asked"), Runtime.create("cpu"))
    assert "vit has position embeddings for images of 32 pixels" in found.note


def test_a_size_that_the_network_does_not_take_is_refused_before_training() -> None:
    for backbone in ("small_cnn", "test_vit"):
        recipe = Recipe.from_mapping(
            {
                "model.backbone": backbone,
                "model.pretrained": False,
                "evaluate.size": 72,
                "data.image_size": 64,
            }
        )
        network = build_model(backbone, 2, pretrained=False, image_size=64)
        with pytest.raises(RecipeError, match=r"evaluate.size = 72"):
            check_network(network, recipe)


def test_a_latency_limit_needs_something_to_choose() -> None:
    with pytest.raises(RecipeError, match="max_latency_ms chooses among backbones"):
        Recipe.from_mapping({"model.max_latency_ms": 5.0})
    both = Recipe.from_mapping({"model.max_latency_ms": 5.0, "evaluate.size": "auto"})
    assert both.evaluate.size == "auto"


@pytest.mark.slow
def test_a_run_is_measured_exported_and_certified_at_that_size(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "run"
    words = ["--backbone", "test_efficientnet", "--no-pretrained", "--image-size", "32", "--epochs", "1"]
    assert (
        main(["train", str(make_photos(images=14)), "--out", str(out), *words, "--evaluate.size", "40"]) == 0
    )
    model = json.loads((out / "bundle/model.json").read_text())
    assert model["preprocess"]["size"] == model["training"]["evaluation_size"]["size"] == 40
    assert Artefact.open(out / "export/model.onnx").preprocess.size == 40
    promises = json.loads((out / "environment.json").read_text())["promises"]
    assert promises["3"]["kept"]
    assert json.loads((out / "export/certificate.json").read_text())["passed"]


@pytest.mark.slow
def test_a_latency_limit_that_nothing_keeps_leaves_the_size(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "run"
    words = ["--backbone", "test_efficientnet", "--no-pretrained", "--image-size", "32", "--epochs", "1"]
    limit = ["--evaluate.size", "auto", "--max-latency-ms", "0.0001"]
    assert main(["train", str(make_photos(images=14)), "--out", str(out), *words, *limit]) == 0
    training = json.loads((out / "bundle/model.json").read_text())["training"]
    assert training["evaluation_size"]["tried"] == []
    assert any("within --max-latency-ms" in note for note in training["notes"])
