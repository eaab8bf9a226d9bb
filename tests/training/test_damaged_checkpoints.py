"""100 truncations and 100 flipped bits of the files of a training: all recovered, or refused by name."""

from __future__ import annotations

import random
import shutil
from typing import Any

import pytest

from saccade.bundle import hash_tensors
from saccade.errors import Interrupted, ModelError, RunError
from saccade.run_folder import RunFolder
from saccade.training import Callback, StopRequest
from saccade.training.state import Checkpoints

DAMAGES = 100


class StopAfter(Callback):
    """Asks for a stop once so many epochs are done."""

    def __init__(self, stop: StopRequest, epochs: int) -> None:
        self.stop, self.epochs = stop, epochs

    def on_epoch_end(self, state, row) -> None:
        if row.epoch == self.epochs:
            self.stop.set(15)


@pytest.fixture
def stopped(fit_tiny, recipe, tmp_path) -> RunFolder:
    """A training that was stopped in its fourth epoch of five, in its second phase."""
    stop = StopRequest()
    chosen = recipe(train__average_with_pretrained=0.5)  # also keeps the weights that fine-tuning began with
    with pytest.raises(Interrupted):
        fit_tiny(recipe=chosen, stop=stop, callbacks=(StopAfter(stop, 4),))
    return RunFolder(tmp_path / "run")


def damaged(data: bytes, kind: str, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return (
        data[:place]
        if kind == "cut"
        else data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + (data[place + 1 :])
    )


def read(run: RunFolder) -> tuple[int, list[Any], list[str]]:
    """What a training that goes on would read: its step, hashes of the tensors, and what is said."""
    checkpoints = Checkpoints(run.checkpoints)
    found, notes = checkpoints.latest()
    assert found is not None, "the checkpoint before is always there"
    best, start = checkpoints.best_weights(found.state), checkpoints.start_weights()
    assert start is not None
    if any("are lost" in note for note in notes):
        best = {}
    hashes = [hash_tensors(named) for named in (found.weights, found.optimizer, start, best)]
    return found.state.step, [*hashes, found.scalars], list(notes)


@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_each_damage_is_recovered_from_or_refused_by_name(stopped, kind):
    whole = {path.name: path.read_bytes() for path in stopped.checkpoints.iterdir()}
    assert {name.split("-")[0] for name in whole} >= {"last", "best", "choices.json", "start.safetensors"}
    newest, values, _ = read(stopped)
    right = {newest: values}
    for path in stopped.checkpoints.glob(f"{max(stopped.checkpoints.glob('last-*.json')).stem}.*"):
        path.unlink()
    older, values, _ = read(stopped)
    right[older] = values
    assert right[older] != right[newest]
    draw, recovered, refused = random.Random(kind), 0, []
    for number in range(DAMAGES):
        for name, data in whole.items():
            (stopped.checkpoints / name).write_bytes(data)
        name = sorted(whole)[number % len(whole)]
        (stopped.checkpoints / name).write_bytes(damaged(whole[name], kind, draw))
        try:
            step, values, notes = read(stopped)
        except (RunError, ModelError) as error:
            refused.append((name, error.problem))
            continue
        lost = any("are lost" in note for note in notes)
        expected = right[step][:3] if lost else right[step]
        assert values[: len(expected)] == expected, f"{name}: other weights than were written"
        said = any(name.rpartition(".")[0] in note for note in notes)
        assert said or step == newest, f"{name}: nothing was said"
        recovered += 1
    assert [(name, text) for name, text in refused if name not in text] == []
    assert recovered + len(refused) == DAMAGES
    assert recovered > DAMAGES / 2


def test_a_run_with_a_damaged_checkpoint_ends_as_if_it_had_none(fit_tiny, recipe, stopped, tmp_path):
    chosen = recipe(train__average_with_pretrained=0.5)
    _, whole = fit_tiny("whole", recipe=chosen)
    for number, name in enumerate(sorted(path.name for path in stopped.checkpoints.iterdir())):
        if not name.startswith("last"):
            continue
        shutil.copytree(stopped.root, tmp_path / str(number))
        path = tmp_path / str(number) / "checkpoints" / name
        path.write_bytes(damaged(path.read_bytes(), "flip", random.Random(name)))
        _, result = fit_tiny(str(number), recipe=chosen)
        assert result.weights_sha256 == whole.weights_sha256, name
