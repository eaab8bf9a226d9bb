"""Promise 9: killed with SIGKILL in a step, in a write or anywhere, and started again: bit-identical.

One process imports torch once and forks a process for each attempt, which is then really killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path

import torch

torch.set_num_threads(1)  # a process with threads cannot fork

from dataclasses import replace
from saccade.methods import plan_training
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.training import Callback, fit
from saccade.training.callbacks import Callbacks
from saccade.training.job import Watch
from saccade.training.loop import training_job
from saccade.training import state as state_module
from saccade.testing.tiny import TinyData, tiny_classifier, timeless


class KillAtStep(Callback):
    def __init__(self, step):
        self.left = step

    def on_step(self, progress):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_inside_write(count):
    real = os.replace
    left = [count]

    def replacing(source, target):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replacing


def train(folder, callbacks=()):
    recipe = Recipe().replaced(
        seed=3, train__epochs=3, train__head_epochs=2, train__batch_size=8, train__lr=3.0,
        train__finetune_lr=0.3,
        train__schedule="plateau", train__plateau_patience=0, train__unfreeze="1", train__ema_decay=ema_decay,
        train__checkpoint_every=every,
    )
    data = TinyData()
    plan = plan_training(recipe)
    plan = replace(plan, mixing=replace(plan.mixing, mix_up=0.2, until=0.7))
    job = training_job(
        tiny_classifier(), plan, data.as_training_data(),
        runtime=Runtime.create("cpu"), run=RunFolder(folder), watch=Watch(Callbacks(callbacks)),
    )
    return fit(job)


def attempt(folder, step=0, write=0, share=0.0):
    "One process; returns how it ended: 0 well, -9 killed. `share` is of the time a whole training takes."
    child = os.fork()
    if child == 0:
        try:
            if write:
                kill_inside_write(write)
            result = train(folder, (KillAtStep(step),) if step else ())
            last = sorted((folder / "checkpoints").glob("last-*.safetensors"))[-1]
            told = {
                "weights": result.weights_sha256,
                "history": [timeless(row) for row in result.history],
                "lines": [timeless(row) for row in RunFolder(folder).read_history()],
                "optimizer and weights": state_module._sha256(last.read_bytes()),
                "frozen": [[e.before, e.after] for e in result.frozen],
                "best": result.best.epoch,
                "notes": result.notes,
            }
            (folder / "told.json").write_text(json.dumps(told))
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    if share:
        time.sleep(share * whole_seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


root, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
ema_decay, every = float(sys.argv[3]), float(sys.argv[4])
whole_seconds = 0.0
endings = []
for number, kills in enumerate(plan):
    folder = root / str(number)
    folder.mkdir()
    began = time.monotonic()
    endings.append([attempt(folder, **kill) for kill in kills] + [attempt(folder)])
    whole_seconds = whole_seconds or time.monotonic() - began
print(json.dumps(endings))
"""


def run_plan(
    folder: Path, plan: list[list[dict[str, float]]], *, ema_decay: float = 0.0, every: float = 0.0
) -> tuple[list[list[int]], list[dict[str, object]]]:
    """Endings of every attempt, and what the last attempt of each run told.

    `every`: seconds between checkpoints inside an epoch.
    """
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(plan), str(ema_decay), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    endings = json.loads(done.stdout)
    return endings, [json.loads((folder / str(i) / "told.json").read_text()) for i in range(len(plan))]


def test_killed_in_mid_epoch_and_mid_write_it_ends_bit_identical(tmp_path):
    plan: list[list[dict[str, float]]] = [
        [],
        [{"step": 2}, {"step": 5}, {"step": 11}],  # before the first checkpoint, in epochs 2 and 5
        [{"step": 8}, {"step": 1}, {"step": 4}],  # head, fine-tuning, fine-tuning
        [{"write": 1}, {"write": 2}, {"write": 3}, {"write": 13}],  # best weights, checkpoint, state, epoch 4
    ]
    endings, told = run_plan(tmp_path, plan)
    assert [len(kills) for kills in endings] == [1, 4, 4, 5]
    assert all(kills == [-9] * (len(kills) - 1) + [0] for kills in endings), endings
    assert [row[1] for row in told[0]["lines"]] == [1, 2, 3, 4, 5]
    assert len({row[2] for row in told[0]["lines"]}) > 2, "the plateau schedule must have dropped a rate"
    for number, other in enumerate(told[1:], start=1):
        assert other == told[0], plan[number]


@pytest.mark.slow
def test_killed_with_averaged_weights_it_ends_bit_identical(tmp_path):
    plan: list[list[dict[str, float]]] = [
        [],
        [{"step": 5}, {"step": 8}, {"step": 4}],  # epoch 2 of the head, epoch 3 of fine-tuning
        [{"write": 2}, {"write": 3}, {"write": 13}],
    ]
    endings, told = run_plan(tmp_path, plan, ema_decay=0.9)
    assert endings == [[0], [-9, -9, -9, 0], [-9, -9, -9, 0]]
    assert [other == told[0] for other in told] == [True] * 3


def test_killed_with_a_checkpoint_after_each_step_it_ends_bit_identical(tmp_path):
    plan: list[list[dict[str, float]]] = [
        [],
        [{"step": 2}, {"step": 3}, {"step": 1}, {"step": 5}, {"step": 4}],
        [{"write": 2}, {"write": 3}, {"write": 4}, {"write": 7}, {"write": 12}, {"write": 1}],
    ]
    endings, told = run_plan(tmp_path, plan, ema_decay=0.9, every=1e-9)
    assert endings == [[0], [-9] * 5 + [0], [-9] * 6 + [0]]
    assert [other == told[0] for other in told] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("every", [0.0, 1e-9])
def test_killed_at_fifty_random_moments_it_ends_bit_identical(tmp_path, every):
    plan: list[list[dict[str, float]]] = [[]]
    plan += [[{"share": 0.02 + 0.8 * ((7 * i + 3 * j) % 25) / 25} for j in range(2)] for i in range(25)]
    endings, told = run_plan(tmp_path, plan, every=every)
    killed = sum(ending == -9 for kills in endings for ending in kills)
    assert killed >= 20, "the moments must hit the training"
    assert all(other == told[0] for other in told[1:])
