"""The loop on a tiny network: promises 4 and 5, early stopping, faults, time, and that it learns."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from saccade.bundle import weights_sha256
from saccade.errors import Interrupted, PromiseError, RecipeError, TrainingError
from saccade.methods import phases_of, plan_training
from saccade.models import Classifier
from saccade.plan import OptimizerPlan
from saccade.recipe import Recipe
from saccade.records import EpochRow
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyBackbone, TinyData, tiny_classifier
from saccade.training import Callback, StopRequest, fit
from saccade.training.loop import training_job
from saccade.training.loss_watch import LossWatch
from saccade.training.optimizers import build_optimizer


class Recorder(Callback):
    """Keeps the weights after each epoch, and everything it was told."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.rows, self.progress, self.finished, self.closed = [], [], 0, 0

    def on_step(self, progress) -> None:
        self.progress.append(progress)

    def on_epoch_end(self, state, row) -> None:
        self.weights.append(state.weights())
        self.rows.append(row)

    def on_finish(self, state) -> None:
        self.finished += 1

    def on_close(self) -> None:
        self.closed += 1


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# -- phases and promises -----------------------------------------------------------------------------


def test_head_then_finetune_then_the_best_weights(fit_tiny):
    recorder = Recorder()
    network, result = fit_tiny(callbacks=(recorder,))
    assert [row.phase for row in result.history] == ["head"] * 2 + ["finetune"] * 3
    assert [row.epoch for row in result.history] == [1, 2, 3, 4, 5]
    losses = [row.validation_loss for row in result.history]
    assert result.best.epoch == 1 + losses.index(min(losses))
    assert same(network.state_dict(), recorder.weights[result.best.epoch - 1])
    assert result.weights_sha256 == weights_sha256(network)
    assert (recorder.finished, recorder.closed) == (1, 1)


def test_promise_4_the_frozen_base_and_its_batch_norm_statistics_do_not_move(fit_tiny, recipe):
    before = tiny_classifier().backbone.state_dict()
    recorder = Recorder()
    _, result = fit_tiny(recipe=recipe(train__unfreeze="1"), callbacks=(recorder,))
    after_head, after_all = recorder.weights[1], recorder.weights[-1]
    assert any("running_mean" in name for name in before)
    for name, tensor in before.items():
        assert torch.equal(after_head[f"backbone.{name}"], tensor), name
        if name.startswith("first"):
            assert torch.equal(after_all[f"backbone.{name}"], tensor), f"{name} stays frozen in fine-tuning"
    assert not torch.equal(after_all["backbone.second.0.weight"], before["second.0.weight"])
    assert not torch.equal(after_head["head.1.weight"], tiny_classifier().head[1].weight)
    assert [evidence.phase for evidence in result.frozen] == ["head", "finetune"]
    assert all(evidence.kept and evidence.parameters for evidence in result.frozen)


class Drifting(TinyBackbone):
    """Changes one of its buffers with every look at an image, frozen or not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        if not torch.is_inference_mode_enabled():
            self.seen += 1
        return super().forward(images)


def test_promise_4_a_base_that_changes_itself_is_found(fit_tiny):
    torch.manual_seed(0)
    with pytest.raises(PromiseError, match=r"(?s)a frozen part changed during phase head .* use another"):
        fit_tiny(classifier=Classifier(Drifting(), nn.Linear(6, 3)))


def test_promise_5_fine_tuning_runs_at_a_hundredth_and_never_above_a_tenth(fit_tiny, recipe):
    _, result = fit_tiny()
    rates = {phase: [r.lr for r in result.history if r.phase == phase] for phase in ("head", "finetune")}
    assert max(rates["head"]) == pytest.approx(0.02)
    assert max(rates["finetune"]) == pytest.approx(0.0002)
    assert result.finetune_ratio == pytest.approx(0.01)


def test_promise_5_is_checked_again_where_phases_are_planned(recipe):
    good = recipe()
    raised = good.model_copy(update={"train": good.train.model_copy(update={"finetune_lr": 0.01})})
    with pytest.raises(PromiseError, match=r"at 0.01 is 0.5 times the learning rate of the head, 0.02"):
        phases_of(raised)


def test_from_scratch_there_is_one_phase_at_the_full_rate(fit_tiny, recipe):
    _, result = fit_tiny(recipe=recipe(), pretrained=False)
    assert {row.phase for row in result.history} == {"main"}
    assert len(result.history) == 3
    assert max(row.lr for row in result.history) == pytest.approx(0.02)
    assert result.finetune_ratio == 0


def test_without_head_epochs_fine_tuning_is_all(recipe):
    _, (phase,) = phases_of(recipe(train__head_epochs=0))
    assert (phase.name, phase.learning_rate) == ("finetune", pytest.approx(0.0002))


def test_what_cannot_be_unfrozen_is_refused_before_the_first_step(fit_tiny, recipe, tmp_path):
    with pytest.raises(RecipeError, match="there are 2 stages"):
        fit_tiny(recipe=recipe(train__unfreeze="9"))
    assert not list((tmp_path / "run").rglob("last-*"))


# -- learning ----------------------------------------------------------------------------------------


def test_it_learns(fit_tiny, recipe):
    _, result = fit_tiny(recipe=recipe(train__epochs=12, train__lr=0.05), data=TinyData(48), pretrained=False)
    assert result.best.validation_accuracy >= 0.9
    assert result.history[-1].train_loss < 0.6 * result.history[0].train_loss


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_every_optimizer_and_schedule_lowers_the_loss(fit_tiny, recipe, optimizer, schedule):
    chosen = recipe(
        train__optimizer=optimizer,
        train__schedule=schedule,
        train__epochs=5,
        train__lr=0.03,
        train__step_epochs=3,
    )
    _, result = fit_tiny(recipe=chosen, pretrained=False)
    assert result.best.validation_loss < result.history[0].validation_loss


def epochs_with_bad_ones(fit_tiny, recipe, **dotted) -> list[EpochRow]:
    """Eight epochs of a training in which some losses are no better than the best before them."""
    settings = {"train__epochs": 8, "train__lr": 1e-9, "train__early_stopping": 0, "train__warmup_epochs": 0}
    chosen = recipe(**{**settings, "train__plateau_patience": 0, "train__step_epochs": 3, **dotted})
    rows = fit_tiny(recipe=chosen, pretrained=False)[1].history
    losses = [row.validation_loss for row in rows[:-1]]
    assert losses != sorted(losses, reverse=True), "without a bad epoch nothing is tested"
    return rows


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1.0] * 8),
        ("cosine", [(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]),
        ("linear", [1 - epoch / 8 for epoch in range(8)]),
        ("step", [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_a_plateau_lowers_the_rate_of_no_other_schedule(fit_tiny, recipe, schedule, shares):
    rows = epochs_with_bad_ones(fit_tiny, recipe, train__schedule=schedule)
    assert [row.lr / 1e-9 for row in rows] == pytest.approx(shares, rel=1e-6)


def test_the_plateau_schedule_is_torchs_down_to_its_lowest_rate(fit_tiny, recipe):
    floor = 0.3e-9
    rows = epochs_with_bad_ones(fit_tiny, recipe, train__schedule="plateau", train__plateau_min_lr=floor)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-9)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=0, min_lr=floor, eps=0
    )
    for row in rows:
        assert row.lr == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        reference.step(row.validation_loss)
    assert rows[-1].lr == pytest.approx(floor)


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory) -> str:
    """Hash of the weights that the recipe gives without any of the choices below."""
    recipe = Recipe().replaced(train__epochs=2, train__batch_size=8, train__lr=0.02, model__pretrained=False)
    job = training_job(
        tiny_classifier(),
        plan_training(recipe),
        TinyData(20).as_training_data(),
        runtime=Runtime.create("cpu"),
        run=RunFolder(tmp_path_factory.mktemp("plain")),
    )
    return fit(job).weights_sha256


def test_the_training_loss_is_measured_as_the_validation_loss_is(fit_tiny, recipe):
    """Smoothing and class weights shape the gradient; the two curves must stay comparable."""
    data = TinyData(20)  # classes of 7, 7 and 6 images
    choices = {
        "plain": {},
        "smooth": {"train__label_smoothing": 0.5},
        "weighted": {"train__class_weights": True},
    }
    rows = []
    for name, dotted in choices.items():
        chosen = recipe(train__epochs=1, train__lr=1e-9, **dotted)
        rows += fit_tiny(name, recipe=chosen, data=data, pretrained=False)[1].history
    assert [row.train_loss for row in rows[1:]] == pytest.approx([rows[0].train_loss] * 2, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"mix_up": 0.4},
        {"cut_mix": 1.0},
        {"mix_up": 0.4, "cut_mix": 1.0},
        {"train__label_smoothing": 0.1},
        {"train__class_weights": True},
        {"train__gradient_clip": 0.1},
        {"precision": "bfloat16"},
        {"train__weight_decay": 0.5},
    ],
    ids=str,
)
def test_every_choice_changes_the_weights_and_is_reproducible(fit_tiny, recipe, plain_weights, options):
    dotted = {name: value for name, value in options.items() if "mix" not in name}
    mixing = {name: value for name, value in options.items() if "mix" in name}
    data = TinyData(20)  # classes of 7, 7 and 6 images
    results = [
        fit_tiny(name, recipe=recipe(train__epochs=2, **dotted), data=data, pretrained=False, **mixing)[1]
        for name in ("a", "b")
    ]
    assert results[0].weights_sha256 == results[1].weights_sha256 != plain_weights


def test_the_seed_decides_dropout(fit_tiny, recipe):
    hashes = {fit_tiny(f"run{seed}", recipe=recipe(seed=seed))[1].weights_sha256 for seed in (0, 1)}
    assert len(hashes) == 2


def test_the_callers_random_state_is_left_alone(fit_tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_tiny()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizers_step_as_torchs_plain_ones_do_on_weights_in_either_memory_order(name):
    settings = OptimizerPlan(name, momentum=0.8, weight_decay=0.1)
    reference = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, foreach=False),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1, foreach=False),
        "sgd": lambda p: torch.optim.SGD(
            p, lr=0.1, weight_decay=0.1, momentum=0.8, nesterov=True, foreach=False
        ),
    }[name]
    ours, plain = (without_norms(TinyBackbone()) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    ours.to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    weights = [p for p in plain.parameters() if p.ndim > 1]
    others = [{"params": [p for p in plain.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizers = build_optimizer(ours, 0.1, settings), reference([{"params": weights}, *others])
    for _ in range(3):
        for network, optimizer in zip((ours, plain), optimizers, strict=True):
            optimizer.zero_grad()
            network(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
            optimizer.step()
    for first, second in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_weight_decay_spares_norms_and_biases():
    network = tiny_classifier()
    optimizer = build_optimizer(network, 0.1, OptimizerPlan("sgd", weight_decay=0.5))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay[id(p)] for name, p in network.named_parameters()}
    assert {name for name, value in names.items() if value == 0.5} == {
        "backbone.first.0.weight",
        "backbone.second.0.weight",
        "head.1.weight",
    }
    assert set(names.values()) == {0.0, 0.5}


def test_train_accuracy_is_of_the_dominant_label_where_images_are_mixed(fit_tiny, recipe):
    chosen = recipe(train__epochs=12, train__lr=0.05)
    _, result = fit_tiny(recipe=chosen, data=TinyData(48), pretrained=False, mix_up=0.1)
    assert result.history[-1].train_accuracy > 0.6


# -- stopping by itself ------------------------------------------------------------------------------


def test_early_stopping_ends_a_phase_and_restores_its_best_weights(fit_tiny, recipe):
    recorder = Recorder()
    chosen = recipe(train__epochs=30, train__early_stopping=2, train__lr=0.5, train__schedule="constant")
    network, result = fit_tiny(recipe=chosen, pretrained=False, callbacks=(recorder,))
    assert result.stopped == "early stopping"
    assert len(result.history) == result.best.epoch + 2 < 30
    assert same(network.state_dict(), recorder.weights[result.best.epoch - 1])
    assert not same(network.state_dict(), recorder.weights[-1])
    assert any(f"early stopping after epoch {len(result.history)} of 30" in note for note in result.notes)


def test_early_stopping_can_be_switched_off(fit_tiny, recipe):
    chosen = recipe(train__epochs=8, train__early_stopping=0, train__lr=0.9, train__schedule="constant")
    _, result = fit_tiny(recipe=chosen, pretrained=False)
    assert len(result.history) == 8
    assert result.stopped == "all epochs done"


class SlowData(TinyData):
    """Three steps and 60 milliseconds an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple]:
        for batch in super().epoch(epoch):
            time.sleep(0.02)
            yield batch


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_deadline_is_kept_and_said(fit_tiny, recipe, seconds):
    fit_tiny("warm")  # first-time costs of torch are not this test's
    began = time.monotonic()
    deadline = began + seconds
    _, result = fit_tiny(recipe=recipe(train__epochs=500), data=SlowData(), deadline=deadline, started=began)
    assert time.monotonic() < deadline + 0.5
    assert result.stopped == "time limit"
    assert 1 <= len(result.history) < 40
    assert any("time limit after epoch" in note for note in result.notes)
    assert math.isfinite(result.best.validation_loss)


class LongEpoch(SlowData):
    """An epoch far longer than its validation."""

    def validation(self) -> Iterator[tuple]:
        return TinyData(8).validation()


def test_an_epoch_longer_than_the_time_limit_is_cut(fit_tiny):
    recorder = Recorder()
    data = LongEpoch(images=3000)  # 375 steps, at least 7.5 seconds
    fit_tiny("warm")
    began = time.monotonic()
    _, result = fit_tiny(data=data, deadline=began + 1.0, callbacks=(recorder,))
    assert time.monotonic() < began + 2.0
    assert len(result.history) == 1
    assert 1 <= len(recorder.progress) < 60
    assert result.stopped == "time limit"


def test_a_deadline_in_the_head_phase_says_that_fine_tuning_was_not_begun(fit_tiny, recipe):
    _, result = fit_tiny(recipe=recipe(train__head_epochs=500), data=SlowData(), deadline=time.monotonic())
    assert "finetune was not started" in result.notes[0]


# -- faults ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Spoilt(TinyData):
    """In epoch 3 one image is full of NaN."""

    def pixels(self, epoch: int) -> torch.Tensor:
        images = super().pixels(epoch)
        if epoch == 3:
            images[11] = torch.nan
        return images


def test_a_loss_that_is_not_finite_stops_within_a_step_and_names_the_file(fit_tiny, recipe, tmp_path):
    recorder = Recorder()
    with pytest.raises(
        TrainingError, match=r"(?s)in epoch 3 \(phase head\).*class2/011\.png.*lower train\.lr"
    ) as caught:
        fit_tiny(recipe=recipe(train__head_epochs=4), data=Spoilt(), callbacks=(recorder,))
    assert "The weights of epoch 2 are kept" in str(caught.value)
    assert len(recorder.rows) == 2
    spoilt = next(i for i, (_, _, paths) in enumerate(Spoilt().epoch(3)) if "class2/011.png" in paths)
    assert sum(p.epoch == 3 for p in recorder.progress) == spoilt, "no step after the bad batch"
    assert (
        sorted(path.name for path in (tmp_path / "run/checkpoints").glob("last-*.json"))[-1]
        == "last-00002.json"
    )
    assert recorder.closed == 1


def test_the_weights_are_good_when_the_loss_was_not(fit_tiny, recipe):
    network = tiny_classifier()
    with pytest.raises(TrainingError):
        fit_tiny(recipe=recipe(), data=Spoilt(), classifier=network)
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


class Exploding(nn.Module):
    """A head whose gradient is infinite although its loss is not."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, features):
        return self.dense(features) * (1 + self.scale.sqrt())


def test_weights_that_became_nan_in_the_last_step_are_never_kept(fit_tiny, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(LossWatch, "settle", lambda *_: None)  # else the gradient is seen first
    data = TinyData(8, batch_size=8)  # one step an epoch: only validation can see it
    network = tiny_classifier()
    network.head = Exploding()
    with pytest.raises(TrainingError, match=r"validation loss is NaN or infinite after epoch 1"):
        fit_tiny(classifier=network, data=data, recipe=recipe())
    assert not list((tmp_path / "run").rglob("last-*"))


class SmallMemory(TinyBackbone):
    """Runs out of memory for more than `most` images at once, in training."""

    most = 3

    def forward(self, images):
        if torch.is_grad_enabled() and len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (not really)")
        return super().forward(images)


def without_norms(backbone: TinyBackbone) -> Classifier:
    """The tiny network without BatchNorm and dropout, so that pieces of a batch must add up to the batch."""
    backbone.first[1], backbone.second[1] = nn.Identity(), nn.Identity()
    return Classifier(backbone, nn.Linear(6, 3))


def test_a_batch_too_large_for_memory_is_worked_in_pieces_with_the_same_gradient(fit_tiny, recipe):
    networks = []
    for backbone in (SmallMemory(), TinyBackbone()):
        network = without_norms(backbone)
        for parameter in network.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        networks.append(network)
    chosen = recipe(train__class_weights=True, train__optimizer="sgd")
    results = [
        fit_tiny(str(i), classifier=n, recipe=chosen, pretrained=False)[1] for i, n in enumerate(networks)
    ]
    for first, second in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    assert any("pieces of 2" in note for note in results[0].notes), results[0].notes
    assert results[1].notes == ()


class SmallBackward(torch.autograd.Function):
    """Has no memory for the gradient of more than 3 images at once."""

    @staticmethod
    def forward(ctx, features):
        return features.clone()

    @staticmethod
    def backward(ctx, gradient):
        if len(gradient) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory (not really)")
        return gradient


class SmallForGradients(TinyBackbone):
    def forward(self, images):
        return SmallBackward.apply(super().forward(images))


def test_memory_too_small_for_a_gradient_leaves_no_trace_in_the_statistics(fit_tiny, recipe):
    found = {}
    for backbone in (SmallForGradients(), SmallMemory()):
        network = tiny_classifier()
        network.backbone.__class__ = type(backbone)
        fit_tiny(type(backbone).__name__, classifier=network, recipe=recipe(), pretrained=False)
        found[type(backbone)] = network.state_dict()
    for name, tensor in found[SmallMemory].items():
        assert torch.equal(found[SmallForGradients][name], tensor), name


def test_no_memory_even_for_two_images_is_said_with_what_to_do(fit_tiny):
    network = tiny_classifier()
    network.backbone = type("Tiny", (SmallMemory,), {"most": 1})()
    with pytest.raises(
        TrainingError, match=r"out of memory: 2 images at once on cpu\nhint: use a smaller train.batch_size"
    ):
        fit_tiny(classifier=network)


def test_other_errors_are_not_taken_for_memory(fit_tiny):
    network = tiny_classifier()
    network.head = nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit_tiny(classifier=network)


# -- stopping on request, and the history ------------------------------------------------------------


class StopAt(Callback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.left = stop, step

    def on_step(self, progress) -> None:
        self.left -= 1
        if not self.left:
            self.stop.set(15)


@pytest.mark.parametrize("step", [1, 3, 4, 8, 11])
def test_a_request_stops_before_the_next_step_and_the_same_command_continues(fit_tiny, tmp_path, step):
    _, whole = fit_tiny("whole")
    stop = StopRequest()
    recorder = Recorder()
    with pytest.raises(Interrupted) as caught:
        fit_tiny(stop=stop, callbacks=(StopAt(stop, step), recorder))
    assert caught.value.exit_code == 143
    assert len(recorder.progress) == step
    _, continued = fit_tiny()
    assert continued.weights_sha256 == whole.weights_sha256
    lines = (tmp_path / "run/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5]


def test_seconds_only_ever_grow_through_a_continued_run(fit_tiny):
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny(stop=stop, callbacks=(StopAt(stop, 8),))
    _, result = fit_tiny()
    seconds = [row.seconds for row in result.history]
    assert seconds == sorted(seconds)


def test_a_finished_training_is_not_done_again(fit_tiny):
    network, first = fit_tiny()
    again_recorder = Recorder()
    again, second = fit_tiny(callbacks=(again_recorder,))
    assert not again_recorder.progress
    assert second == first
    assert same(network.state_dict(), again.state_dict())
