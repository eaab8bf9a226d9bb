"""What is remembered between epochs, and that damaged files are noticed and gone around."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import RunError
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.training.optimizer_state import flatten_optimizer, unflatten_optimizer
from saccade.training.schedules import Pace
from saccade.training.state import (
    Checkpoints,
    FitState,
    FrozenEvidence,
    _watched,
    state_from_json,
    state_to_json,
)
from saccade.training.tally import Part


def row(epoch: int, validation_loss: float, phase: str = "main") -> EpochRow:
    return EpochRow(phase, epoch, 0.1, 1.0, 0.5, validation_loss, 0.5, float(epoch))


def after(losses: list[float]) -> FitState:
    state = FitState()
    for epoch, loss in enumerate(losses, start=1):
        state = state.after_epoch(row(epoch, loss), steps=3)
    return state


def test_the_best_epoch_has_the_lowest_validation_loss_and_the_first_of_equals():
    state = after([3.0, 1.0, 2.0, 1.0])
    assert state.best is not None
    assert (state.best.epoch, state.best.validation_loss) == (2, 1.0)
    assert state.epochs_without_better == 2
    assert not state.best_is_now


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_finite_number_is_never_the_best(bad):
    assert after([bad]).best is None
    state = after([bad, 5.0, bad])
    assert state.best is not None
    assert state.best.epoch == 2


def test_each_phase_has_its_own_patience_but_the_best_is_over_all():
    state = after([1.0, 2.0]).next_phase(FrozenEvidence("head", 5, "a", "a"))
    assert (state.epochs_without_better, state.phase_epoch, state.phase_step) == (0, 0, 0)
    state = state.after_epoch(row(3, 1.5, "finetune"), steps=3)
    assert state.epochs_without_better == 0, "1.5 is the finetune phase's best"
    assert state.best is not None
    assert state.best.epoch == 1, "but not the best of all"


@given(st.lists(st.floats(0, 1e6), max_size=6), st.integers(0, 64), st.text(max_size=20), st.floats(0, 1e300))
def test_a_state_survives_json_bit_for_bit(losses, micro_batch, note, loss_sum):
    pace = Pace(3, 0.1, 7) if micro_batch % 2 else None
    part = Part(3, 24, loss_sum, 5.0, loss_sum / 3, 1.5, 2.5, pace, ended=bool(pace))
    state = replace(after(losses).with_note(note), micro_batch=micro_batch, part=part if losses else None)
    assert state_from_json(json.loads(json.dumps(state_to_json(state), allow_nan=False))) == state


def test_a_real_optimizers_state_survives_flattening():
    parameters = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    tensors, numbers = flatten_optimizer(optimizer)
    assert sorted(tensors) == ["0/exp_avg", "0/exp_avg_sq", "0/step", "1/exp_avg", "1/exp_avg_sq", "1/step"]
    again, steps = unflatten_optimizer(tensors, {**numbers, "0/some_number": 3, "group/1/step": 7})
    assert steps == {1: 7}
    assert again[0].pop("some_number") == 3
    assert again == {0: state[0], 1: state[1]}


# -- damage ------------------------------------------------------------------------------------------


def saved(folder: Path, losses: list[float]) -> list[dict[str, torch.Tensor]]:
    """A checkpoint an epoch; returns the weights of each."""
    checkpoints, state, kept = Checkpoints(folder), FitState(), []
    for epoch, loss in enumerate(losses, start=1):
        state = state.after_epoch(row(epoch, loss), steps=3)
        weights = {"w": torch.full((5, 7), float(epoch))}
        checkpoints.save(state, weights, {"0/exp_avg": torch.ones(2)}, {"0/step": float(epoch)})
        kept.append(weights)
    return kept


def test_two_checkpoints_and_their_best_weights_are_kept(tmp_path):
    saved(tmp_path, [3.0, 1.0, 2.0, 2.5])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-00002.safetensors",
        "last-00003.json",
        "last-00003.safetensors",
        "last-00004.json",
        "last-00004.safetensors",
    ]


def test_the_newest_is_found_with_weights_optimizer_and_numbers(tmp_path):
    saved(tmp_path, [3.0, 1.0, 2.0])
    checkpoints = Checkpoints(tmp_path)
    found, notes = checkpoints.latest()
    assert found is not None
    assert notes == ()
    assert found.state.epoch == 3
    assert found.weights["w"].unique().tolist() == [3.0]
    assert (list(found.optimizer), found.scalars) == (["0/exp_avg"], {"0/step": 3.0})
    assert checkpoints.best_weights(found.state)["w"].unique().tolist() == [2.0]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_newest_checkpoint_falls_back_and_is_named(tmp_path, suffix, how):
    saved(tmp_path, [3.0, 2.0, 1.0])
    path = tmp_path / f"last-00003.{suffix}"
    whole = path.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 60))
    assert len(places) >= 50
    for place in places:
        flipped = bytes([whole[place] ^ (1 << place % 8)])
        path.write_bytes(whole[:place] + (flipped + whole[place + 1 :] if how == "flipped" else b""))
        found, notes = Checkpoints(tmp_path).latest()
        assert found is not None
        assert found.state.epoch == 2
        assert found.weights["w"].unique().tolist() == [2.0]
        assert path.name in notes[0]
        assert "the one before" in notes[0] or "checkpoint before it" in notes[0]


def broken(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


@pytest.mark.parametrize("losses", [[2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0]])
@pytest.mark.parametrize("how", [broken, Path.unlink])
def test_damaged_best_weights_are_made_again_from_the_checkpoint_of_their_epoch(tmp_path, losses, how):
    saved(tmp_path, losses)
    path = max(tmp_path.glob("best-*"))
    whole = path.read_bytes()
    how(path)
    checkpoints = Checkpoints(tmp_path)
    found, notes = checkpoints.latest()
    assert found.state.epoch == len(losses)
    assert found.state.best.validation_loss == min(losses)
    assert path.read_bytes() == whole
    assert "made again from that epoch's checkpoint" in notes[0]
    assert checkpoints.best_weights(found.state)["w"].unique().tolist() == [found.state.best.epoch]
    assert Checkpoints(tmp_path).latest()[1] == ()


@pytest.mark.parametrize(
    ("losses", "left"), [([1.0, 2.0, 3.0], 2), ([1.0, 3.0, 2.0], 3), ([1.0, math.inf, 9.0], 3)]
)
def test_where_the_best_weights_are_lost_the_best_that_are_left_take_their_place(tmp_path, losses, left):
    saved(tmp_path, losses)
    broken(tmp_path / "best-00001.safetensors")
    checkpoints = Checkpoints(tmp_path)
    found, notes = checkpoints.latest()
    assert found.state.epoch == 3
    assert (found.state.best.epoch, found.state.best.validation_loss) == (left, losses[left - 1])
    assert checkpoints.best_weights(found.state)["w"].unique().tolist() == [left]
    assert "weights of epoch 1 (validation loss 1) are lost" in notes[0]
    again, said = Checkpoints(tmp_path).latest()
    assert (again.state, said) == (found.state, ()), "it is written down"


def test_the_note_on_lost_weights_has_the_figure_that_is_watched(tmp_path):
    figures = {"monitor": "accuracy", "monitored": 0.75}
    assert _watched(replace(row(1, 2.0), **figures)) == "accuracy 0.75"
    assert _watched(row(1, 2.0)) == "validation loss 2"


def test_lost_choices_are_those_of_the_newest_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.keep_choice("arithmetic", {"name": "plain"})
    state = FitState().after_epoch(row(1, 1.0), steps=3)
    checkpoints.save(state, {"w": torch.ones(2)}, {}, {})
    checkpoints.keep_choice("later", {"has": "had no part in the checkpoint"})
    RunFolder(tmp_path).remove(tmp_path / "checkpoints" / "choices.json")
    again = Checkpoints(tmp_path / "checkpoints")
    assert again.choice("arithmetic") == {"name": "plain"}
    assert again.choice("later") is None


def test_damaged_choices_are_not_read(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.keep_choice("arithmetic", {"name": "plain"})
    path = tmp_path / "checkpoints" / "choices.json"
    path.write_text(path.read_text().replace("plain", "faster"))
    with pytest.raises(RunError, match=r"choices\.json is damaged \("):
        checkpoints.choice("arithmetic")


def test_best_weights_that_were_damaged_meanwhile_are_refused(tmp_path):
    saved(tmp_path, [1.0, 2.0])
    checkpoints = Checkpoints(tmp_path)
    found, _ = checkpoints.latest()
    assert found is not None
    path = tmp_path / "best-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(
        RunError, match=r"best-00001\.safetensors is damaged .*\nhint: give the same command again"
    ):
        checkpoints.best_weights(found.state)


def test_what_is_newer_than_the_checkpoint_gone_back_to_is_removed(tmp_path):
    saved(tmp_path, [3.0, 2.0, 1.0])
    (tmp_path / ".last-00004.safetensors.abc").write_bytes(b"a killed write")
    Checkpoints(tmp_path).forget_after(after([3.0, 2.0]))
    assert not list(tmp_path.glob("*00003.json"))
    assert not list(tmp_path.glob(".last*"))
    assert len(list(tmp_path.glob("last-00002*"))) == 2


# -- inside an epoch --------------------------------------------------------------------------------------


def part_saved(folder: Path, state: FitState, steps: int) -> None:
    """A checkpoint after so many steps of the epoch after `state`."""
    inside = replace(state, part=Part(steps, 8 * steps, 1.5, 3.0, 0.1, 2.0, 9.0))
    checkpoints = Checkpoints(folder)
    checkpoints.latest()  # as a run that goes on: it knows the best weights
    checkpoints.save(inside, {"w": torch.full((5, 7), state.epoch + steps / 1000)}, {}, {})


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("last-*.json"))


def test_inside_an_epoch_the_newest_two_and_the_end_before_them_are_kept(tmp_path):
    saved(tmp_path, [3.0, 2.0, 1.0])
    kept = []
    for steps in (5, 60, 700):
        part_saved(tmp_path, after([3.0, 2.0, 1.0]), steps)
        kept.append(names(tmp_path))
    assert kept[0] == ["last-00002", "last-00003", "last-00003.0000005"]
    assert kept[1] == ["last-00003", "last-00003.0000005", "last-00003.0000060"]
    assert kept[2] == ["last-00003", "last-00003.0000060", "last-00003.0000700"]
    found, _ = Checkpoints(tmp_path).latest()
    assert found.state.part.steps == 700
    assert found.state.elapsed == 9.0
    assert Checkpoints(tmp_path).latest()[0].weights["w"].unique().tolist() == pytest.approx([3.7])
    best = Checkpoints(tmp_path)
    best.latest()
    assert best.best_weights(found.state)["w"].unique().tolist() == [3.0], "those of the end of epoch 3"
    state = after([3.0, 2.0, 1.0, 0.5])
    best.save(state, {"w": torch.zeros(2)}, {}, {})
    assert names(tmp_path) == ["last-00003", "last-00004"]


def test_a_damaged_checkpoint_inside_an_epoch_falls_back_to_the_one_before(tmp_path):
    saved(tmp_path, [3.0, 1.0])
    for steps in (5, 60):
        part_saved(tmp_path, after([3.0, 1.0]), steps)
    (tmp_path / "last-00002.0000060.safetensors").write_bytes(b"torn")
    found, notes = Checkpoints(tmp_path).latest()
    assert found.state.part.steps == 5
    assert "last-00002.0000060.safetensors is damaged" in notes[0]
    Checkpoints(tmp_path).forget_after(found.state)
    assert names(tmp_path) == ["last-00002", "last-00002.0000005"]
    broken(tmp_path / "last-00002.0000005.json")
    found, notes = Checkpoints(tmp_path).latest()
    assert (found.state.epoch, found.state.part) == (2, None)


def test_best_weights_are_never_made_again_from_inside_an_epoch(tmp_path):
    saved(tmp_path, [3.0, 1.0])
    part_saved(tmp_path, after([3.0, 1.0]), 5)
    broken(tmp_path / "best-00002.safetensors")
    found, notes = Checkpoints(tmp_path).latest()
    assert found.state.part.steps == 5
    assert "made again from that epoch's checkpoint" in notes[0]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.latest()
    assert checkpoints.best_weights(found.state)["w"].unique().tolist() == [2.0]
    for path in (tmp_path / "best-00002.safetensors", *tmp_path.glob("last-0000?.json")):
        broken(path)
    found, notes = Checkpoints(tmp_path).latest()
    assert found is None
    assert "starts again from the beginning" in notes[-1]


def test_an_older_checkpoint_that_was_damaged_meanwhile_stops_nothing(tmp_path):
    saved(tmp_path, [3.0, 1.0])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.latest()
    broken(tmp_path / "last-00002.json")
    checkpoints.save(after([3.0, 1.0, 2.0]), {"w": torch.zeros(2)}, {}, {})
    assert Checkpoints(tmp_path).latest()[0].state.epoch == 3


def test_a_disk_without_room_is_refused_before_training(tmp_path):
    with pytest.raises(
        RunError, match=r"needs .* MB for its checkpoints and has .* MB in .*\nhint: .*--out another"
    ):
        Checkpoints(tmp_path / "checkpoints").require_space(10**17, 10**17)
