"""Every augmentation, optimiser, schedule and head runs through `saccade train`, and shows in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.recipe import AugmentConfig
from saccade.run_folder import RunFolder

QUICK = ("--image-size", "16", "--batch-size", "16", "--no-export.onnx", "--no-evaluate.calibrate")
SMALL = ("--backbone", "small_cnn", "--epochs", "1", *QUICK)
Saccade = Callable[..., Any]

pytestmark = pytest.mark.slow

AUGMENTATIONS = {
    "random_resized_crop": "0.5",
    "random_crop": "0.2",
    "horizontal_flip": "0.5",
    "vertical_flip": "0.5",
    "rotation": "20",
    "zoom": "0.2",
    "shift": "0.1",
    "shear": "10",
    "brightness": "0.3",
    "contrast": "0.3",
    "saturation": "0.3",
    "hue": "0.1",
    "perspective": "0.4",
    "grayscale": "0.5",
    "sharpness": "0.8",
    "blur": "0.05",
    "jpeg_quality": "20",
    "cutout": "0.5",
    "mix_up": "0.4",
    "cut_mix": "1.0",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=8)


@pytest.fixture(scope="module")
def plain_loss(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> float:
    """Training loss without any augmentation: what each augmentation must change."""
    from saccade.cli import main

    out = tmp_path_factory.mktemp("plain") / "run"
    assert main(["train", str(photos), "--out", str(out), *SMALL, "--augment", "none"]) == 0
    return RunFolder(out).read_history()[-1].train_loss


# manner -> its value, and what it is a manner of
MANNERS = {
    "crop_border": ("reflect", "random_crop"),
    "alternate_flip": ("true", "horizontal_flip"),
    "fill_mode": ("wrap", "rotation"),
}
BESIDE_OTHERS = {"fill_colour", "mix_switch", "mix_until", "steps"}  # test_effects.py, test_mixing_ends.py


def test_the_list_of_augmentations_is_whole() -> None:
    others = {*BESIDE_OTHERS, "policy", "automatic", "extra"}
    assert {*AUGMENTATIONS, *MANNERS, *others} == set(AugmentConfig.model_fields)


@pytest.mark.parametrize("manner", MANNERS)
def test_each_manner_changes_what_it_is_a_manner_of(
    saccade: Saccade, photos: Path, tmp_path: Path, manner: str
) -> None:
    value, base = MANNERS[manner]
    losses = []
    for name, flags in (("base", ()), ("manner", (f"--augment.{manner}", value))):
        words = ("--augment", "none", f"--augment.{base}", AUGMENTATIONS[base], *flags)
        assert saccade("train", photos, "--out", tmp_path / name, *SMALL, *words).code == 0
        losses.append(RunFolder(tmp_path / name).read_history()[-1].train_loss)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_alone_changes_training(
    saccade: Saccade, photos: Path, tmp_path: Path, plain_loss: float, name: str
) -> None:
    flags = ("--augment", "none", f"--augment.{name}", AUGMENTATIONS[name])
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL, *flags)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_history()[-1].train_loss != plain_loss


@pytest.mark.parametrize("name", ["auto_augment", "rand_augment", "trivial_augment", "aug_mix"])
def test_each_automatic_policy_changes_training(
    saccade: Saccade, photos: Path, tmp_path: Path, plain_loss: float, name: str
) -> None:
    flags = ("--augment", "none", "--augment.automatic", name)
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL, *flags)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_history()[-1].train_loss != plain_loss


@pytest.mark.parametrize("policy", ["light", "medium", "strong"])
def test_each_named_policy_changes_training(
    saccade: Saccade, photos: Path, tmp_path: Path, plain_loss: float, policy: str
) -> None:
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL, "--augment", policy)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_history()[-1].train_loss != plain_loss


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_each_optimiser_with_each_schedule(
    saccade: Saccade, photos: Path, tmp_path: Path, optimizer: str, schedule: str
) -> None:
    flags = ("--optimizer", optimizer, "--schedule", schedule, "--train.step_epochs", "1")
    small = [word if word != "1" else "2" for word in SMALL]
    answer = saccade("train", photos, "--out", tmp_path / "run", *small, *flags)
    assert answer.code == 0, answer.err
    rates = [row.lr for row in RunFolder(tmp_path / "run").read_history()]
    assert len(rates) == 2
    assert rates[0] == pytest.approx(0.005 if optimizer == "sgd" else 1e-3)
    assert rates[1] == pytest.approx(rates[0] * {"step": 0.1}.get(schedule, 1.0))


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_each_head_learns_on_a_frozen_base_then_fine_tunes(
    saccade: Saccade, photos: Path, tmp_path: Path, tiny_weights: Path, head: str
) -> None:
    flags = (
        "--backbone",
        "test_efficientnet",
        "--weights",
        tiny_weights,
        "--image-size",
        "32",
        "--head",
        head,
    )
    rest = ("--method", "finetune", "--epochs", "1", "--head-epochs", "1", "--no-export.onnx")
    answer = saccade("train", photos, "--out", tmp_path / "run", *flags, *rest)
    assert answer.code == 0, answer.err
    run = RunFolder(tmp_path / "run")
    rows = run.read_history()
    assert [row.phase for row in rows] == ["head", "finetune"]
    assert rows[1].lr == pytest.approx(rows[0].lr / 100)
    verdicts = run.read_environment()["promises"]
    assert verdicts["4"]["kept"] is True
    assert verdicts["5"]["kept"] is True


@pytest.mark.parametrize("unfreeze", ["1", "0.3", "layers:-5", "all"])
def test_each_way_to_say_what_is_unfrozen(
    saccade: Saccade, photos: Path, tmp_path: Path, tiny_weights: Path, unfreeze: str
) -> None:
    flags = ("--backbone", "test_efficientnet", "--weights", tiny_weights, "--image-size", "32")
    phases = ("--method", "finetune", "--epochs", "1", "--head-epochs", "1")
    rest = (*phases, "--no-export.onnx", f"--unfreeze={unfreeze}")
    answer = saccade("train", photos, "--out", tmp_path / "run", *flags, *rest)
    assert answer.code == 0, answer.err
    assert RunFolder(tmp_path / "run").read_environment()["promises"]["4"]["kept"] is True


def test_other_choices_of_training_run_together(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    flags = (
        *("--train.label_smoothing", "0.1", "--train.class_weights", "--train.gradient_clip", "1.0"),
        *("--train.early_stopping", "1", "--train.warmup_epochs", "0.5", "--train.workers", "1"),
        *("--data.resize", "pad", "--data.interpolation", "bicubic", "--no-train.cache_images"),
    )
    answer = saccade("train", photos, "--out", tmp_path / "run", *SMALL, *flags)
    assert answer.code == 0, answer.err


def test_a_fine_tuning_rate_that_is_too_high_is_refused(
    saccade: Saccade, photos: Path, tmp_path: Path
) -> None:
    answer = saccade("train", photos, "--out", tmp_path / "run", "--lr", "0.001", "--finetune-lr", "0.001")
    assert answer.code == 2
    assert "more than a tenth" in answer.err
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_name_the_ways_out(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    answer = saccade("train", photos, "--out", tmp_path / "run", "--backbone", "efficientnet_b0")
    assert answer.code == 2
    assert "--weights" in answer.err
    assert "--no-pretrained" in answer.err
