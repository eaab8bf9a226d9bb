"""The solved head inside the loop, and the verdict on fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from saccade.errors import RecipeError, TrainingError
from saccade.features.compute import Engines, Images
from saccade.features.heads import stratified_group_folds
from saccade.images.decoder import Limits
from saccade.methods import auto, phases_of
from saccade.methods.planning import plan_training
from saccade.methods.probe import SERIES, HeadFigures, Probe, kept_series
from saccade.methods.trial import judge_finetuning
from saccade.methods.verdict import Cost, Terms, Trial, Verdict, verdict, within_limit
from saccade.models.network import Classifier
from saccade.plan import Phase
from saccade.preprocess import Preprocess
from saccade.records import EpochRow, ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal
from saccade.testing.tiny import timeless
from saccade.training import Callback, EpochProgress, TrainingView
from saccade.training.job import TrainingJob
from saccade.training.state import Checkpoints


@dataclass
class StandIn:
    """A transfer that writes a fixed head and says what it is told to."""

    worth_it: bool = True
    tail: bool = False
    epochs: int = 0
    validation_loss: float = 0.5
    asked: list[str] = field(default_factory=list)

    head_steps: int = 1
    fitted: list[int] = field(default_factory=list)

    def fit_head(self, job: TrainingJob, step: int) -> HeadFigures:
        self.asked.append("head")
        self.fitted.append(step)
        with torch.no_grad():
            for parameter in job.classifier.head.parameters():
                parameter.fill_(0.25)
        return HeadFigures(0.4, 0.9, self.validation_loss, 0.8, note="the head was fitted")

    def keep_held_out(self, job: TrainingJob, row: EpochRow) -> None:
        pass

    def find_series(self, job: TrainingJob, row: EpochRow) -> str:
        return ""

    def judged(self, phase: Phase) -> Verdict:
        self.asked.append(f"{phase.name} {phase.unfreeze}")
        return Verdict(self.worth_it, "because of the trial", tail=self.tail, epochs=self.epochs)


@pytest.fixture(autouse=True)
def _stand_ins_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial itself is tested by real runs (tests/journeys)."""
    monkeypatch.setattr(auto, "judge_finetuning", lambda job, probe, phase: probe.judged(phase))


Fit = Callable[..., Any]


def test_method_head_is_one_row_and_moves_nothing_else(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    from saccade.testing.tiny import tiny_classifier

    probe = StandIn()
    network, result = fit_tiny(recipe=recipe(train__method="head"), probe=probe)
    assert [timeless(row) for row in result.history] == [("head", 1, 0.0, 0.4, 0.9, 0.5, 0.8)]
    assert probe.asked == ["head"]
    assert result.head_alone
    assert result.finetune_ratio == 0.0
    assert result.notes == ("the head was fitted",)
    assert [(entry.phase, entry.kept) for entry in result.frozen] == [("head", True)]
    before = tiny_classifier().backbone.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())


class Worse(StandIn):
    """Two fits, of which the second is worse on validation and has other weights."""

    def fit_head(self, job: TrainingJob, step: int) -> HeadFigures:
        found = super().fit_head(job, step)
        with torch.no_grad():
            for parameter in job.classifier.head.parameters():
                parameter += step
        return found._replace(validation_loss=found.validation_loss + step)


def test_of_two_heads_the_better_one_is_kept(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    probe = Worse(head_steps=2)
    network, result = fit_tiny(recipe=recipe(train__method="head"), probe=probe)
    assert probe.asked == ["head", "head"]
    assert [row.validation_loss for row in result.history] == [0.5, 1.5]
    assert (result.best.epoch, result.head_alone) == (1, True)
    assert all(torch.all(parameter == 0.25) for parameter in network.head.parameters())


class InSeries(StandIn):
    """Finds series once, after the first fit."""

    def find_series(self, job: TrainingJob, row: EpochRow) -> str:
        self.asked.append(f"series after epoch {row.epoch}")
        job.checkpoints.keep_choice(SERIES, {"groups": ["a", "b"]})
        return "your images come in series"


@pytest.mark.parametrize("head_steps", [1, 2])
def test_with_hidden_series_the_head_is_fitted_once_more(
    fit_tiny: Fit, recipe: Callable[..., Any], head_steps: int
) -> None:
    class StopAfterFirst(Callback):
        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            raise KeyboardInterrupt

    chosen, probe = recipe(train__method="head"), InSeries(head_steps=head_steps)
    _, whole = fit_tiny("whole", recipe=chosen, probe=probe)
    assert probe.asked == ["head", "series after epoch 1", *["head"] * head_steps]
    assert probe.fitted == [0, *range(head_steps)], "the same view again, with another strength"
    assert whole.notes == ("the head was fitted", "your images come in series")
    again = InSeries(head_steps=head_steps)
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("cut", recipe=chosen, probe=again, callbacks=[StopAfterFirst()])
    _, continued = fit_tiny("cut", recipe=chosen, probe=again)
    assert again.fitted == probe.fitted
    assert [timeless(row) for row in continued.history] == [timeless(row) for row in whole.history]
    assert continued.notes == whole.notes


def test_where_the_time_is_over_one_head_is_enough(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    probe = StandIn(head_steps=2)
    fit_tiny(recipe=recipe(train__method="head"), probe=probe, deadline=time.monotonic() - 1)
    assert probe.asked == ["head"]


def test_auto_stops_or_goes_on_as_the_verdict_says(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    _, stopped = fit_tiny("stopped", recipe=recipe(train__method="auto"), probe=StandIn(worth_it=False))
    assert [row.phase for row in stopped.history] == ["head"]
    assert stopped.stopped == "the linear probe is enough"
    assert "because of the trial" in stopped.notes
    probe = StandIn(validation_loss=50.0)
    _, tuned = fit_tiny("tuned", recipe=recipe(train__method="auto"), probe=probe)
    assert [row.phase for row in tuned.history] == ["head"] + ["finetune"] * 3
    assert probe.asked == ["head", "finetune all"]
    assert not tuned.head_alone
    assert tuned.finetune_ratio == pytest.approx(0.1)


def test_what_the_trial_showed_is_said_before_fine_tuning(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    class Watch(Callback):
        def on_note(self, note: str) -> None:
            seen.append(note)

        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            seen.append(row.phase)

    seen: list[str] = []
    probe = StandIn(validation_loss=50.0)
    _, result = fit_tiny(recipe=recipe(train__method="auto"), probe=probe, callbacks=[Watch()])
    assert seen == ["the head was fitted", "head", "because of the trial", *["finetune"] * 3]
    assert result.notes == ("the head was fitted", "because of the trial")


def test_epochs_are_counted_to_their_last_one_however_often_the_head_was_fitted(
    fit_tiny: Fit, recipe: Callable[..., Any]
) -> None:
    class Counts(Callback):
        def on_step(self, progress: EpochProgress) -> None:
            seen.add((progress.epoch, progress.last_epoch))

    seen: set[tuple[int, int]] = set()
    chosen = recipe(train__method="full", train__epochs=3)
    fit_tiny(recipe=chosen, probe=StandIn(head_steps=2), callbacks=[Counts()])
    assert seen == {(3, 5), (4, 5), (5, 5)}


def test_full_fine_tunes_everything_without_asking(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    probe = StandIn()
    _, result = fit_tiny(recipe=recipe(train__method="full"), probe=probe)
    assert probe.asked == ["head"]
    assert [(e.phase, e.parameters > 0) for e in result.frozen] == [("head", True), ("finetune", False)]


def test_fine_tuning_keeps_batchnorm_statistics_and_training_from_scratch_does_not(
    fit_tiny: Fit, recipe: Callable[..., Any]
) -> None:
    """Batch statistics of augmented images are not those that the head was fitted behind."""
    from saccade.testing.tiny import tiny_classifier

    before = tiny_classifier().state_dict()
    statistics = [name for name in before if "running" in name]
    assert len(statistics) == 4
    moved = {}
    for method in ("full", "finetune"):
        chosen = recipe(train__method=method, train__unfreeze="all")  # "full" means all by itself
        network, _ = fit_tiny(method, recipe=chosen, probe=StandIn(validation_loss=50.0))
        after = network.state_dict()
        moved[method] = [not torch.equal(before[name], after[name]) for name in statistics]
        assert not torch.equal(before["backbone.first.0.weight"], after["backbone.first.0.weight"])
    scratch, _ = fit_tiny("scratch", recipe=recipe(), pretrained=False)
    moved["scratch"] = [not torch.equal(before[name], scratch.state_dict()[name]) for name in statistics]
    assert moved == {"full": [False] * 4, "finetune": [False] * 4, "scratch": [True] * 4}


def test_what_fine_tuning_made_worse_is_not_returned(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    """The head alone is a candidate like every epoch; 0.0 is a loss that no epoch can beat."""
    chosen = recipe(train__method="full")
    network, result = fit_tiny(recipe=chosen, probe=StandIn(validation_loss=0.0))
    assert len(result.history) == 4
    assert (result.best.phase, result.best.epoch, result.head_alone) == ("head", 1, True)
    assert all(torch.all(parameter == 0.25) for parameter in network.head.parameters())


def test_finetune_is_the_classic_two_phases(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    probe = StandIn()
    _, with_probe = fit_tiny("a", recipe=recipe(train__method="finetune"), probe=probe)
    _, without = fit_tiny("b", recipe=recipe(train__method="finetune"))
    assert probe.asked == []
    assert [timeless(row) for row in with_probe.history] == [timeless(row) for row in without.history]
    assert [row.phase for row in without.history] == ["head"] * 2 + ["finetune"] * 3


def test_stopped_between_head_and_fine_tuning_it_ends_the_same(
    fit_tiny: Fit, recipe: Callable[..., Any], tmp_path: Path
) -> None:
    class StopAfterHead(Callback):
        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            raise KeyboardInterrupt

    chosen = recipe(train__method="auto", train__schedule="plateau")
    _, whole = fit_tiny("whole", recipe=chosen, probe=StandIn(validation_loss=50.0))
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("cut", recipe=chosen, probe=StandIn(validation_loss=50.0), callbacks=[StopAfterHead()])
    checkpoint, _ = Checkpoints(tmp_path / "cut" / "checkpoints").latest()
    assert checkpoint is not None
    assert checkpoint.state.epoch == 1
    again = StandIn(validation_loss=50.0)
    _, continued = fit_tiny("cut", recipe=chosen, probe=again)
    assert again.asked == ["finetune all"], (
        "the head of the checkpoint is used, only the verdict is asked again"
    )
    assert continued.weights_sha256 == whole.weights_sha256
    assert [timeless(row) for row in continued.history] == [timeless(row) for row in whole.history]
    assert continued.frozen == whole.frozen
    assert continued.notes == whole.notes


def test_a_head_that_is_not_finite_is_refused(fit_tiny: Fit, recipe: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        fit_tiny(recipe=recipe(train__method="auto"), probe=StandIn(validation_loss=float("nan")))


def test_what_leaves_layers_frozen_needs_pretrained_weights(recipe: Callable[..., Any]) -> None:
    for method in ("head", "tail"):
        with pytest.raises(RecipeError, match=rf"method = {method} .* starts from scratch"):
            phases_of(recipe(train__method=method, model__pretrained=False))
    _, phases = phases_of(recipe(train__method="full", model__pretrained=False))
    assert [phase.name for phase in phases] == ["main"]


def trial(gain: float, *, images: int = 200, spread: float = 0.3, epoch_seconds: float = 10.0) -> Trial:
    """Losses around 1 before, lower by `gain` on average after."""
    rng = np.random.default_rng(0)
    before = 1 + 0.5 * rng.random(images)
    after = before - gain + spread * rng.normal(size=images)
    right = np.ones(images, bool)
    return Trial(before, after, right, right, epoch_seconds)


@pytest.mark.parametrize(
    ("gain", "images", "spread", "words"),
    [
        (0.4, 200, 0.3, "fine-tuning helps"),
        (0.045, 200, 1.0, "fine-tuning helps"),
        (-0.4, 200, 0.3, "little to gain"),
        (0.05, 20_000, 0.3, "little to gain"),
        (0.65, 4, 1.0, "may be chance"),
        (0.4, 1, 0.3, "may be chance"),
    ],
    ids=["large", "likely", "loss", "sure but small", "not likely", "one image"],
)
def test_fine_tuning_is_worth_a_gain_that_is_likely_and_large(
    gain: float, images: int, spread: float, words: str
) -> None:
    found = verdict(trial(gain, images=images, spread=spread), Terms())
    assert ("epochs, about" in found.reason) is found.worth_it
    assert found.worth_it is (words == "fine-tuning helps"), found.reason
    assert words in found.reason


@pytest.mark.parametrize(
    ("repaired", "broken", "worth_it"), [(30, 5, True), (18, 10, True), (30, 25, False), (3, 0, False)]
)
def test_more_right_answers_count_too(repaired: int, broken: int, worth_it: bool) -> None:
    """200 images, 100 of them right before; the loss stays as it was."""
    before = np.arange(200) < 100
    after = before.copy()
    after[100 : 100 + repaired] = True
    after[:broken] = False
    same = np.ones(200)
    assert verdict(Trial(same, same, before, after, 1.0), Terms()).worth_it is worth_it


@pytest.mark.parametrize(
    ("seconds_left", "worth_it", "tail"),
    [(600.0, True, False), (490.0, True, True), (40.0, True, True), (10.0, False, False)],
    ids=["all of it", "last layers", "part of an epoch of them", "head"],
)
def test_what_the_time_limit_allows(seconds_left: float, worth_it: bool, tail: bool) -> None:
    """An epoch of the whole network takes 100 s, a few steps of its last layers and a validation 15 s."""
    cost = Cost(epoch_seconds=100.0, least_seconds=15.0)
    found = within_limit(cost, seconds_left, epochs=10)
    assert (found.worth_it, found.tail) == (worth_it, tail), found.reason
    assert ("--time-limit" in found.reason) is (seconds_left < 500)
    assert ("the linear probe included" in found.reason) is worth_it
    assert not within_limit(cost, 310.0, epochs=3).tail, "three epochs take 300 s"


@pytest.mark.parametrize(
    ("epoch_seconds", "epochs", "tail", "words"),
    [
        (46.0, 10, False, ["46 s an epoch, 10 epochs, about 8 min", "about 9 min from start to report"]),
        (100.0, 6, False, ["6 epochs, about 10 min", "auto spends at most 10 min"]),
        (180.0, 10, True, ["only its last layers", "6 epochs, about 9 min", "--method full"]),
        (3600.0, 10, None, ["we keep the linear probe", "60 min and auto spends at most 10 min"]),
    ],
    ids=["all epochs", "fewer epochs", "last layers", "head"],
)
def test_auto_spends_what_the_predicted_gain_is_worth(
    epoch_seconds: float, epochs: int, tail: bool | None, words: list[str]
) -> None:
    """A lower loss, and no point of accuracy: 10 minutes."""
    terms = Terms(epochs=10, tail_epochs=6, bounded=True, other_seconds=90.0)
    found = verdict(trial(0.4, epoch_seconds=epoch_seconds), terms)
    assert (found.worth_it, found.tail) == (tail is not None, bool(tail)), found.reason
    assert found.epochs == (epochs if tail is False else 0)
    assert [word for word in words if word not in found.reason] == [], found.reason
    free = verdict(trial(0.4, epoch_seconds=epoch_seconds), replace(terms, bounded=False))
    assert (free.worth_it, free.tail, free.epochs) == (True, False, 10), "who gave the epochs has decided"


def unclear(
    *, repaired: int, broken: int, wrong: int = 20, loss: float = 0.0, epoch_seconds: float = 40.0
) -> Trial:
    """200 images, `wrong` of them by the head; the loss rises by `loss`."""
    before = np.arange(200) >= wrong
    after = before.copy()
    after[:repaired] = True
    after[wrong : wrong + broken] = False
    losses = np.ones(200)
    return Trial(losses, losses + loss, before, after, epoch_seconds)


@pytest.mark.parametrize(
    ("found", "bounded", "worth_it"),
    [
        (unclear(repaired=2, broken=1, loss=0.01), True, True),
        (unclear(repaired=2, broken=1, loss=0.01), False, False),
        (unclear(repaired=2, broken=1, epoch_seconds=121.0), True, False),
        (unclear(repaired=1, broken=3, loss=0.01), True, False),
        (unclear(repaired=1, broken=3, loss=-0.01), True, True),
        (unclear(repaired=2, broken=1, wrong=3), True, False),
    ],
    ids=["cheap", "epochs were given", "takes longer", "it did harm", "half of it did", "nothing to mend"],
)
def test_where_fine_tuning_is_cheap_a_trial_without_gain_is_no_reason_against_it(
    found: Trial, bounded: bool, worth_it: bool
) -> None:
    """10 epochs of 40 s are within the 10 minutes that auto spends on any gain."""
    answer = verdict(found, Terms(epochs=10, tail_epochs=6, bounded=bounded, other_seconds=90.0))
    assert (answer.worth_it, answer.tail) == (worth_it, False), answer.reason
    assert ("about 7 min without early stopping" in answer.reason) is worth_it
    assert answer.epochs == (10 if worth_it else 0)


def test_where_not_all_epochs_are_cheap_fewer_are_planned() -> None:
    found = unclear(repaired=2, broken=1, epoch_seconds=80.0)
    assert verdict(found, Terms(epochs=10, tail_epochs=6, bounded=True)).epochs == 7


def test_auto_is_bounded_where_nobody_said_how_long_to_train(recipe: Callable[..., Any]) -> None:
    assert plan_training(recipe(train__method="auto", train__epochs="auto")).bounded
    assert not plan_training(recipe(train__method="auto", train__epochs=7)).bounded
    assert not plan_training(
        recipe(train__method="auto", train__epochs="auto", train__time_limit=60.0)
    ).bounded


def test_more_points_are_worth_more_time() -> None:
    bounded = Terms(bounded=True)
    assert [bounded.allowance(points) for points in (-3.0, 0.5, 2.0, 30.0)] == [600.0, 600.0, 1200.0, 7200.0]
    assert Terms().allowance(1.0) == float("inf")


def test_what_does_not_pay_is_not_done_by_the_tail() -> None:
    found = verdict(trial(-0.4, epoch_seconds=100.0), Terms())
    assert (found.worth_it, found.tail) == (False, False)


def test_auto_that_lacks_time_learns_the_last_layers_and_goes_on_with_them(
    fit_tiny: Fit, recipe: Callable[..., Any], tmp_path: Path
) -> None:
    class StopInFineTuning(Callback):
        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            if row.phase == "finetune":
                raise KeyboardInterrupt

    chosen = recipe(train__method="auto", train__schedule="plateau")
    like_that: dict[str, Any] = {"tail": True, "validation_loss": 50.0}
    _, whole = fit_tiny("whole", recipe=chosen, probe=StandIn(**like_that))
    head, finetune = whole.frozen
    assert (head.phase, finetune.phase) == ("head", "finetune")
    assert finetune.kept
    assert finetune.parameters > 0, "the first layers stay as they were"
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("cut", recipe=chosen, probe=StandIn(**like_that), callbacks=[StopInFineTuning()])
    again = StandIn(worth_it=False, validation_loss=50.0)
    _, continued = fit_tiny("cut", recipe=chosen, probe=again)
    assert again.asked == [], "what the clock decided is not asked again"
    assert continued.weights_sha256 == whole.weights_sha256
    assert [timeless(row) for row in continued.history] == [timeless(row) for row in whole.history]


def test_auto_that_was_given_fewer_epochs_goes_on_with_so_many(
    fit_tiny: Fit, recipe: Callable[..., Any]
) -> None:
    class StopInFineTuning(Callback):
        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            if row.phase == "finetune":
                raise KeyboardInterrupt

    chosen = recipe(train__method="auto")  # three epochs
    like_that: dict[str, Any] = {"epochs": 2, "validation_loss": 50.0}
    _, whole = fit_tiny("whole", recipe=chosen, probe=StandIn(**like_that))
    assert [row.phase for row in whole.history] == ["head"] + ["finetune"] * 2
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("cut", recipe=chosen, probe=StandIn(**like_that), callbacks=[StopInFineTuning()])
    again = StandIn(validation_loss=50.0)
    _, continued = fit_tiny("cut", recipe=chosen, probe=again)
    assert again.asked == []
    assert continued.weights_sha256 == whole.weights_sha256


def probe_of(records: tuple[ImageRecord, ...]) -> Probe:
    """Of two classes, its features there already."""
    images = Images(FolderStorage(Path(".")), records, Preprocess(8), Limits(), exact=False)
    return Probe(
        train=images,
        validation=images,
        classes=("a", "b"),
        engines=lambda: pytest.fail("the features are there already"),
        mirrored=False,
        batches=lambda indices: pytest.fail("nothing is fine-tuned"),
        evaluation=lambda indices: (),
        progress=Terminal(quiet=True).progress,
        _views=[torch.zeros(len(records), 2)],
    )


@pytest.mark.parametrize("right", [True, False])
def test_what_held_out_images_call_solved_is_not_where_validation_disagrees(
    job_tiny: Callable[..., TrainingJob], right: bool
) -> None:
    """400 images that cross-validation gets right; in validation half of them have another label."""
    labels = torch.arange(400) % 2
    features = torch.stack([8.0 * labels, 4 - 8.0 * labels], dim=1)
    records = tuple(ImageRecord(f"{n}.png", "ab"[n % 2], "train", sha256=str(n)) for n in range(400))
    judged = tuple(record if right else replace(record, label="a") for record in records)
    probe = replace(probe_of(records), _views=[features], _validation=features)
    probe = replace(probe, validation=replace(probe.validation, records=judged))
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        head.bias.zero_()
    job = replace(job_tiny(deadline=time.monotonic() - 1), classifier=Classifier(nn.Flatten(), head))
    reason = judge_finetuning(job, probe, job.plan.phases[-1]).reason
    assert ("almost nothing to gain" in reason) is right, reason
    assert ("0 s are left: we keep the linear probe" in reason) is not right, reason


def test_near_duplicates_of_the_training_part_judge_nothing_that_they_taught(
    job_tiny: Callable[..., TrainingJob],
) -> None:
    """A cluster of the split is one group of the head's cross-validation, also without a group of its own."""
    records = tuple(
        ImageRecord(f"{n}.png", "ab"[n % 2], "train", sha256=str(n), cluster="c" if n < 4 else "")
        for n in range(8)
    )
    probe = probe_of(records)
    data = probe.data(job_tiny(), views=1)
    assert data.groups == (*["cluster c"] * 4, "4", "5", "6", "7")
    folds = stratified_group_folds(data.labels.numpy(), data.groups, folds=2, seed=0)
    assert len(set(folds[:4])) == 1


@pytest.mark.parametrize("validation", [0.5, 0.99])
def test_the_probe_keeps_hidden_series_together_where_validation_betrays_them(
    job_tiny: Callable[..., TrainingJob], validation: float
) -> None:
    """24 scenes of 10 frames in two classes, which tell nothing of a class."""
    random = np.random.default_rng(0)
    scene = np.repeat(np.arange(24), 10)
    features = 4 * random.normal(size=(24, 32))[scene] + random.normal(size=(240, 32))
    records = tuple(
        ImageRecord(f"train/{'ab'[s % 2]}/{s}_{n}.png", "ab"[s % 2], "train", sha256=str(n))
        for n, s in enumerate(scene.tolist())
    )
    probe = replace(probe_of(records), _views=[torch.from_numpy(features.astype(np.float32))])
    job, row = job_tiny(), EpochRow("head", 1, 0.0, 0.0, 1.0, 1.0, validation, 1.0)
    before = probe.choice(job)
    words = probe.find_series(job, row)
    assert "about 24 series of 10 images" in words
    assert probe.find_series(job, row) == words, "a run that continues says the same"
    betrayed = validation < 0.9
    assert bool(kept_series(job)) is betrayed
    assert (probe.choice(job).accuracy < before.accuracy - 0.2) is betrayed
    assert len(set(probe.data(job, views=1).groups)) == (24 if betrayed else 240)
    named = tuple(replace(record, group=str(n // 10)) for n, record in enumerate(records))
    fresh = replace(probe, train=replace(probe.train, records=named))
    assert fresh.find_series(job, row) == "", "the user has named groups"


def test_a_head_that_flips_is_judged_as_it_answers(tmp_path: Path) -> None:
    """The temperature was fitted on answers without mirror images, which are more uneven."""
    rng = np.random.default_rng(0)
    records = tuple(ImageRecord(f"{n}.png", "ab"[n % 2], "validation") for n in range(6))
    for record in records:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / record.path)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)), nn.Linear(4, 2)).eval()
    images = Images(FolderStorage(tmp_path), records, Preprocess(8), Limits(), exact=True)
    engines = Engines(torch.inference_mode()(classifier.backbone), "torch")
    probe = replace(probe_of(records), validation=images, engines=lambda: engines)
    inputs = images.inputs(range(len(records)))
    for flip in (False, True):
        classifier.flip = flip
        found, labels = probe.validation_logits(classifier)
        with torch.inference_mode():
            expected = classifier(inputs).numpy()
        assert np.abs(found - expected).max() < 1e-6
        assert labels.tolist() == [0, 1, 0, 1, 0, 1]
