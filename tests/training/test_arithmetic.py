"""The arithmetic of a phase: chosen by the clock once, kept for ever, and the choosing leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import Interrupted, RunError
from saccade.models import Classifier
from saccade.testing.tiny import timeless, tiny_classifier
from saccade.training import Callback, StopRequest, arithmetic
from saccade.training.arithmetic import BFLOAT16, FAST, FLOAT32, operations_an_image, quickest
from saccade.training.phases import FINETUNE, MAIN, Phase
from saccade.training.state import Checkpoints


class DepthwiseBackbone(nn.Module):
    """(B, 3, S, S) -> (B, 8), with a 5x5 depthwise layer of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.depthwise(self.stem(images)).mean((2, 3))


def depthwise_classifier() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(DepthwiseBackbone(), nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3)))


@pytest.fixture
def timed(monkeypatch):
    """Every phase counts as long; the steps are really made, but the clock shows what a test wants."""
    monkeypatch.setattr(arithmetic, "LEAST_OPERATIONS", 0.0)
    monkeypatch.setattr(arithmetic, "can_gain", lambda runtime: True)
    real, calls = arithmetic.step_seconds, []

    def pretend(**seconds: float):
        shown = dict(zip((FLOAT32, BFLOAT16, FAST), seconds.values(), strict=True))

        def step_seconds(job, phase, batch, learn):
            measured = real(job, phase, batch, learn)
            calls.append(phase.name)
            assert measured.keys() == shown.keys()
            assert all(0 < value < 60 for value in measured.values())
            return shown

        monkeypatch.setattr(arithmetic, "step_seconds", step_seconds)
        return calls

    return pretend


def told(network, result):
    return result.weights_sha256, [timeless(row) for row in result.history]


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        ((1.0, 0.9, 0.8), FAST),
        ((1.0, 0.5, 0.8), BFLOAT16),
        ((1.0, 2.0, 0.88), FLOAT32),  # 1.14 times as quick
        ((1.0, 2.0, 3.0), FLOAT32),
    ],
)
def test_the_quickest_is_kept_but_float32_unless_another_surely_is(seconds, name):
    chosen = quickest(dict(zip((FLOAT32, BFLOAT16, FAST), seconds, strict=True)), 16)
    assert chosen.name == name
    assert f"training arithmetic: {name}; a step of 16 images took 1.00 s in float32" in chosen.note


def test_a_short_training_stays_in_float32_and_nothing_is_timed(fit_tiny, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic, "can_gain", lambda runtime: True)
    monkeypatch.setattr(arithmetic, "step_seconds", lambda *_: pytest.fail("a short phase was timed"))
    automatic = fit_tiny("auto")
    assert told(*automatic) == told(*fit_tiny("float32", recipe=recipe(precision="float32")))
    assert not (tmp_path / "auto" / "checkpoints" / "choices.json").exists()


@pytest.mark.parametrize(
    ("seconds", "precision"),
    [
        ({"float32": 1.0, "bfloat16": 3.0, "fast": 0.5}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 3.0, "fast": 2.0}, "float32"),
    ],
)
def test_choosing_changes_nothing_but_the_arithmetic(timed, fit_tiny, recipe, seconds, precision):
    calls = timed(**seconds)
    options = {"pretrained": False, "mix_up": 0.2}
    chosen = fit_tiny("auto", classifier=depthwise_classifier(), recipe=recipe(), **options)
    asked = fit_tiny(
        "asked", classifier=depthwise_classifier(), recipe=recipe(precision=precision), **options
    )
    assert calls == [MAIN]
    assert told(*chosen) == told(*asked)
    assert any("a step of 8 images took 1.00 s in float32" in note for note in chosen[1].notes)
    assert not any("a step of" in note for note in asked[1].notes)


def test_bfloat16_asked_for_learns_with_the_quick_backward_and_leaves_no_trace(fit_tiny, recipe):
    seen = []

    class Look(Callback):
        def on_step(self, progress):
            seen.append("forward" in network.backbone.depthwise[0].__dict__)

    network = depthwise_classifier()
    fit_tiny(classifier=network, recipe=recipe(precision="bfloat16"), pretrained=False, callbacks=[Look()])
    assert seen
    assert all(seen)
    assert "forward" not in network.backbone.depthwise[0].__dict__


def test_a_head_on_a_frozen_base_is_not_timed(timed, fit_tiny):
    calls = timed(float32=1.0, bfloat16=0.5, fast=0.5)
    fit_tiny()
    assert calls == [FINETUNE]


def test_a_run_that_continues_keeps_the_choice(timed, fit_tiny, recipe, monkeypatch):
    class StopAfterFirst(Callback):
        def on_epoch_end(self, view, row):
            if row.epoch == 1:
                stop.set(15)

    timed(float32=1.0, bfloat16=3.0, fast=0.5)
    options = {"pretrained": False, "recipe": recipe()}
    whole = fit_tiny("whole", classifier=depthwise_classifier(), **options)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny("cut", classifier=depthwise_classifier(), stop=stop, callbacks=[StopAfterFirst()], **options)
    monkeypatch.setattr(arithmetic, "step_seconds", lambda *_: pytest.fail("timed again"))
    continued = fit_tiny("cut", classifier=depthwise_classifier(), **options)
    assert told(*continued) == told(*whole)
    assert continued[1].notes == whole[1].notes


def test_a_damaged_choice_is_said(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.choice("arithmetic of main") is None
    checkpoints.keep_choice("arithmetic of main", {"name": FAST})
    checkpoints.keep_choice("arithmetic of finetune", {"name": FLOAT32})
    assert checkpoints.choice("arithmetic of main") == {"name": FAST}
    (tmp_path / "choices.json").write_text("{", "utf-8")
    with pytest.raises(RunError, match=r"choices\.json is damaged (?s:.*)to make it again, run: "):
        checkpoints.choice("arithmetic of main")


def test_operations_are_counted_for_what_learns():
    network, image = tiny_classifier(), torch.zeros(1, 3, 8, 8)
    forward = 2 * (64 * 4 * 27 + 64 * 6 * 36 + 6 * 3)
    phase = Phase(MAIN, 1, 0.1, "all")
    assert operations_an_image(network, phase, image) == 3 * forward
    network.backbone.requires_grad_(False)
    assert operations_an_image(network, phase, image) == forward + 2 * 2 * 6 * 3
    assert network.training, "the mode comes back"
