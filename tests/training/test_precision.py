"""The precision of a phase: a rule about processor and work, which leaves no trace in anything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.errors import RunError
from saccade.models import Classifier
from saccade.plan import FINETUNE, HEAD
from saccade.testing.tiny import timeless, tiny_classifier
from saccade.training import Callback, precision
from saccade.training.precision import operations_an_image, phase_precision
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


def told(network, result):
    return result.weights_sha256, [timeless(row) for row in result.history]


@pytest.mark.parametrize(
    ("asked", "pays", "least", "expected"),
    [
        ("auto", True, 0.0, "bfloat16"),
        ("auto", True, 1e30, "float32"),
        ("auto", False, 0.0, "float32"),
        ("float32", True, 0.0, "float32"),
        ("bfloat16", False, 1e30, "bfloat16"),
    ],
)
def test_the_precision_of_a_phase(job_tiny, recipe, monkeypatch, asked, pays, least, expected):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: pays)
    monkeypatch.setattr(precision, "LEAST_OPERATIONS", least)
    job = job_tiny(recipe=recipe(precision=asked), pretrained=False)
    assert phase_precision(job, job.plan.phases[0], epoch=1) == expected


def test_a_head_on_a_frozen_base_stays_in_float32(job_tiny, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    monkeypatch.setattr(precision, "LEAST_OPERATIONS", 0.0)
    job = job_tiny()
    found = {phase.name: phase_precision(job, phase, epoch=1) for phase in job.plan.phases}
    assert found == {HEAD: "float32", FINETUNE: "bfloat16"}


def test_the_rule_changes_nothing_but_the_precision(fit_tiny, recipe, monkeypatch):
    """Choosing looks at some images and counts operations: no random draw, no statistic may move by that."""
    monkeypatch.setattr(precision, "LEAST_OPERATIONS", 0.0)
    for pays, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "bfloat16_pays", lambda pays=pays: pays)
        options = {"pretrained": False, "mix_up": 0.2}
        chosen = fit_tiny(f"auto {name}", classifier=depthwise_classifier(), recipe=recipe(), **options)
        asked = recipe(precision=name)
        named = fit_tiny(f"asked {name}", classifier=depthwise_classifier(), recipe=asked, **options)
        assert told(*chosen) == told(*named)


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


def test_a_damaged_choice_is_said(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.choice("what is fine-tuned") is None
    checkpoints.keep_choice("what is fine-tuned", {"method": "tail"})
    checkpoints.keep_choice("views of finetune", {"views": 2})
    assert checkpoints.choice("what is fine-tuned") == {"method": "tail"}
    (tmp_path / "choices.json").write_text("{", "utf-8")
    with pytest.raises(RunError, match=r"(?s)choices\.json is damaged .*to make it again, run: "):
        checkpoints.choice("what is fine-tuned")


def test_operations_are_counted_for_what_learns():
    network, image = tiny_classifier(), torch.zeros(1, 3, 8, 8)
    forward = 2 * (64 * 4 * 27 + 64 * 6 * 36 + 6 * 3)
    assert operations_an_image(network, image) == 3 * forward
    network.backbone.requires_grad_(False)
    assert operations_an_image(network, image) == forward + 2 * 2 * 6 * 3
    assert network.training, "the mode comes back"
