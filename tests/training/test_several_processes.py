"""Trainings on 1, 2 and 4 processes over gloo: the same weights, the same images, the same answers.

One process imports torch once and forks the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, os, sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

torch.set_num_threads(1)  # a process with threads cannot fork

from torch import nn
from torch.distributed import FileStore

from saccade.bundle import hash_tensors
from saccade.errors import Interrupted
from saccade.methods import plan_training
from saccade.models.network import Classifier
from saccade.processes import Place
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import CLASSES, TinyBackbone, TinyData, timeless
from saccade.training import Callback, fit, predict_logits
from saccade.training.callbacks import Callbacks
from saccade.training.job import Watch
from saccade.training.learner import begin_phase
from saccade.training.loop import training_job
from saccade.training.serving import serve
from saccade.training.sharing import shared
from saccade.training.state import Checkpoints
from saccade.training.stop import StopRequest
from saccade.training.team import Over, Team


class Shareable(TinyData):
    shareable = True

    def epoch(self, epoch, *, start_batch=0, rows=None):
        for number, batch in enumerate(TinyData(self.images, self.batch_size, self.seed).epoch(epoch)):
            if number >= start_batch:
                own = range(len(batch.paths)) if rows is None else rows(len(batch.paths))
                yield batch._replace(images=batch.images[list(own)])


@dataclass
class Validation:
    number: int
    count: int
    data: TinyData

    @property
    def indices(self):
        size, images = self.data.batch_size, self.data.images
        starts = range(self.number * size, images, self.count * size)
        return [i for start in starts for i in range(start, min(start + size, images))]

    def __iter__(self):
        return iter(list(self.data.validation())[self.number :: self.count])


class Dropping(TinyBackbone):
    "With a path that is dropped for some images."

    def forward(self, images):
        found = self.first(images)
        if self.training:
            found = found * found.new_empty((len(found), 1, 1, 1)).bernoulli_(0.8)
        return self.second(found).mean(dim=(2, 3))


class StopAfter(Callback):
    def __init__(self, stop, epoch):
        self.stop, self.epoch = stop, epoch

    def on_epoch_end(self, view, row):
        if row.epoch == self.epoch:
            self.stop.set(15)


def job_of(folder, team=None, stop_after=0):
    recipe = Recipe().replaced(
        seed=3, train__epochs=4, train__batch_size=8, train__accumulate=2,
        train__lr=0.1, train__optimizer="sgd",  # adam makes steps of noise where the gradient is 0
        model__pretrained=False, train__ema_decay=0.9, train__gradient_clip=1.0, train__early_stopping=0,
    )
    data, plan = Shareable(57, 16), plan_training(recipe)  # the last batch: 9 images, 4 and 5 at once
    plan = replace(plan, mixing=replace(plan.mixing, mix_up=0.3, cut_mix=0.5, until=0.7))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(Dropping(), nn.Sequential(nn.Dropout(0.2), nn.Linear(6, CLASSES)))
    judged = TinyData(101, 8, seed=7)
    training = replace(
        data.as_training_data(),
        validation=judged.validation,
        validation_images=101,
        validation_share=lambda number, count: Validation(number, count, judged),
    )
    stop = StopRequest()
    watch = Watch(Callbacks([StopAfter(stop, stop_after)] if stop_after else []), stop)
    runtime, run = Runtime.create("cpu"), RunFolder(folder)
    job = training_job(network, plan, training, runtime=runtime, run=run, watch=watch)
    return replace(job, team=(lambda: team) if team else None)


def together(count, folder, work):
    "`work(team)` in this process, while helpers serve; returns what it gave and the helpers' exit codes."
    store, children = str(folder / f"store-{count}"), []
    for number in range(1, count):
        child = os.fork()
        if not child:
            os._exit(helper(Place(number, count, number), store, folder))
        children.append(child)
    team = joined(Place(0, count), store)
    try:
        result = work(team)
    except Interrupted:
        result = None
    team.tell({"do": "end", "code": 7})
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    team.leave()
    return result, codes


def joined(place, store):
    team = Team(place)
    team.join(backend="gloo", store=lambda: FileStore(store, place.count))
    return team


def helper(place, store, folder):
    try:
        team = joined(place, store)
        job = job_of(folder)
        try:
            serve(job, team)
        except Over as over:
            (folder / f"helper-{place.number}").write_text(hash_tensors(job.classifier.state_dict()))
            return over.code
    except BaseException:
        import traceback
        traceback.print_exc()
    return 1


def trained(folder, count, stop_after=0):
    folder.mkdir(exist_ok=True)
    seen = {}

    def work(team):
        job = job_of(folder, team, stop_after)
        try:
            result = fit(job)
        finally:
            seen["raw"] = raw_weights(folder)
        return result, job

    result, codes = together(count, folder, work) if count > 1 else (work(None), [])
    helpers = [(folder / f"helper-{number}").read_text() for number in range(1, count)]
    return result, codes, helpers, seen["raw"]


def raw_weights(folder):
    "Hash of the weights, unaveraged, of the newest checkpoint."
    found, _ = Checkpoints(folder / "checkpoints").latest()
    return hash_tensors({**found.weights, **found.raw})


root = Path(sys.argv[1])
told = {}
for name, first, then in (("1", 1, 0), ("2", 2, 0), ("4", 4, 0), ("2 then 1", 2, 1), ("2 then 4", 2, 4)):
    result, codes, helpers, raw = trained(root / name, first, stop_after=2 if then else 0)
    equal = all(mark == raw for mark in helpers)
    if then:
        assert result is None, "it was stopped"
        result, codes, helpers, _ = trained(root / name, then)
    found, job = result
    told[name] = {
        "codes": codes,
        "helpers have the weights": equal,
        "history": [timeless(row) for row in found.history],
        "weights": {key: value.flatten().tolist() for key, value in job.classifier.state_dict().items()},
    }

def answers(team):
    job = job_of(root / "evaluation", team)
    job.runtime.place(job.classifier)
    with torch.no_grad():
        for parameter in job.classifier.parameters():
            parameter.mul_(1.5)  # weights that helpers do not begin with
    learner = begin_phase(job, job.plan.phases[0])
    with shared(job, learner):
        found = learner.share.logits(job, learner)
    return found, predict_logits(job.classifier, job.data.validation(), job.runtime)[:2]


(root / "evaluation").mkdir()
(found, expected), codes = together(2, root / "evaluation", answers)
told["evaluation"] = {
    "codes": codes,
    "images": len(found[0]),
    "equal": found[0].tobytes() == expected[0].tobytes() and found[1].tobytes() == expected[1].tobytes(),
}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("several"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2", "4", "2 then 1", "2 then 4"])
def test_weights_and_figures_are_those_of_one_process(told: dict[str, Any], name: str) -> None:
    """With BatchNorm, dropout, drop path, MixUp, CutMix, clipping, summed batches, a last batch of nine."""
    for key, values in told["1"]["weights"].items():
        assert told[name]["weights"][key] == pytest.approx(values, rel=1e-4, abs=1e-5), key
    for row, expected in zip(told[name]["history"], told["1"]["history"], strict=True):
        assert row[:3] == expected[:3]
        assert row[3:] == pytest.approx(expected[3:], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_helpers_have_the_same_weights_and_end_with_process_0(told: dict[str, Any]) -> None:
    assert all(told[name]["helpers have the weights"] for name in ("2", "4", "2 then 1", "2 then 4"))
    assert [told[name]["codes"] for name in ("1", "2", "4", "2 then 4")] == [[], [7], [7] * 3, [7] * 3]


@pytest.mark.slow
def test_two_processes_answer_101_images_as_one_does_bit_for_bit(told: dict[str, Any]) -> None:
    assert told["evaluation"] == {"codes": [7], "images": 101, "equal": True}
