"""Every field of the recipe, with every method: it changes training, is refused, or is said to be idle.

Both ways: what is said to have no effect must leave a real training as it was, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from saccade import building, extensions
from saccade.errors import SaccadeError
from saccade.features import heads
from saccade.features.compute import Engines
from saccade.features.engines import torch_engine
from saccade.features.heads import Choice
from saccade.images.decoder import Limits
from saccade.methods import make_plan, probe
from saccade.models import BuiltModel, Classifier
from saccade.models.build import HEAD_DROPOUT
from saccade.models.network import make_head
from saccade.pipeline import batches, prepare
from saccade.pipeline.effects import RULES, Situation, as_sentence, without_effect
from saccade.pipeline.evidence import watching_test
from saccade.pipeline.fit import fit as fit_stage
from saccade.pipeline.work import Ready, Work
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe, field_table, merged_recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.terminal import Terminal
from saccade.testing.tiny import TinyBackbone, timeless
from saccade.training.clock import deadline
from saccade.transforms import Augmentation, Batch, Mixing
from saccade.transforms.memory import MemoryBatches

QUIET = Terminal(quiet=True)
SIDE = 40  # images can grow to it in a step of 32 pixels
SHORT = {"train.epochs": 2, "train.batch_size": 8}
KNOWN = {"data.mean": (0.5, 0.5, 0.5), "data.std": (0.2, 0.2, 0.2)}  # saves reading all images for them

# method, or from scratch -> the recipe that a field is put into
WAYS: dict[str, dict[str, Any]] = {
    "head": {"train.method": "head"},
    "tail": {"train.method": "tail", "train.unfreeze": "1", **SHORT},
    "full": {"train.method": "full", **SHORT},
    "auto": {"train.method": "auto", **SHORT},
    "finetune": {"train.method": "finetune", "train.head_epochs": 2, "train.unfreeze": "1", **SHORT},
    "scratch": {"model.pretrained": False, **SHORT, **KNOWN},
    "fast_cnn": {"model.backbone": "fast_cnn", **SHORT, **KNOWN},
}

# field -> values, of which the first is taken that the recipe does not have
VALUES: dict[str, tuple[Any, ...]] = {
    "precision": ("bfloat16",),
    "data.image_size": (48,),
    "data.resize": ("squash",),
    "data.interpolation": ("bicubic",),
    "data.crop_fraction": (0.6,),
    "data.mean": ((0.1, 0.2, 0.3),),
    "data.std": ((0.1, 0.2, 0.3),),
    "data.max_pixels": (5_000,),
    "data.background": ((0, 0, 0),),
    "data.cache_gb": (1.0,),
    "augment.policy": ("none",),
    "augment.random_resized_crop": (0.3,),
    "augment.random_crop": (0.2,),
    "augment.crop_border": ("mean",),
    "augment.horizontal_flip": (0.0,),
    "augment.alternate_flip": (True, False),
    "augment.vertical_flip": (0.5,),
    "augment.rotation": (30.0,),
    "augment.zoom": (0.3,),
    "augment.shift": (0.3,),
    "augment.shear": (20.0,),
    "augment.perspective": (0.3,),
    "augment.fill_mode": ("nearest",),
    "augment.fill_colour": ((200, 0, 0),),
    "augment.brightness": (0.7,),
    "augment.contrast": (0.7,),
    "augment.saturation": (0.7,),
    "augment.hue": (0.3,),
    "augment.grayscale": (0.9,),
    "augment.sharpness": (0.9,),
    "augment.blur": (0.05,),
    "augment.jpeg_quality": (20,),
    "augment.automatic": ("trivial_augment",),
    "augment.cutout": (0.9,),
    "augment.mix_up": (0.5,),
    "augment.cut_mix": (1.0,),
    "augment.mix_switch": (0.1,),
    "augment.mix_until": (0.5,),
    "augment.extra": (("upside_down",),),
    "augment.steps": (("rotation",),),
    "model.max_latency_ms": (5.0,),
    "model.pretrained": (False, True),
    "model.head": ("mlp",),
    "model.dropout": (0.6,),
    "train.method": ("full", "finetune"),
    "train.epochs": (3,),
    "train.head_epochs": (1,),
    "train.batch_size": (4,),
    "train.lr": (0.02,),
    "train.finetune_lr": (2e-5,),
    "train.allow_large_finetune_lr": (True,),
    "train.unfreeze": ("1", "all"),
    "train.kept_views": (1,),
    "train.optimizer": ("sgd",),
    "train.momentum": (0.5,),
    "train.weight_decay": (0.3,),
    "train.schedule": ("constant",),
    "train.warmup_epochs": (0.5,),
    "train.step_epochs": (1,),
    "train.step_factor": (0.5,),
    "train.milestones": ((1,),),
    "train.decay_factor": (0.5,),
    "train.decay_power": (1.0,),
    "train.restart_epochs": (1,),
    "train.restart_growth": (2,),
    "train.monitor": ("macro_f1",),
    "train.plateau_patience": (0,),
    "train.plateau_factor": (0.2,),
    "train.plateau_min_lr": (1e-4,),
    "train.progressive_size": (0.5,),
    "train.label_smoothing": (0.1,),
    "train.loss": ("bce",),
    "train.loss_gamma": (1.0,),
    "train.class_weights": ("auto",),
    "train.sampling": ("balanced",),
    "train.logit_adjustment": (0.5,),
    "train.ema_decay": (0.5,),
    "train.swa_epochs": (2,),
    "train.gradient_clip": (1e-3,),
    "train.gradient_clip_by": ("value",),
    "train.accumulate": (2,),
    "train.layer_decay": (0.5,),
    "train.workers": (2,),
    "train.cache_images": (False,),
    "train.time_limit": (1e5,),
    "train.checkpoint_every": (30.0,),
}

# What is decided before the network is trained or after it, whatever the method; shown by the tests named.
ELSEWHERE = {
    "seed": "every draw: tests/training/test_loop.py, tests/data",
    "device": "which processor: tests/test_runtime.py",
    "data.channels": "how images are decoded: tests/images/test_channels.py, tests/journeys/test_channels.py",
    "data.bits": "how images are decoded: tests/images/test_channels.py",
    "data.path_column": "what is listed: tests/sources/test_columns_by_name.py",
    "data.label_column": "what is listed: tests/sources/test_columns_by_name.py",
    "data.multi_label": "what is listed: tests/sources/test_several.py",
    "data.label_delimiter": "what is listed: tests/sources/test_several.py",
    "data.label_columns": "what is listed: tests/sources/test_several.py",
    "data.root": "what is listed: tests/sources/test_columns_by_name.py",
    "data.drop_empty": "what is listed: tests/data",
    "data.gray_maximum": "how 16-bit images are decoded: tests/data",
    "data.decisions": "what is audited: tests/data",
    "split.validation": "how images are divided: tests/data/split",
    "split.test": "how images are divided: tests/data/split",
    "split.folds": "a run a fold: tests/journeys/test_folds.py",
    "split.group": "how images are divided: tests/data",
    "split.group_pattern": "how images are divided: tests/data/split",
    "split.near_duplicates": "how images are divided: tests/data/split",
    "split.repair": "how images are divided: tests/data/split",
    "split.allow_leaks": "how images are divided: tests/data/split",
    "train.early_stopping": "when a phase ends: tests/training/test_loop.py",
    "train.average_with_pretrained": "the end, where fine-tuning was best: tests/training/test_wise.py",
    "train.min_delta": "when a phase ends: tests/training/test_monitors.py",
    "model.backbone": "what is built: tests/models",
    "model.weights": "what is built: tests/models",
    "model.accept_licence": "what may be built: tests/models/test_given.py",
    "model.options": "what is built: tests/models",
    "model.drop_path": "what is built: tests/models/test_drop_path.py",
    "evaluate.calibrate": "what is answered: tests/journeys",
    "evaluate.flip": "what is answered: tests/journeys",
    "evaluate.size": "what is answered: tests/pipeline/test_larger.py",
    "evaluate.logit_adjustment": "what is answered: tests/journeys/test_imbalance.py",
    "evaluate.precision": "what is answered: tests/evaluation/test_label_answers.py",
    "evaluate.top_k": "what is measured: tests/evaluation",
    "evaluate.coverage": "what is measured: tests/evaluation/test_conformal.py",
    "evaluate.target_precision": "what is measured: tests/evaluation/test_asking.py",
    "export.onnx": "what is exported: tests/export",
    "export.tolerance": "what is exported: tests/export",
    "export.max_drop": "what is exported: tests/export",
    "export.certify_images": "what is exported: tests/export",
    "export.calibration_images": "what is exported: tests/export",
}


# Fields of what images become, and of what training may use; all others need a training to be seen.
OF_IMAGES = {key for key in VALUES if key.startswith(("data.", "augment."))}
OF_MEANS = {"train.workers", "train.cache_images", "train.time_limit", "train.checkpoint_every"}
PLAIN = {"augment.policy": "none"}  # quick to train on

OTHERS: dict[tuple[str, str], Any] = {("fast_cnn", "augment.alternate_flip"): False}  # it brings True along

# (recipe, field, value) in which the field has the effect that it lacks above, or lacks it for another reason
PAIRS: tuple[tuple[dict[str, Any], str, Any, bool], ...] = (
    ({"train.optimizer": "sgd"}, "train.momentum", 0.5, True),
    ({"train.optimizer": "muon"}, "train.momentum", 0.5, True),
    ({"train.optimizer": "adam"}, "train.momentum", 0.5, False),
    ({"train.schedule": "step"}, "train.step_epochs", 1, True),
    ({"train.schedule": "step", "train.step_epochs": 1}, "train.step_factor", 0.5, True),
    ({"train.schedule": "step"}, "train.step_factor", 0.5, False),
    ({"train.schedule": "multi_step"}, "train.step_factor", 0.5, True),
    ({"train.schedule": "multi_step", "train.epochs": 3}, "train.milestones", (1,), True),
    ({"train.schedule": "multi_step", "train.milestones": (9,)}, "train.step_factor", 0.5, False),
    ({"train.schedule": "exponential"}, "train.decay_factor", 0.5, True),
    ({"train.schedule": "exponential"}, "train.decay_power", 1.0, False),
    ({"train.schedule": "polynomial"}, "train.decay_power", 1.0, True),
    ({"train.schedule": "cosine_restarts"}, "train.restart_epochs", 1, True),
    ({"train.schedule": "cosine_restarts"}, "train.restart_growth", 2, False),
    ({"train.gradient_clip": 1e-3}, "train.gradient_clip_by", "value", True),
    ({"train.gradient_clip": 1e-3}, "train.gradient_clip_by", "agc", True),
    ({"train.swa_epochs": 2}, "train.ema_decay", 0.5, False),
    ({"train.optimizer": "rmsprop"}, "train.momentum", 0.5, True),
    ({"train.schedule": "step"}, "train.step_epochs", 9, False),
    ({"train.schedule": "one_cycle"}, "train.warmup_epochs", 0.5, False),
    ({"train.schedule": "plateau"}, "train.warmup_epochs", 0.5, True),
    ({"train.schedule": "plateau"}, "train.step_epochs", 1, False),
    ({"train.schedule": "one_cycle"}, "train.plateau_min_lr", 1e-4, False),
    ({"train.loss": "focal"}, "train.loss_gamma", 1.0, True),
    ({**WAYS["head"], "train.loss": "asymmetric"}, "train.loss_gamma", 1.0, True),
    ({"train.loss": "bce"}, "train.loss_gamma", 1.0, False),
    ({**WAYS["head"]}, "train.sampling", "square_root", True),
    ({**WAYS["head"]}, "train.class_weights", {"disc": 3.0}, True),
    ({"data.image_size": 32}, "train.progressive_size", 0.5, False),
    ({"data.image_size": 24}, "train.progressive_size", 0.9, False),
    ({"model.head": "mlp"}, "model.dropout", 0.6, False),
    ({"augment.policy": "none"}, "augment.crop_border", "reflect", False),
    ({"augment.random_crop": 0.3}, "augment.crop_border", "reflect", True),
    ({"augment.horizontal_flip": 0.0}, "augment.alternate_flip", True, False),
    ({"augment.steps": ("shear",)}, "augment.policy", "strong", False),
    ({"augment.steps": ("shear",)}, "augment.hue", 0.3, False),
    ({"augment.steps": ("shear",)}, "augment.fill_mode", "wrap", True),
    ({"augment.steps": ("blur",)}, "augment.fill_mode", "wrap", False),
    ({**WAYS["head"]}, "augment.steps", ("horizontal_flip",), False),
    ({**WAYS["head"]}, "augment.steps", ("hue",), True),
    ({**WAYS["head"], "augment.steps": ("shear",)}, "augment.policy", "none", False),
    ({"augment.policy": "none"}, "augment.fill_mode", "wrap", False),
    ({"augment.policy": "none", "augment.random_crop": 0.3}, "augment.fill_mode", "wrap", True),
    ({"augment.policy": "small"}, "augment.fill_mode", "wrap", False),
    ({"augment.fill_mode": "constant"}, "augment.fill_colour", (200, 0, 0), True),
    ({"augment.fill_mode": "wrap"}, "augment.fill_colour", (200, 0, 0), False),
    ({"augment.mix_up": 0.2}, "augment.mix_switch", 0.9, False),
    ({"augment.mix_up": 0.2, "augment.cut_mix": 1.0}, "augment.mix_switch", 0.9, True),
    ({"augment.cut_mix": 1.0}, "augment.mix_until", 0.9, True),
    ({"augment.policy": "small"}, "augment.horizontal_flip", 0.9, False),
    ({"augment.policy": "small"}, "augment.horizontal_flip", 0.0, True),
    ({"augment.policy": "small", "augment.alternate_flip": False}, "augment.horizontal_flip", 0.9, True),
    ({"augment.policy": "small"}, "train.workers", 2, False),
    ({"augment.policy": "small"}, "data.cache_gb", 1.0, False),
    ({"train.cache_images": False}, "data.cache_gb", 1.0, False),
    ({"data.resize": "squash"}, "data.crop_fraction", 0.6, False),
    ({"data.resize": "pad"}, "data.crop_fraction", 0.6, False),
    ({**WAYS["head"]}, "augment.horizontal_flip", 0.9, False),
    ({**WAYS["head"]}, "augment.policy", "strong", False),
    ({**WAYS["head"]}, "data.cache_gb", 1.0, True),
    ({**WAYS["full"], "train.finetune_lr": 1e-4}, "train.lr", 2e-3, False),
    ({**WAYS["tail"], "train.finetune_lr": 1e-4}, "train.lr", 2e-3, False),
    ({**WAYS["finetune"], "train.finetune_lr": 1e-4}, "train.lr", 2e-3, True),
    ({**WAYS["full"]}, "train.kept_views", 0, False),
    ({**WAYS["finetune"], "train.unfreeze": "all"}, "train.progressive_size", 0.5, True),
)


def test_every_field_is_looked_at_once() -> None:
    assert VALUES.keys() | ELSEWHERE.keys() == {key for key, *_ in field_table()}
    assert not VALUES.keys() & ELSEWHERE.keys()


def test_every_rule_names_fields_that_exist() -> None:
    assert {field for rule in RULES for field in rule.fields} <= {key for key, *_ in field_table()}


# -- what images become, and what training may use ----------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Dataset:
    """Divided photos that are no squares, in classes of different sizes."""
    folder = photo_writer(tmp_path_factory.mktemp("data") / "photos", images=8, side=48)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        with Image.open(path) as image:
            image.crop((0, 0, 48, 36)).save(path)
        if number in (0, 1, 9):
            path.unlink()
    recipe = Recipe()
    examined = prepare.examine(prepare.list_data(str(folder), recipe), recipe, QUIET, cache=False)
    return prepare.divide(examined, recipe, QUIET).dataset


def tiny_network(recipe: Recipe, dataset: Dataset) -> BuiltModel:
    """A network that asks of the recipe what a real one does, and takes milliseconds to train."""
    size = SIDE if recipe.data.image_size == "auto" else recipe.data.image_size
    share = HEAD_DROPOUT if recipe.model.dropout == "auto" else recipe.model.dropout
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = make_head(recipe.model.head, 6, len(dataset.classes), dropout=share)
        module = Classifier(TinyBackbone(), head)
    pretrained = recipe.starts_pretrained
    preprocess = building.with_overrides(Preprocess(size), dataset, recipe, pretrained=pretrained)
    return BuiltModel(module, preprocess, {"backbone": "tiny"}, pretrained)


def digest(batches: Iterable[Batch]) -> str:
    found = hashlib.sha256()
    for batch in batches:
        found.update(batch.images.contiguous().numpy().tobytes())
    return found.hexdigest()


def images_of(recipe: Recipe, dataset: Dataset, network: BuiltModel, *, by_steps: bool) -> Any:
    """What images are evaluated on and, by steps, trained on."""
    strength = Augmentation.from_config(recipe.augment)
    source = batches.training_batches(dataset, make_plan(recipe, network))
    two_epochs = [digest(source.epoch(epoch)) for epoch in (1, 2)] if by_steps else []
    mixed = mixed_by(strength.mixing) if by_steps else ()
    evaluated = digest(batches.ValidationBatches(dataset, make_plan(recipe, network)))
    return two_epochs, mixed, evaluated, Limits.of(recipe.data)


def mixed_by(mixing: Mixing) -> Any:
    """All of it that ever has a say."""
    both = mixing.mix_up and mixing.cut_mix
    return mixing.mix_up, mixing.cut_mix, both and mixing.switch, mixing.on and mixing.until


def means_of(recipe: Recipe, dataset: Dataset, network: BuiltModel, *, by_steps: bool) -> Any:
    """Time, disk, memory and processes that training may use."""
    source = batches.training_batches(dataset, make_plan(recipe, network))
    in_memory = isinstance(source, MemoryBatches)
    with batches.pixel_cache(make_plan(recipe, network), QUIET) as pixels:
        disk = pixels and recipe.data.cache_gb
    return (
        deadline(recipe.train.time_limit, 0.0, judged_images=30, side=network.preprocess.size),
        disk if recipe.solves_head or not in_memory else None,
        (in_memory, vars(source).get("_workers"), vars(source).get("_cache_bytes")) if by_steps else None,
        recipe.train.cache_images,
        recipe.train.checkpoint_every if by_steps else None,
    )


# -- real trainings ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cross-validation, which no field has a say in, and no waiting for the disk."""
    monkeypatch.setattr(probe, "choose_strength", lambda *_, **__: Choice(0.1, 0.5, 0.5, 0))
    monkeypatch.setattr(heads, "MLP_STEPS", 4)
    monkeypatch.setattr(heads, "FINAL_ITERATIONS", 4)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setitem(
        extensions._registered, "augmentations", {"upside_down": lambda image, rng: image.flip(-2)}
    )


@cache
def runtime_of(precision: str) -> Runtime:
    return Runtime.create("cpu", precision)


def learnt(recipe: Recipe, dataset: Dataset, network: BuiltModel, folder: Path) -> Any:
    """Weights and history of a training; bit for bit the same where nothing else was learnt."""
    runtime = runtime_of(recipe.precision)
    engines = Engines(torch_engine(network.module.backbone, runtime), "torch") if network.pretrained else None
    run = RunFolder(folder)
    run.write_environment({"resolved": {}})
    ready = Ready(runtime, dataset.classes, network, engines)
    watched = watching_test(dataset)
    fit_stage(Work(run, dataset, watched, recipe, QUIET, 0.0, ready))
    return run.read_model()["training"]["weights_sha256"], [timeless(row) for row in run.read_history()]


IMAGES: dict[str, Any] = {}  # what images become is the same for most methods


@dataclass
class Outcome:
    """What a recipe comes to, and what of it is said to have no effect; or why it is refused."""

    comes_to: Any = None
    said: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


def outcome(
    flags: Mapping[str, Any], key: str, dataset: Dataset, folder: Path, *, train_anyway: bool = False
) -> Outcome:
    """What these flags come to, as far as `key` could have a say in it.

    Where the key is said to have no say in training, it is trained only with `train_anyway`.
    """
    try:
        recipe = merged_recipe(flags, {}, where="flags").with_batch_size(len(dataset.used("train")))
        network = tiny_network(recipe, dataset)
        situation = Situation.of(recipe, make_plan(recipe, network), dataset, "cpu")
    except SaccadeError as error:
        return Outcome(refused=str(error))
    said = without_effect(situation, recipe.given)
    if key in said and key not in OF_IMAGES | OF_MEANS and not train_anyway:
        return Outcome(None, said)
    by_steps = not situation.head_alone
    if key == "data.cache_gb" or key in OF_MEANS:
        return Outcome(means_of(recipe, dataset, network, by_steps=by_steps), said)
    if key in OF_IMAGES:
        like = f"{recipe.data} {recipe.augment} {recipe.batch_size} {network.preprocess} {by_steps}"
        if like not in IMAGES:
            IMAGES[like] = images_of(recipe, dataset, network, by_steps=by_steps)
        mirrored = Augmentation.from_config(recipe.augment).mirrors
        return Outcome((IMAGES[like], mirrored and recipe.solves_head), said)
    return Outcome(learnt(recipe, dataset, network, folder), said)


def in_context(flags: Mapping[str, Any], key: str) -> dict[str, Any]:
    plain = {} if key in OF_IMAGES | OF_MEANS else PLAIN
    return {**plain, **flags}


@pytest.fixture(scope="module")
def plain(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """The outcome without the field, kept for the next one."""
    known: dict[str, Outcome] = {}

    def found(flags: Mapping[str, Any], key: str) -> Outcome:
        kind = "means" if key == "data.cache_gb" or key in OF_MEANS else key in OF_IMAGES
        name = f"{kind} {sorted(flags.items())}"
        if name not in known:
            known[name] = outcome(flags, key, dataset, tmp_path_factory.mktemp("plain") / "run")
        assert not known[name].refused
        return known[name]

    return found


SEEN_BY_TRAINING = [key for key in VALUES if key not in OF_IMAGES | OF_MEANS]
# what "auto" does after its trial is what "full" does, and fast_cnn's defaults are looked at in PAIRS
GRID = [
    (way, key)
    for way in WAYS
    for key in VALUES
    if way not in ("auto", "fast_cnn") or key not in SEEN_BY_TRAINING
]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "key"), GRID)
def test_a_field_changes_something_or_is_refused_or_said_to_be_idle(
    way: str, key: str, plain: Callable[..., Outcome], dataset: Dataset, tmp_path: Path
) -> None:
    flags, value = in_context(WAYS[way], key), other_value(way, key)
    before, after = plain(flags, key), outcome({**flags, key: value}, key, dataset, tmp_path / "run")
    if not after.refused and after.comes_to is not None:  # else it is in the test below
        changed = after.comes_to != before.comes_to
        assert changed != (key in after.said), f"{key} = {value}: {after.said.get(key, 'nothing said')}"


def told(flags: Mapping[str, Any], dataset: Dataset) -> Mapping[str, str]:
    """What is said to have no effect; nothing where the recipe is refused."""
    try:
        recipe = merged_recipe(flags, {}, where="flags").with_batch_size(15)
        return without_effect(
            Situation.of(recipe, make_plan(recipe, tiny_network(recipe, dataset)), dataset, "cpu"),
            recipe.given,
        )
    except SaccadeError:
        return {}


def other_value(way: str, key: str) -> Any:
    has = Recipe.from_mapping(in_context(WAYS[way], key)).flat()[key]
    return OTHERS.get((way, key), next(value for value in VALUES[key] if value != has))


@pytest.mark.parametrize("way", ["head", "tail", "full", "finetune", "scratch"])
def test_all_that_is_said_to_be_idle_together_leaves_a_training_as_it_was(
    way: str, plain: Callable[..., Outcome], dataset: Dataset, tmp_path: Path
) -> None:
    flags = in_context(WAYS[way], "train.lr")
    asked = {key: other_value(way, key) for key in SEEN_BY_TRAINING}
    idle = {key: value for key, value in asked.items() if key in told({**flags, key: value}, dataset)}
    assert len(idle) > 5
    after = outcome({**flags, **idle}, next(iter(idle)), dataset, tmp_path / "run", train_anyway=True)
    assert after.said.keys() >= idle.keys()
    assert after.comes_to == plain(flags, "train.lr").comes_to


@pytest.mark.parametrize(("flags", "key", "value", "has_effect"), PAIRS)
def test_beside_another_field_it_has_its_effect_or_none(
    flags: dict[str, Any],
    key: str,
    value: Any,
    has_effect: bool,
    plain: Callable[..., Outcome],
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    base = in_context(flags if "train.method" in flags else {**WAYS["scratch"], **flags}, key)
    before = plain(base, key)
    after = outcome({**base, key: value}, key, dataset, tmp_path / "run", train_anyway=True)
    assert not after.refused
    assert (after.comes_to != before.comes_to, key not in after.said) == (has_effect, has_effect)


@pytest.mark.parametrize("key", SEEN_BY_TRAINING)
def test_of_auto_as_much_is_said_as_of_full(key: str, dataset: Dataset) -> None:
    value = VALUES[key][0]
    told = []
    for way in ("full", "auto"):
        try:
            recipe = merged_recipe({**WAYS[way], key: value}, {}, where="flags")
        except SaccadeError as error:
            told.append(str(error).replace("method auto", "method full"))
            continue
        situation = Situation.of(recipe, make_plan(recipe, tiny_network(recipe, dataset)), dataset, "cpu")
        told.append(without_effect(situation, recipe.given))
    assert told[0] == told[1]


def test_weights_that_a_backbone_has_not_got_are_said(dataset: Dataset) -> None:
    flags = {"model.backbone": "saccade/fast_cnn", "model.pretrained": True, **KNOWN}
    recipe = Recipe.from_mapping(flags).with_batch_size(15)
    situation = Situation.of(recipe, make_plan(recipe, tiny_network(recipe, dataset)), dataset, "cpu")
    assert without_effect(situation, recipe.given).keys() == {"model.pretrained"}


OF_EQUAL = {"split.test", "split.validation", "train.class_weights", "train.sampling"}

# -- what depends on the data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_parts", "counts", "idle"),
    [
        ((), (5, 6), {"split.repair", "split.allow_leaks"}),
        (("train", "test"), (5, 6), {"split.test"}),
        (("train", "validation"), (5, 5), OF_EQUAL),
        (("train", "validation", "test"), (5, 6), {"split.test", "split.validation"}),
    ],
)
def test_what_the_data_leave_nothing_to_do_is_said(
    given_parts: tuple[str, ...], counts: tuple[int, ...], idle: set[str], dataset: Dataset
) -> None:
    asked = {
        "split.validation": 0.2,
        "split.test": 0.2,
        "split.repair": True,
        "split.allow_leaks": True,
        "train.class_weights": True,
        "train.sampling": "balanced",
    }
    recipe = Recipe.from_mapping(asked)
    situation = Situation.of(recipe, make_plan(recipe, tiny_network(recipe, dataset)), dataset, "cpu")
    situation = replace(situation, given_parts=given_parts, class_counts=counts)
    assert without_effect(situation, recipe.given).keys() == idle


def test_fields_with_one_reason_stand_together_and_nothing_is_said_of_nothing() -> None:
    assert as_sentence({}) == ""
    reasons = {"train.momentum": "why", "train.unfreeze": "because", "train.step_factor": "why"}
    said = (
        "Recipe    no effect in this run: train.momentum, train.step_factor (why); train.unfreeze (because)"
    )
    assert as_sentence(reasons) == said
