"""Checkpoints inside an epoch: by time and at a stop; what goes on from one ends bit-identical."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.errors import Interrupted, RunError, TrainingError
from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training import Callback, Clock, StopRequest
from saccade.training.job import TrainingData
from saccade.training.within_epoch import pause
from saccade.transforms import Augmentation, Batch, TrainingBatches

EACH_STEP = 1e-9  # seconds between two checkpoints


class StopAfter(Callback):
    """Asks for a stop after some steps; counts them, and keeps what is said."""

    def __init__(self, steps: int = 0) -> None:
        self.stop, self.at, self.steps = StopRequest(), steps, 0
        self.said: list[str] = []

    def on_step(self, progress: Any) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.stop.set(15)

    def on_note(self, note: str) -> None:
        self.said.append(note)


class CrashAfter(StopAfter):
    def on_step(self, progress: Any) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise KeyboardInterrupt


def attempt(fit_tiny: Any, watcher: StopAfter, **options: Any) -> Any:
    """The result of a training, or None where it was stopped."""
    try:
        return fit_tiny(stop=watcher.stop, callbacks=(watcher,), **options)[1]
    except KeyboardInterrupt:
        return None


def in_pieces(fit_tiny: Any, steps: int, **options: Any) -> tuple[Any, int]:
    """The result of a training that is stopped after each few steps, and all steps that it made."""
    made = 0
    for _ in range(60):
        watcher = StopAfter(steps)
        result = attempt(fit_tiny, watcher, **options)
        made += watcher.steps
        if result:
            return result, made
    raise AssertionError("it goes on for ever")


def told(result: Any, folder: Path) -> Any:
    """All that must be the same in a training that was stopped: weights, optimizer, history and words."""
    start = [path.read_bytes() for path in (folder / "checkpoints").glob("start.*")]
    last = max((folder / "checkpoints").glob("last-*.safetensors"))
    return (
        result.weights_sha256,
        [timeless(row) for row in result.history],
        (last.name, last.read_bytes(), start),
        (result.best, result.stopped, result.notes, result.frozen),
    )


def inside(folder: Path) -> list[str]:
    """Names of the checkpoints inside an epoch."""
    return sorted(path.stem for path in (folder / "checkpoints").glob("last-*.*.json"))


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"train__ema_decay": 0.9, "train__unfreeze": "1", "train__average_with_pretrained": 0.5},
    "plateau": {"train__schedule": "plateau", "train__plateau_patience": 0, "train__lr": 3.0},
    "accumulate": {"train__accumulate": 2},
    "momentum": {"train__optimizer": "sgd", "train__gradient_clip": 0.1},
    "last epochs": {"train__swa_epochs": 3, "train__schedule": "constant", "train__epochs": 4},
    "kept views": {"train__unfreeze": "1", "train__kept_views": 2, "train__epochs": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_stopped_again_and_again_it_ends_bit_identical(
    fit_tiny: Any, recipe: Any, tmp_path: Path, way: str
) -> None:
    """Four of three steps: in the middle of epochs, at their ends, in the first epoch of a phase."""
    data = TinyData(images=44, batch_size=16) if way == "accumulate" else TinyData()
    mixing = {"mix_up": 0.2} if way in ("plain", "last epochs") else {}
    options = {"recipe": recipe(**WAYS[way]), "data": data, **mixing}
    _, whole = fit_tiny("whole", **options)
    result, steps = in_pieces(fit_tiny, 4, **options)
    assert told(result, tmp_path / "run") == told(whole, tmp_path / "whole")
    assert steps == 3 * len(whole.history), "no step is made twice"
    assert len(result.continued) > 2
    assert all(entry.exact for entry in result.continued)


def test_killed_between_two_checkpoints_only_the_steps_since_are_made_again(
    fit_tiny: Any, recipe: Any, tmp_path: Path
) -> None:
    chosen = recipe(train__checkpoint_every=EACH_STEP)
    _, whole = fit_tiny("whole", recipe=chosen)
    first, second = CrashAfter(8), StopAfter()
    assert attempt(fit_tiny, first, recipe=chosen) is None
    assert inside(tmp_path / "run") == ["last-00002.0000001"], "step 8 is the second of epoch 3"
    result = attempt(fit_tiny, second, recipe=chosen)
    assert told(result, tmp_path / "run") == told(whole, tmp_path / "whole")
    assert second.steps == 15 - 7
    assert second.said[0] == "goes on in epoch 3 after 1 of 3 steps"
    assert inside(tmp_path / "run") == [], "of finished epochs nothing else is kept"


class StopsInValidation(TinyData):
    """Asks for a stop in the middle of a validation."""

    watcher: StopAfter
    asked: list[int]

    @classmethod
    def of(cls, watcher: StopAfter) -> StopsInValidation:
        data = cls()
        object.__setattr__(data, "watcher", watcher)
        object.__setattr__(data, "asked", [])
        return data

    def validation(self) -> Iterator[Batch]:
        first, *others = TinyData(self.images, self.batch_size, seed=7).epoch(0)
        yield first
        self.asked.append(1)
        if len(self.asked) == 3:
            self.watcher.stop.set(15)
        yield from others


@pytest.mark.parametrize("way", ["plain", "average", "last epochs"])
def test_stopped_while_it_is_validated_an_epoch_is_not_trained_again(
    fit_tiny: Any, recipe: Any, tmp_path: Path, way: str
) -> None:
    options = {"recipe": recipe(**WAYS[way]), "pretrained": False}
    _, whole = fit_tiny("whole", **options)
    first, second = StopAfter(), StopAfter()
    assert attempt(fit_tiny, first, data=StopsInValidation.of(first), **options) is None
    assert inside(tmp_path / "run") == ["last-00002.0000003e"]
    assert first.said == ["kept: epoch 3, 3 of 3 steps"]
    result = attempt(fit_tiny, second, **options)
    assert told(result, tmp_path / "run") == told(whole, tmp_path / "whole")
    assert first.steps + second.steps == 3 * len(whole.history)


def test_a_schedule_shortened_inside_an_epoch_stays_so(
    fit_tiny: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is looked at after 8 of 10 steps."""
    monkeypatch.setattr(
        Clock, "steps_that_fit", lambda self, **_: 42 if math.isfinite(self.deadline) else 10**9
    )
    options = {
        "recipe": recipe(train__epochs=40, train__early_stopping=0),
        "pretrained": False,
        "deadline": time.monotonic() + 1000,
        "data": TinyData(images=80),
    }
    _, whole = fit_tiny("whole", **options)
    assert len(whole.history) < 40
    result, _ = in_pieces(fit_tiny, 9, **options)
    assert result.weights_sha256 == whole.weights_sha256
    assert [*map(timeless, result.history)] == [*map(timeless, whole.history)]


def test_without_checkpoints_inside_an_epoch_a_stop_goes_back_to_its_beginning(
    fit_tiny: Any, recipe: Any, tmp_path: Path
) -> None:
    watcher = StopAfter(5)
    assert attempt(fit_tiny, watcher, recipe=recipe(train__checkpoint_every=0)) is None
    assert inside(tmp_path / "run") == []
    assert watcher.said == []


def test_a_disk_that_is_full_at_a_stop_is_said_and_the_stop_stays_one(
    job_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.training import fit

    watcher = StopAfter(2)
    job = job_tiny(stop=watcher.stop, callbacks=(watcher,))

    def full(*_: Any, **__: Any) -> None:
        raise RunError("last-00000 cannot be written (No space left on device); it needs 2.0 MB")

    monkeypatch.setattr(job.checkpoints, "save", full)
    with pytest.raises(Interrupted):
        fit(job)
    assert watcher.said[0].startswith("not kept: epoch 1, 2 of 3 steps: last-00000 cannot be written (No")


def test_a_second_signal_waits_for_no_checkpoint() -> None:
    stop = StopRequest()
    stop.set(15)
    assert not stop.immediate
    with pytest.raises(Interrupted):
        stop.set(2)
    assert stop.immediate


class Spoils(StopAfter):
    """Makes weights NaN after the first step, as an update that overflows would."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def on_step(self, progress: Any) -> None:
        self.network.head[1].weight.data.fill_(torch.nan)


def test_weights_that_are_not_finite_are_never_kept(fit_tiny: Any, recipe: Any, tmp_path: Path) -> None:
    network = tiny_classifier()
    chosen = recipe(train__checkpoint_every=EACH_STEP)
    with pytest.raises(TrainingError, match="NaN"):
        fit_tiny(classifier=network, recipe=chosen, pretrained=False, callbacks=(Spoils(network),))
    assert not list((tmp_path / "run").rglob("last-*"))


@pytest.mark.parametrize(
    ("every", "save_seconds", "seconds"),
    [("auto", 0.0, 60.0), ("auto", 3.0, 150.0), ("5m", 30.0, 300.0), (0, 0.1, math.inf)],
)
def test_the_usual_pause_keeps_the_cost_below_a_fiftieth(
    job_tiny: Any, recipe: Any, every: Any, save_seconds: float, seconds: float
) -> None:
    job = job_tiny(recipe=recipe(train__checkpoint_every=every))
    job.checkpoints.save_seconds = save_seconds
    assert pause(job) == pytest.approx(seconds)


@dataclass(frozen=True)
class Photos:
    """Augmented photos, by so many worker processes."""

    batches: TrainingBatches

    def as_training_data(self) -> TrainingData:
        return TrainingData(self.batches, TinyData().validation, dict.fromkeys(("bar", "checker", "disc"), 8))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
def test_the_number_of_workers_may_change_at_every_stop(
    fit_tiny: Any, recipe: Any, tmp_path: Path, make_photos: Callable[..., Path]
) -> None:
    root = make_photos(images=8, side=20)
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    records = [ImageRecord(name, name.partition("/")[0]) for name in names]

    def data(workers: int) -> Photos:
        strong = Augmentation.from_config(AugmentConfig(policy="strong"))
        classes, storage = ("bar", "checker", "disc"), FolderStorage(root)
        options: dict[str, Any] = {"augmentation": strong, "seed": 3, "workers": workers}
        return Photos(TrainingBatches(storage, records, classes, Preprocess(8), 8, **options))

    options = {"recipe": recipe(), "pretrained": False}
    _, whole = fit_tiny("whole", data=data(0), **options)
    for workers, steps in ((2, 2), (0, 2), (1, 1)):  # of the three steps of three epochs
        assert attempt(fit_tiny, StopAfter(steps), data=data(workers), **options) is None
    result = attempt(fit_tiny, StopAfter(), data=data(4), **options)
    assert told(result, tmp_path / "run") == told(whole, tmp_path / "whole")
