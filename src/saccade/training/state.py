"""What a training remembers, and how it lies on disk: safetensors and JSON, never pickle.

A checkpoint is a pair: `last-00007.safetensors` (weights, optimizer) and `last-00007.json` (everything
else, with the SHA-256 of the tensors, of the best weights it belongs to, and of itself). The JSON is written
last, so a pair is whole or not there. One inside an epoch is named by the epoch before it and its steps:
`last-00007.0000120`. The two newest are kept, and the newest of a finished epoch; a damaged one falls back to
the one before, and damaged best weights to the best that are left.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade.bundle import tensors_from_bytes, tensors_to_bytes
from saccade.errors import ModelError, RunError
from saccade.files import MOST_WEIGHT_BYTES, file_size, parse_json, read_file, read_text
from saccade.records import EpochRow, monitor_in_words
from saccade.run_folder import RunFolder, canonical_sha256, json_bytes, write_bytes, write_json
from saccade.signals import written_first
from saccade.training.schedules import Pace, Plateau
from saccade.training.tally import Part

KEPT = 2
START = "start of fine-tuning"


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the best validation so far: the lowest loss, or the best figure of `train.monitor`."""

    phase: str
    epoch: int
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class FrozenEvidence:
    """Promise 4 for one phase: hashes over all frozen weights and BatchNorm statistics, before and after.

    `parameters` is the number of frozen weights; 0 where the phase froze nothing.
    """

    phase: str
    parameters: int
    before: str
    after: str

    @property
    def kept(self) -> bool:
        return self.before == self.after


@dataclass(frozen=True, slots=True)
class Continued:
    """Promise 9, once: epochs went on after `epoch`; `exact`: optimizer and weights were those of the
    checkpoint, bit for bit."""

    epoch: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """From this step of all (counted from 0), in this epoch, the phase computes in float32: in the arithmetic
    before, its loss or gradient was not finite."""

    phase: str
    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class FitState:
    """Where a training stands after a finished epoch, or inside the one after it; replaced, never changed.

    `epoch` counts from 1 through all phases, `phase_epoch` and `phase_step` start again with each phase.
    `pace` is how the schedule goes on where a deadline leaves no time for all of it.
    `phase_best_loss`: what is watched in the phase's best epoch, lower is better (`EpochRow.score`).
    `averaged`: epochs in the equal average of the last ones, where the phase has one.
    `micro_batch` is 0 until memory was too small for a whole batch. `finished` says why it ended.
    `part`: how far the next epoch is, in a checkpoint inside it.
    """

    phase: int = 0
    epoch: int = 0
    phase_epoch: int = 0
    step: int = 0
    phase_step: int = 0
    best: Best | None = None
    phase_best_loss: float = math.inf
    epochs_without_better: int = 0
    plateau: Plateau = field(default_factory=Plateau)
    micro_batch: int = 0
    pace: Pace | None = None
    frozen_before: str = ""
    frozen: tuple[FrozenEvidence, ...] = ()
    history: tuple[EpochRow, ...] = ()
    notes: tuple[str, ...] = ()
    finished: str = ""
    continued: tuple[Continued, ...] = ()
    averaged: int = 0
    switches: tuple[Switch, ...] = ()
    part: Part | None = None

    def in_float32(self, phase: str) -> bool:
        """Whether that phase has gone on in float32."""
        return any(switch.phase == phase for switch in self.switches)

    @property
    def best_score(self) -> float:
        """What is watched in the best epoch so far, lower is better; infinite before the first."""
        found = (row.score for row in self.history if self.best and row.epoch == self.best.epoch)
        return next(found, math.inf)

    def after_epoch(self, row: EpochRow, *, steps: int, min_delta: float = 0.0) -> FitState:
        """The state after one more epoch; a figure that is NaN is never the best.

        `min_delta`: by how much an epoch must be better for early stopping to count it.
        """
        better_in_phase = row.score < self.phase_best_loss - min_delta
        best = self.best
        if row.score < self.best_score:
            best = Best(row.phase, row.epoch, row.validation_loss, row.validation_accuracy)
        return replace(
            self,
            epoch=row.epoch,
            phase_epoch=self.phase_epoch + 1,
            step=self.step + steps,
            phase_step=self.phase_step + steps,
            best=best,
            phase_best_loss=row.score if better_in_phase else self.phase_best_loss,
            epochs_without_better=0 if better_in_phase else self.epochs_without_better + 1,
            history=(*self.history, row),
            part=None,
        )

    def next_phase(self, evidence: FrozenEvidence) -> FitState:
        """The state at the start of the following phase: its own patience, plateau and step count."""
        return replace(
            self,
            phase=self.phase + 1,
            phase_epoch=0,
            phase_step=0,
            phase_best_loss=math.inf,
            epochs_without_better=0,
            plateau=Plateau(),
            pace=None,
            averaged=0,
            part=None,
            frozen_before="",
            frozen=(*self.frozen, evidence),
        )

    def with_note(self, note: str) -> FitState:
        """The state with one more thing said, where there is something new to say."""
        return self if not note or note in self.notes else replace(self, notes=(*self.notes, note))

    def with_continuation(self, exact: bool) -> FitState:
        """The state with one more time noted that it went on from a checkpoint."""
        return replace(self, continued=(*self.continued, Continued(self.epoch, exact)))

    @property
    def best_is_now(self) -> bool:
        """True right after an epoch that was the best of all."""
        return self.best is not None and self.best.epoch == self.epoch and self.part is None

    @property
    def elapsed(self) -> float:
        """Seconds that the training took so far."""
        if self.part:
            return self.part.elapsed
        return self.history[-1].seconds if self.history else 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What `Checkpoints.latest` found: the state, the weights and the optimizer that go on.

    `raw`: where `weights` are a moving average, those parts of them as training goes on from them.
    """

    state: FitState
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    scalars: dict[str, float]
    raw: dict[str, Tensor]


class Checkpoints:
    """The `checkpoints/` folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run = RunFolder(folder.parent)
        self._best_sha256 = ""  # of the best weights that the newest state names
        self.save_seconds = 0.0  # that the latest `save` took

    @written_first()
    def save(
        self,
        state: FitState,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        scalars: Mapping[str, float],
        *,
        raw: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint, and the best weights where it ends the best epoch."""
        began = time.monotonic()
        if state.best_is_now:
            best = tensors_to_bytes(weights)
            write_bytes(self._best(state), best)
            self._best_sha256 = _sha256(best)
        named = {f"weights/{name}": tensor for name, tensor in weights.items()}
        named |= {f"optimizer/{name}": tensor for name, tensor in optimizer.items()}
        named |= {f"raw/{name}": tensor for name, tensor in (raw or {}).items()}
        data = tensors_to_bytes(named)
        write_bytes(self._tensors(state), data)
        self._write_state(state, _sha256(data), scalars)
        self._remove_old()
        self.save_seconds = time.monotonic() - began

    def finish(self, state: FitState) -> None:
        """Note in the checkpoint of the last finished epoch that training has ended, and why."""
        self.forget_after(state)
        body = self._read_state(self._json(state))
        self._write_state(state, body["tensors_sha256"], body["scalars"])

    def require_space(self, best_bytes: int, last_bytes: int, *, inside: bool = False) -> None:
        """Raises RunError unless the disk holds what is kept of both, and one more of each while writing.

        `inside`: checkpoints are also written inside epochs.
        """
        needed = (KEPT + 1) * (best_bytes + last_bytes) + inside * last_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in self.folder.iterdir())
        free = shutil.disk_usage(self.folder).free
        if free + there < needed:
            raise RunError(
                f"training needs {file_size(needed)} for its checkpoints and has {file_size(free)} "
                f"in {self.folder}",
                hint="free some space there, or give --out another folder",
            )

    def latest(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """The newest checkpoint that is whole, and a note for each newer one that is not."""
        notes: list[str] = []
        for path in self._newest_first():
            try:
                checkpoint, damaged_best = self._with_whole_best(self._load(path))
            except (RunError, ModelError) as error:
                notes.append(f"{error.problem}: went back to the checkpoint before it")
            else:
                return checkpoint, (*notes, *damaged_best)
        if notes:
            notes.append("no intact checkpoint is left, so training starts again from the beginning")
        return None, tuple(notes)

    def best_weights(self, state: FitState) -> dict[str, Tensor]:
        """The weights of the best epoch; raises RunError when the file is damaged."""
        try:
            return load_tensors(self._best(state), self._best_sha256)
        except RunError as error:
            raise RunError(
                error.problem, hint="give the same command again: it goes back to an intact checkpoint"
            ) from None

    def keep_start(self, weights: Mapping[str, Tensor]) -> None:
        """Write down the weights that fine-tuning begins from."""
        data = tensors_to_bytes(weights)
        write_bytes(self._start_file, data)
        self.keep_choice(START, {"sha256": _sha256(data)})

    def start_weights(self) -> dict[str, Tensor] | None:
        """What `keep_start` wrote, or None; raises RunError where the file is damaged or gone."""
        kept = self.choice(START)
        return None if kept is None else load_tensors(self._start_file, kept["sha256"])

    @property
    def _start_file(self) -> Path:
        return self.folder / "start.safetensors"

    def choice(self, name: str) -> dict[str, Any] | None:
        """What `keep_choice` wrote under this name, or None; raises RunError for a damaged file."""
        found = self._choices().get(name)
        return None if found is None else dict(found)

    def keep_choice(self, name: str, values: Mapping[str, Any]) -> None:
        """Write down what was chosen by the clock, at once: a run that continues must not choose again."""
        self._run.write(self._choices_file, json_bytes({**self._choices(), name: dict(values)}))

    def _choices(self) -> dict[str, Any]:
        """All choices; where their file is gone, those of the newest checkpoint: later ones have had no part
        in the state that training goes on from."""
        if self._run.has(self._choices_file):
            return dict(parse_json(self._run.read(self._choices_file)))
        for path in self._newest_first():
            with contextlib.suppress(RunError):
                return dict(self._read_state(path).get("choices", {}))
        return {}

    @property
    def _choices_file(self) -> Path:
        return self.folder / "choices.json"

    def _load(self, path: Path) -> Checkpoint:
        body = self._read_state(path)
        state = state_from_json(body["state"])
        tensors = load_tensors(self._tensors(state), body["tensors_sha256"])
        self._best_sha256 = body["best_sha256"]
        return Checkpoint(
            state=state,
            weights=_below("weights/", tensors),
            optimizer=_below("optimizer/", tensors),
            scalars=body["scalars"],
            raw=_below("raw/", tensors),
        )

    def _with_whole_best(self, checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[str, ...]]:
        """The checkpoint with best weights that are whole, and what must be said where they were damaged."""
        state, lost = checkpoint.state, checkpoint.state.best
        if lost is None:
            return checkpoint, ()
        try:
            _verify(self._best(state), self._best_sha256)
            return checkpoint, ()
        except RunError as error:
            damage = error.problem
        left = self._weights_left(checkpoint)
        if not left:
            raise RunError(damage)
        rows = {row.epoch: row for row in state.history}
        scores = {epoch: rows[epoch].score for epoch in rows if epoch in left}
        finite = {epoch: score for epoch, score in scores.items() if math.isfinite(score)} or scores
        epoch = lost.epoch if lost.epoch in left else min(finite, key=finite.__getitem__)
        state = self._with_best(state, epoch, left[epoch])
        note = f"{damage}: made again from that epoch's checkpoint"
        if epoch != lost.epoch:
            note = (
                f"{damage}: the weights of epoch {lost.epoch} ({_watched(rows[lost.epoch])}) are lost; the "
                f"best that are left are those of epoch {epoch} ({_watched(rows[epoch])})"
            )
        return replace(checkpoint, state=state), (note,)

    def _weights_left(self, checkpoint: Checkpoint) -> dict[int, dict[str, Tensor]]:
        """Weights by finished epoch: those of this checkpoint and of the older ones that are whole."""
        state = checkpoint.state
        left = {} if state.part else {state.epoch: checkpoint.weights}
        for path in self._newest_first():
            if _is_inside(path) or path.stem >= _stem(state):
                continue
            with contextlib.suppress(RunError, ModelError):
                body = self._read_state(path)
                tensors = load_tensors(path.with_suffix(".safetensors"), body["tensors_sha256"])
                left[int(body["state"]["epoch"])] = _below("weights/", tensors)
        return left

    def _with_best(self, state: FitState, epoch: int, weights: Mapping[str, Tensor]) -> FitState:
        """The state with the weights of this epoch as its best, written down."""
        row = next(row for row in state.history if row.epoch == epoch)
        best = Best(row.phase, row.epoch, row.validation_loss, row.validation_accuracy)
        body, state = self._read_state(self._json(state)), replace(state, best=best)
        data = tensors_to_bytes(weights)
        write_bytes(self._best(state), data)
        self._best_sha256 = _sha256(data)
        self._write_state(state, body["tensors_sha256"], body["scalars"])
        return state

    def _write_state(self, state: FitState, tensors_sha256: str, scalars: Mapping[str, float]) -> None:
        body = {
            "tensors_sha256": tensors_sha256,
            "best_file": self._best(state).name if state.best else "",
            "best_sha256": self._best_sha256,
            "scalars": dict(scalars),
            "choices": self._choices(),
            "state": state_to_json(state),
        }
        write_json(self._json(state), {"sha256": canonical_sha256(body), "body": body})

    def _read_state(self, path: Path) -> dict[str, Any]:
        try:
            values = parse_json(read_text(path, errors="surrogateescape"))
            body = values["body"]
            whole = values["sha256"] == canonical_sha256(body)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({type(error).__name__})") from None
        if not whole:
            raise RunError(f"{path} is damaged (its SHA-256 does not match)")
        return dict(body)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("last-*.json"), key=lambda path: path.stem, reverse=True)

    def _remove_old(self) -> None:
        """Only the newest checkpoints and the best weights they name stay."""
        jsons = _worth_keeping(self._newest_first())
        keep = {path.name for path in jsons} | {path.with_suffix(".safetensors").name for path in jsons}
        for path in jsons:
            with contextlib.suppress(RunError):  # damaged by now: nothing can go on from it
                keep.add(str(self._read_state(path)["best_file"]))
        for path in (*self.folder.glob("last-*"), *self.folder.glob("best-*")):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def forget_after(self, state: FitState) -> None:
        """Remove what is newer than the checkpoint one goes on from, and temporary files of killed writes."""
        newer = [path for path in self.folder.glob("last-*") if path.stem > _stem(state)]
        for path in (*newer, *self.folder.glob(".last-*"), *self.folder.glob(".best-*")):
            path.unlink(missing_ok=True)

    def _tensors(self, state: FitState) -> Path:
        return self.folder / f"{_stem(state)}.safetensors"

    def _json(self, state: FitState) -> Path:
        return self.folder / f"{_stem(state)}.json"

    def _best(self, state: FitState) -> Path:
        assert state.best is not None, "best weights exist only once an epoch was the best"
        return self.folder / f"best-{state.best.epoch:05d}.safetensors"


def _watched(row: EpochRow) -> str:
    """What the best epoch was chosen by, in words."""
    if row.monitored is None:
        return f"validation loss {row.validation_loss:.4g}"
    return f"{monitor_in_words(row.monitor)} {row.monitored:.4g}"


def _stem(state: FitState) -> str:
    """The name of a state's checkpoint; sorted by it, checkpoints are in the order of training."""
    part = state.part
    return f"last-{state.epoch:05d}" + (f".{part.steps:07d}{'e' * part.ended}" if part else "")


def _is_inside(path: Path) -> bool:
    """Whether the checkpoint of this file was written inside an epoch."""
    return "." in path.stem


def _worth_keeping(newest_first: Sequence[Path]) -> list[Path]:
    """The newest KEPT of finished epochs. Inside an epoch the newest KEPT there, and one more of those."""
    ends = [path for path in newest_first if not _is_inside(path)]
    inside = list(itertools.takewhile(_is_inside, newest_first))[:KEPT]
    return inside + ends[: min(KEPT, KEPT + 1 - len(inside))]


# -- the state as JSON -------------------------------------------------------------------------------


def state_to_json(state: FitState) -> dict[str, Any]:
    """Plain values; an infinite loss ("none yet") becomes null."""
    values = asdict(state)
    values["phase_best_loss"] = _finite_or_none(state.phase_best_loss)
    values["plateau"]["best"] = _finite_or_none(state.plateau.best)
    return values


def state_from_json(values: Mapping[str, Any]) -> FitState:
    """What `state_to_json` wrote, bit for bit; raises RunError for anything else."""
    try:
        plateau = {**values["plateau"], "best": _or_infinite(values["plateau"]["best"])}
        return FitState(
            **{
                **values,
                "best": Best(**values["best"]) if values["best"] else None,
                "phase_best_loss": _or_infinite(values["phase_best_loss"]),
                "plateau": Plateau(**plateau),
                "pace": Pace(**values["pace"]) if values.get("pace") else None,
                "frozen": tuple(FrozenEvidence(**entry) for entry in values["frozen"]),
                "history": tuple(EpochRow(**row) for row in values["history"]),
                "notes": tuple(values["notes"]),
                "continued": tuple(Continued(**entry) for entry in values.get("continued", ())),
                "switches": tuple(Switch(**entry) for entry in values.get("switches", ())),
                "part": _part(values.get("part")),
            }
        )
    except (TypeError, KeyError) as error:
        raise RunError(f"a checkpoint's state cannot be read ({error})") from None


def _part(values: Mapping[str, Any] | None) -> Part | None:
    return Part(**{**values, "pace": Pace(**values["pace"]) if values["pace"] else None}) if values else None


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


# -- files -------------------------------------------------------------------------------------------


def load_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file; raises RunError where it is not the one of this SHA-256 ("": any)."""
    data = _verify(path, sha256)
    return tensors_from_bytes(data, where=str(path))


def _verify(path: Path, sha256: str) -> bytes:
    try:
        data = read_file(path, max_bytes=MOST_WEIGHT_BYTES)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from None
    if sha256 and _sha256(data) != sha256:
        raise RunError(f"{path} is damaged (its SHA-256 does not match)")
    return data


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
