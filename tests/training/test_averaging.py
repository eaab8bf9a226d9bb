"""The moving average of the weights: its definition, that it is what counts, that raw weights train on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.bundle import tensors_from_bytes
from saccade.errors import Interrupted, RecipeError
from saccade.methods import phases_of, trial
from saccade.methods.phases import FINETUNE_EMA_DECAY
from saccade.methods.probe import HeadFigures, Probe
from saccade.models import Classifier
from saccade.models.finetune import freeze_backbone, learning_tensors
from saccade.recipe import Recipe
from saccade.terminal import silent
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training import Callback, StopRequest
from saccade.training.averaging import WeightAverage, warmed_up
from saccade.training.job import TrainingJob
from saccade.training.losses import log_loss_and_accuracy
from saccade.transforms.batches import Batch

Weights = dict[str, Tensor]
DECAY = 0.6


class Traced(TinyData):
    """Keeps the weights of a network after every step that was made, and before the first."""

    network: Classifier
    trace: list[Weights]

    @classmethod
    def of(cls, network: Classifier) -> Traced:
        data = cls()
        object.__setattr__(data, "network", network)
        object.__setattr__(data, "trace", [copied(network)])
        return data

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for batch in super().epoch(epoch):
            yield batch
            self.trace.append(copied(self.network))

    def validation(self) -> Iterator[Batch]:
        return TinyData(self.images, self.batch_size, seed=7).epoch(0)


class Kept(Callback):
    """Copies of the weights at the end of each epoch."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_epoch_end(self, state: Any, row: Any) -> None:
        self.weights.append(state.weights())


def copied(network: Classifier) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def averaged(trace: list[Weights], decay: float, *, warm_up: bool = True) -> Weights:
    """The definition, number by number in float64, over all states of one phase; counters as they are."""
    average = {name: tensor.double() for name, tensor in trace[0].items()}
    for step, weights in enumerate(trace[1:]):
        share = min(decay, (1 + step) / (10 + step)) if warm_up else decay
        for name in average:
            average[name] = share * average[name] + (1 - share) * weights[name].double()
    counters = {name: tensor.double() for name, tensor in trace[-1].items() if not tensor.is_floating_point()}
    return average | counters


def assert_close(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=1e-6, rtol=1e-5, msg=name)


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_lies_between_0_and_1(decay):
    with pytest.raises(RecipeError, match=r"ema_decay"):
        Recipe().replaced(train__ema_decay=decay)


def test_the_decay_warms_up():
    assert [warmed_up(0.9, step) for step in (0, 2, 79, 80, 81, 1000)] == [0.1, 0.25, 80 / 89, 0.9, 0.9, 0.9]


def test_every_epoch_is_judged_by_the_average_while_the_raw_weights_go_on_as_without_it(fit_tiny, recipe):
    traces, results, kept = {}, {}, Kept()
    for decay in (0.0, DECAY):
        network = tiny_classifier()
        data = Traced.of(network)
        chosen = recipe(train__ema_decay=decay)
        callbacks = (kept,) if decay else ()
        _, results[decay] = fit_tiny(
            str(decay), recipe=chosen, data=data, classifier=network, pretrained=False, callbacks=callbacks
        )
        traces[decay] = data.trace
    assert len(traces[0.0]) == 10
    assert all(map(same, traces[0.0], traces[DECAY])), "raw weights are the same bits in every step"
    for epoch, weights in enumerate(kept.weights, start=1):
        assert_close(weights, averaged(traces[DECAY][: 1 + 3 * epoch], DECAY))
        judge = tiny_classifier()
        judge.load_state_dict(weights)
        loss, accuracy = judged(judge)
        row = results[DECAY].history[epoch - 1]
        assert (row.validation_loss, row.validation_accuracy) == (pytest.approx(loss, rel=1e-6), accuracy)
    assert "running_mean" in " ".join(kept.weights[0])
    assert results[DECAY].history[0].train_loss == results[0.0].history[0].train_loss


def judged(network: Classifier) -> tuple[float, float]:
    images, labels, _ = next(iter(TinyData(24, 24, seed=7).epoch(0)))
    with torch.no_grad():
        return log_loss_and_accuracy(network.eval()(images).numpy(), labels.numpy())


def test_the_best_average_is_what_one_gets(fit_tiny, recipe, tmp_path):
    kept = Kept()
    chosen = recipe(train__ema_decay=DECAY, train__epochs=5, train__lr=0.5, train__schedule="constant")
    network, result = fit_tiny(recipe=chosen, pretrained=False, callbacks=(kept,))
    assert same(copied(network), kept.weights[result.best.epoch - 1])
    best = tmp_path / f"run/checkpoints/best-{result.best.epoch:05d}.safetensors"
    assert same(tensors_from_bytes(best.read_bytes(), where="best"), copied(network))


def test_frozen_parts_have_no_average_and_each_phase_begins_afresh(fit_tiny, recipe):
    network, kept = tiny_classifier(), Kept()
    data, before = Traced.of(network), copied(network)
    chosen = recipe(train__ema_decay=DECAY, train__unfreeze="1")
    _, result = fit_tiny(recipe=chosen, data=data, classifier=network, callbacks=(kept,))
    assert all(evidence.kept and evidence.parameters for evidence in result.frozen)
    for name, tensor in before.items():
        if name.startswith("backbone.first"):
            assert all(torch.equal(weights[name], tensor) for weights in kept.weights), name
        if name.startswith("backbone"):
            assert all(torch.equal(weights[name], tensor) for weights in kept.weights[:2]), name
    start = kept.weights[min((0, 1), key=lambda epoch: result.history[epoch].validation_loss)]
    assert_close(kept.weights[2], averaged([start, *data.trace[7:10]], DECAY))


def test_what_learns_is_what_an_average_is_taken_of():
    network = tiny_classifier()
    learns = set(learning_tensors(network))
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    assert learns == network.state_dict().keys() - counters
    assert len(counters) == 2
    assert learns - set(learning_tensors(network, keep_statistics=True)) == {
        f"backbone.{block}.1.running_{what}" for block in ("first", "second") for what in ("mean", "var")
    }
    freeze_backbone(network)
    assert set(learning_tensors(network)) == {"head.1.weight", "head.1.bias"}


def test_raw_weights_come_back_bit_for_bit_also_after_an_error():
    network = tiny_classifier()
    average = WeightAverage.of(network, decay=0.9, keep_statistics=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.nan if parameter.ndim == 1 else 1 / 3
    raw = {name: tensor.numpy().tobytes() for name, tensor in copied(network).items()}
    with contextlib.suppress(KeyError), average.in_place():
        assert not torch.isnan(network.head[1].bias).any()
        raise KeyError
    assert {name: tensor.numpy().tobytes() for name, tensor in copied(network).items()} == raw


def test_the_seldom_used_memory_order_of_weights_is_kept():
    network = tiny_classifier().to(memory_format=torch.channels_last)
    average = WeightAverage.of(network, decay=0.9, keep_statistics=False)
    assert all(average.other[name].stride() == tensor.stride() for name, tensor in average.live.items())


class StopAt(Callback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.left = stop, step

    def on_step(self, progress: Any) -> None:
        self.left -= 1
        if not self.left:
            self.stop.set(15)


@pytest.mark.parametrize("step", [2, 4, 8, 11])
def test_stopped_anywhere_it_ends_bit_identical(fit_tiny, recipe, tmp_path, step):
    chosen = recipe(train__ema_decay=0.9, train__unfreeze="1")
    _, whole = fit_tiny("whole", recipe=chosen)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny(recipe=chosen, stop=stop, callbacks=(StopAt(stop, step),))
    _, continued = fit_tiny(recipe=chosen)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [*map(timeless, continued.history)] == [*map(timeless, whole.history)]
    last = [tmp_path / name / "checkpoints/last-00005.safetensors" for name in ("whole", "run")]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_a_checkpoint_holds_raw_weights_beside_the_average_where_there_is_one(fit_tiny, recipe, tmp_path):
    names = {}
    for decay in (0.0, DECAY):
        fit_tiny(str(decay), recipe=recipe(train__ema_decay=decay), pretrained=False)
        file = tmp_path / str(decay) / "checkpoints/last-00003.safetensors"
        names[decay] = set(tensors_from_bytes(file.read_bytes(), where="last"))
    assert names[DECAY] - names[0.0] == {f"raw/{name}" for name in learning_tensors(tiny_classifier())}
    assert names[0.0] < names[DECAY]


class Solved:
    """A probe whose head is a constant."""

    head_steps = 1

    def fit_head(self, job: TrainingJob, step: int) -> HeadFigures:
        with torch.no_grad():
            job.classifier.head[1].bias.fill_(0.5)
        return HeadFigures(1.0, 0.5, 1.0, 0.5, note="")

    def keep_held_out(self, job, row) -> None:
        pass

    def find_series(self, job, row) -> str:
        return ""


def test_a_solved_head_has_no_average(fit_tiny, recipe, tmp_path):
    hashes = set()
    for decay in (0.0, DECAY):
        chosen = recipe(train__ema_decay=decay, train__method="head")
        hashes.add(fit_tiny(str(decay), recipe=chosen, probe=Solved())[1].weights_sha256)
        state = json.loads((tmp_path / str(decay) / "checkpoints/last-00001.json").read_text())
        assert state["body"]["state"]["finished"] == "all epochs done"
    assert len(hashes) == 1


def test_a_trial_of_fine_tuning_is_judged_by_the_average(job_tiny, recipe):
    network = tiny_classifier()
    data = Traced.of(network)
    chosen = recipe(train__ema_decay=DECAY, train__method="full", train__epochs=2)
    job, probe = tried(job_tiny, data, recipe=chosen, classifier=network)
    trial._finetune(job, probe, job.plan.phases[1])
    assert len(data.trace) == 7
    assert_close(copied(network), averaged(data.trace, DECAY, warm_up=False))
    assert not same(copied(network), data.trace[-1])


def test_a_trial_moves_the_last_layers_only_and_writes_nothing_down(job_tiny, recipe):
    network = tiny_classifier()
    before = copied(network)
    chosen = recipe(train__ema_decay=DECAY, train__method="auto", train__epochs=2)
    job, probe = tried(job_tiny, TinyData(), recipe=chosen, classifier=network)
    tail = job.plan.last_layers
    assert tail is not None
    assert (tail.epochs, tail.kept_views) == (2, 4)
    trial._finetune(job, probe, replace(tail, unfreeze="1", kept_views=1))
    after = copied(network)
    moved = {name.rsplit(".", 2)[0] for name in after if not after[name].equal(before[name])}
    assert moved == {"backbone.second", "head"}
    assert job.checkpoints.choice("views of finetune") is None
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 3), "it takes images again"


def test_what_goes_on_from_a_fitted_head_is_averaged_unless_the_recipe_says_otherwise(recipe):
    def decays(pretrained: bool, **chosen: Any) -> list[tuple[float, bool]]:
        _, phases = phases_of(recipe(**chosen, model__pretrained=pretrained))
        return [(phase.ema_decay, phase.ema_warm_up) for phase in phases]

    assert recipe().train.ema_decay == "auto"
    for method in ("full", "auto"):
        assert decays(True, train__method=method) == [(0, True), (FINETUNE_EMA_DECAY, False)]
        assert decays(True, train__method=method, train__ema_decay=0.0) == [(0, True), (0, False)]
        assert decays(True, train__method=method, train__ema_decay=0.5) == [(0, True), (0.5, False)]
    assert decays(True, train__method="finetune") == [(0, True), (0, True)]
    assert decays(True, train__method="finetune", train__ema_decay=0.5) == [(0.5, True)] * 2
    assert decays(False) == [(0, True)]
    assert decays(False, train__ema_decay=0.5) == [(0.5, True)]


def tried(job_tiny: Callable[..., Any], data: TinyData, **options: Any) -> tuple[TrainingJob, Probe]:
    nothing: Any = None
    probe = Probe(
        train=nothing,
        validation=nothing,
        classes=(),
        engines=nothing,
        mirrored=False,
        batches=nothing,
        evaluation=nothing,
        progress=lambda *what: contextlib.nullcontext(silent),
    )
    return job_tiny(data=data, validation_images=data.images, **options), probe
