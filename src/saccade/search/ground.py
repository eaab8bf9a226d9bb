"""What all trials of a search share: the data, divided once, features of its images, what models cost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.building import build_network, check_buildable
from saccade.bundle import Bundle
from saccade.errors import ModelError, OtherRunError, RecipeError
from saccade.export.bench import median_latencies
from saccade.export.onnx import write_onnx
from saccade.features.shared import SharedFeatures
from saccade.pipeline import division, prepare
from saccade.pipeline.begin import versions
from saccade.pipeline.evidence import WatchedStorage, watching_test
from saccade.pipeline.train import identity
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder, json_bytes, read_json
from saccade.run_record import RunRecord
from saccade.runtime import Runtime
from saccade.search.locks import FileLock
from saccade.search.space import Params, Space
from saccade.selection.at_hand import Candidate, weights_at_hand
from saccade.sources.addresses import root_as_text
from saccade.terminal import Terminal
from saccade.training.clock import ending_seconds

if TYPE_CHECKING:
    from optuna.study import Study

TIMING_ROUNDS = 3
LEAST_SECONDS, HEAD_MARGIN = 2.0, 1.3  # for one more trial
MEASURED_OF_TRAIN = 500  # images, which the run of the best trial evaluates at its end
BYTES = 4  # a weight


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may cost; 0 is no limit. `latency_ms`: one photo on one core of this machine."""

    latency_ms: float = 0.0
    megabytes: float = 0.0


@dataclass
class Ground:
    """A search under way in this process. `home` is its folder, `dataset` notes test images that are read."""

    home: RunFolder
    location: str
    listed: Dataset
    dataset: Dataset
    space: Space
    limits: Limits
    terminal: Terminal
    end: float = math.inf  # monotonic seconds, by which the last trial must have ended
    _features: dict[str, SharedFeatures] = field(default_factory=dict)
    _longest_head: float = 0.0
    _test_images_told: int = 0

    def note_seconds(self, method: str, seconds: float) -> None:
        """Remember what a head took at most: its features must be computed for each backbone and size."""
        if method == "head":
            self._longest_head = max(self._longest_head, seconds)

    @property
    def has_time(self) -> bool:
        """Whether one more trial can give a model before the end; without any model, one is made anyway."""
        least = max(LEAST_SECONDS, HEAD_MARGIN * self._longest_head)
        return self.seconds_left > least or not self.has_model

    @property
    def has_model(self) -> bool:
        """Whether a trial of any process has given one."""
        return (self.home.root / "best.json").is_file()

    @property
    def loss_in_words(self) -> str:
        """What `Rung.log_loss` is."""
        return "calibrated log loss" if self.space.base.train.monitor == "calibrated_loss" else "log loss"

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def features(self, params: Params) -> SharedFeatures:
        """Those of the trial's backbone at its size; images of training and validation alone."""
        name = f"{params['backbone']} at {params.get('size', 'its own')}"
        if name not in self._features:
            records = [record for record in self.dataset.used() if record.part != "test"]
            self._features[name] = SharedFeatures(records, name, self.home.root / "features")
        return self._features[name]

    def newly_read(self) -> int:
        """Test images that this process has read for the first time since this was asked last."""
        storage = self.dataset.storage
        assert isinstance(storage, WatchedStorage), "watched since the split"
        new = len(storage.looked_at) - self._test_images_told
        self._test_images_told += new
        return new

    def cost(self, params: Params, study: Study) -> dict[str, float]:
        """Megabytes of the trial's model, and, where it is limited, its latency: measured once a search."""
        name = f"cost of {params['backbone']} at {params.get('size', 'its own')}"
        known: dict[str, float] | None = study.user_attrs.get(name)
        if known is None:
            known = _measured(self, params)
            study.set_user_attr(name, known)
        return known

    def forget_features(self) -> None:
        """Free the memory; the folder keeps them."""
        self._features.clear()


def _measured(ground: Ground, params: Params) -> dict[str, float]:
    recipe = ground.space.recipe(params, "head")
    network = build_network(ground.dataset, recipe)
    weights = sum(parameter.numel() for parameter in network.module.parameters())
    found = {"megabytes": round(weights * BYTES / 1e6, 2), "parameters": float(weights)}
    if not ground.limits.latency_ms:
        return found
    with tempfile.TemporaryDirectory(prefix="saccade-") as folder:
        file = Path(folder) / "model.onnx"
        classes = ground.dataset.classes
        write_onnx(Bundle(network.module, classes, network.preprocess, network.architecture), file)
        (latency,) = median_latencies({"": file}, rounds=TIMING_ROUNDS)
    return found | {"latency_ms": round(latency, 3)}


# -- beginning ---------------------------------------------------------------------------------------


def searched(recipe: Recipe, backbones: Sequence[str]) -> Space:
    """What is searched, a time limit aside; raises ModelError for a backbone that cannot be had."""
    base = recipe.model_copy(update={"train": recipe.train.model_copy(update={"time_limit": 0.0})})
    space = Space(_candidates(base, backbones), base)
    for label in space.candidates:
        try:
            check_buildable(space.recipe({"backbone": label}, "head"))
        except ModelError as error:
            raise ModelError(f"backbone {label}: {error.problem}", hint=error.hint) from None
    return space


def prepared(
    home: RunFolder,
    location: str,
    space: Space,
    limits: Limits,
    terminal: Terminal,
    *,
    command: Sequence[str],
    began: float,
    limit: float,
) -> Ground:
    """Divide the data, or read how the first process of this search divided them.

    `limit`: seconds from `began` for the whole command. Raises SaccadeError where it cannot, OtherRunError
    where the folder holds another search.
    """
    base = space.base
    with _first_or_next(home):
        settings = {"backbones": {n: dataclasses.asdict(c) for n, c in space.candidates.items()}}
        settings |= {"limits": dataclasses.asdict(limits)}
        if home.continues(base, identity(location)):
            _refuse_other_settings(home, settings)
            listed = prepare.list_data(location, base)
            dataset = division.stored_data(home, listed)
            terminal.say(f"{home.root} continues")
        else:
            listed, dataset = _divided(home, location, base, settings, terminal, command)
    judged = sum(len(dataset.used(part)) for part in ("validation", "test"))
    judged += min(MEASURED_OF_TRAIN, len(dataset.used("train")))
    end = began + limit - min(ending_seconds(judged), limit / 2) if limit else math.inf
    return Ground(home, location, listed, watching_test(dataset), space, limits, terminal, end)


def _candidates(base: Recipe, backbones: Sequence[str]) -> dict[str, Candidate]:
    """By label: those that were named, else the recipe's, else those at hand."""
    model = base.model
    if backbones:
        found = tuple(Candidate(name) for name in backbones)
    elif "model.backbone" in base.given and model.backbone != AUTO_BACKBONE:
        found = (Candidate(model.backbone, model.weights),)
    else:
        found = weights_at_hand(model.weights).candidates
    if not base.model.pretrained:
        raise RecipeError(
            "saccade search compares pretrained backbones, but model.pretrained is false",
            hint="leave --no-pretrained out",
        )
    return {candidate.label: candidate for candidate in found}


def _divided(
    home: RunFolder,
    location: str,
    base: Recipe,
    settings: Mapping[str, Any],
    terminal: Terminal,
    command: Sequence[str],
) -> tuple[Dataset, Dataset]:
    """The data as listed, and audited and divided, which is written down."""
    listed = prepare.list_data(location, base)
    prepare.require_validation_to_come(listed, base)
    prepare.refuse_small_classes(listed, base)
    read = prepare.read_images(listed, base, terminal)
    audited, made = division.divide_searched(read, base, terminal)
    prepare.require_validation(made.dataset, base)
    record = RunRecord(
        data=identity(location)["data"],
        root=root_as_text(made.dataset.root),
        command=tuple(command),
        platform=platform.platform(),
        versions=versions(),
        **Runtime.create(base.device, base.precision).describe(),
        classes=made.dataset.classes,
        split=division.split_as_json(made),
    )
    home.root.mkdir(parents=True, exist_ok=True)
    with home.begun():
        home.note_command(command)
        home.write(home.root / "settings.json", json_bytes(settings))
        home.write_dataset(made.dataset.records)
        division.write_audit(home, audited, made)
        home.write_record(record)
        home.write_recipe(base, comment="What all trials of this search share.")
    return listed, made.dataset


def _refuse_other_settings(home: RunFolder, settings: Mapping[str, Any]) -> None:
    before = read_json(home.root / "settings.json")
    if before != json.loads(json.dumps(settings)):
        raise OtherRunError(
            f"{home.root} holds a search with other backbones or limits",
            hint="give the same --backbones and limits to continue, or --out a new folder",
        )


@contextlib.contextmanager
def _first_or_next(home: RunFolder) -> Iterator[None]:
    """Within it one process at a time looks whether the search has begun; a refusal leaves nothing behind."""
    lock = home.root.with_name(f".{home.root.name}.lock")
    new = [folder for folder in (lock.parent, *lock.parent.parents) if not folder.exists()]
    try:
        with FileLock(lock):
            yield
    finally:
        if not home.recipe.exists():
            lock.unlink(missing_ok=True)
            for folder in (home.root, *new):
                with contextlib.suppress(OSError):
                    folder.rmdir()
