"""`--backbone auto`: what is at hand is timed and scored on training images, and the choice is kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.records import ImageRecord
from saccade.run_folder import RunFolder
from saccade.selection import choosing
from saccade.selection.at_hand import Candidate
from saccade.selection.choosing import Scored, Timed, pick, scored_records

Saccade = Callable[..., Any]
QUICK = ("--image-size", "32", "--method", "head", "--batch-size", "16")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks that can be used, and files that cannot: no weights, another shape, another form."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("weights")
    for name in ("test_efficientnet", "test_resnet"):
        save_file(timm.create_model(name).state_dict(), place / f"{name}.safetensors")
    shutil.copy(place / "test_resnet.safetensors", place / "resnet18.other_shape.safetensors")
    (place / "broken.safetensors").write_bytes(b"\xff" * 64)
    return place


def test_it_chooses_says_so_and_the_run_works_to_the_end(
    saccade: Saccade, photos: Path, folder: Path, tmp_path: Path
) -> None:
    words = ("train", photos, "--backbone", "auto", "--weights", folder, *QUICK, "--out", tmp_path / "run")
    answer = saccade(*words)
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    assert run.read_recipe().model.backbone == "auto"
    values = run.read_environment()
    choice = values["choice"]
    assert [row["name"] for row in choice["rows"]] == sorted(
        ("test_efficientnet", "test_resnet"),
        key=lambda name: next(row["log_loss"] for row in choice["rows"] if row["name"] == name),
    )
    assert all(0 < row["latency_ms"] < 1000 and row["parameters"] > 1000 for row in choice["rows"])
    assert choice["images"] == len([r for r in run.read_dataset() if r.part == "train" and r.used])
    chosen = values["resolved"]["model.backbone"]
    assert chosen in ("timm/test_efficientnet", "timm/test_resnet")
    assert values["resolved"]["model.architecture"]["backbone"] == chosen.removeprefix("timm/")
    assert Path(values["resolved"]["model.weights"]).parent == folder
    assert choice["reason"] in answer.out
    for name in ("broken.safetensors", "resnet18.other_shape"):
        assert re.search(rf"left out: {name}", answer.out)
    page = run.report.read_text("utf-8")
    assert "How the backbone was chosen" in page
    assert all(row["name"] in page for row in choice["rows"])
    assert "Left out: broken.safetensors" in page
    photo = next((photos / "disc").iterdir())
    assert saccade("predict", run.root, photo).code == 0
    assert saccade("export", run.root).code == 0
    assert saccade("evaluate", run.root).code == 0
    assert "finished" in saccade(*words).out


@pytest.mark.slow
def test_a_run_that_continues_does_not_choose_again(
    saccade: Saccade, photos: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", photos, "--backbone", "auto", "--weights", folder, *QUICK, "--no-export.onnx", "--out")
    assert saccade(*words, tmp_path / "whole").code == 0
    cut = RunFolder(tmp_path / "cut")
    cut.root.mkdir()
    for name in ("recipe.toml", "environment.json", "dataset.csv", "audit.json"):
        cut.write(cut.root / name, (tmp_path / "whole" / name).read_bytes())
    values = cut.read_environment()
    cut.write_environment(values | {"finished": False})

    def again(*arguments: object, **settings: object) -> None:
        raise AssertionError("chosen a second time")

    monkeypatch.setattr(choosing, "time_backbones", again)
    monkeypatch.setattr(choosing, "choose_backbone", again)
    assert saccade(*words, cut.root).code == 0
    weights = "bundle/weights.safetensors"
    assert (cut.root / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_none_within_the_limit_is_refused_before_an_image_is_read(
    saccade: Saccade, photos: Path, folder: Path, tmp_path: Path
) -> None:
    words = ("--backbone", "auto", "--weights", folder, "--max-latency-ms", "0.001", *QUICK)
    answer = saccade("train", photos, *words, "--out", tmp_path / "run")
    assert answer.code == 2
    assert re.search(r"none of the 2 backbones.*within --max-latency-ms 0.001", answer.err)
    assert "test_resnet " in answer.err
    assert "Audit" not in answer.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--backbone", "resnet18", "--max-latency-ms", "5"), "but one is named: resnet18"),
        (("--backbone", "auto", "--no-pretrained"), "compares pretrained weights"),
        (("--backbone", "auto", "--model.options", "pad_type=same"), "belong to one backbone"),
    ],
)
def test_flags_that_mean_nothing_together(
    saccade: Saccade, photos: Path, tmp_path: Path, words: Sequence[str], said: str
) -> None:
    answer = saccade("train", photos, *words, "--out", tmp_path / "run")
    assert answer.code == 2
    assert said in answer.err


# -- which images are scored, and the rule ---------------------------------------------------------


def records(counts: dict[str, int], *, groups: int = 0) -> list[ImageRecord]:
    return [
        ImageRecord(f"{label}/{i:04d}.jpg", label, "train", group=f"{label}{i % groups}" if groups else "")
        for label, count in counts.items()
        for i in range(count)
    ]


def test_scored_images_are_spread_over_classes_and_few() -> None:
    chosen = scored_records(records({"a": 2000, "b": 1000, "rare": 8, "single": 1}), seed=0)
    counts = {label: sum(r.label == label for r in chosen) for label in ("a", "b", "rare", "single")}
    assert counts["a"] == pytest.approx(400, abs=3)
    assert counts["b"] == pytest.approx(200, abs=3)
    assert counts["rare"] == 5
    assert counts["single"] == 0, "a class of one image cannot be held out"
    assert chosen == scored_records(records({"a": 2000, "b": 1000, "rare": 8, "single": 1}), seed=0)
    many = scored_records(records({f"class{i}": 20 for i in range(1000)}), seed=0)
    assert len({r.label for r in many}) == 120


def test_scored_images_come_from_many_groups() -> None:
    chosen = scored_records(records({"a": 3000, "b": 3000}, groups=100), seed=0)
    assert len({r.group for r in chosen if r.label == "a"}) == 100


def candidate(name: str, latency_ms: float, losses: Sequence[float]) -> Scored:
    values = np.array(losses, dtype=np.float64)
    return Scored(Timed(Candidate(name), 1, 224, 1.0, latency_ms), values, np.ones_like(values))


def test_the_rule() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    best = candidate("best", 20, 1 + noise)
    near = candidate("near", 5, 1.001 + np.random.default_rng(1).normal(0, 0.5, 400))
    nearly_as_quick = candidate("twin", 5.5, 1.0005 + np.random.default_rng(2).normal(0, 0.5, 400))
    worse = candidate("worse", 1, 1.3 + noise)  # on every image, so surely
    assert pick([best, worse])[0] is best
    chosen, reason = pick([worse, near, best])
    assert chosen in (near, best)
    assert chosen.name in reason
    for row in (near, nearly_as_quick):  # means made exact, so that the rule alone decides
        row.losses[:] += (1.001 if row is near else 1.0005) - row.losses.mean()
    best.losses[:] += 1 - best.losses.mean()
    chosen, reason = pick([worse, near, best])
    assert chosen is near
    assert "4.0 times as fast" in reason
    assert "one standard error" in reason
    assert pick([worse, near, best, nearly_as_quick])[0] is nearly_as_quick, "5.5 ms is no slower than 5"


@pytest.mark.slow
@pytest.mark.real_data("data/flowers5", "weights")
def test_real_weights_on_real_photos(
    saccade: Saccade, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source, weights = shared_data("data/flowers5/train"), shared_data("weights")
    for flower in ("roses", "tulips"):
        (tmp_path / "photos" / flower).mkdir(parents=True)
        for path in sorted((source / flower).glob("*.jpg"))[:30]:
            shutil.copy(path, tmp_path / "photos" / flower / path.name)
    words = ("--backbone", "auto", "--weights", weights, "--method", "head", "--no-export.onnx")
    answer = saccade("train", tmp_path / "photos", *words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    rows = {
        row["backbone"]: row
        for row in json.loads((tmp_path / "run/environment.json").read_text())["choice"]["rows"]
    }
    large, small = rows["timm/mobilenetv2_100"], rows["timm/mobilenetv2_035"]
    # which of the two scores better on so few photos is chance: both have learnt to see, and one is quicker
    assert min(large["accuracy"], small["accuracy"]) > 0.8
    assert 0 < max(large["log_loss"], small["log_loss"]) < 0.5
    assert large["latency_ms"] > small["latency_ms"]
    assert "torchvision/squeezenet1_1" in rows
