"""WiSE-FT: the average is what it says, kept only where validation gets better; nothing frozen moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saccade.bundle import weights_sha256
from saccade.errors import RunError
from saccade.methods import METHODS
from saccade.models.finetune import frozen_hash
from saccade.training.inference import predict_logits
from saccade.training.monitors import calibrated_loss
from saccade.training.wise import NOTHING_TUNED, SHARES, average_with_start, between


def finished(job_tiny: Any, recipe: Any, share: Any, name: str = "run", **options: Any) -> Any:
    """A job that was fine-tuned, its result, and what gives the answers on validation."""
    settings = {"train__finetune_lr": 0.002, "train__epochs": 4, "train__unfreeze": "1", **options}
    chosen = recipe(train__average_with_pretrained=share, **settings)
    job = job_tiny(name, recipe=chosen)
    result = METHODS[job.plan.method].train(job, None)
    return job, result, lambda: predict_logits(job.classifier, job.data.validation(), job.runtime)[:2]


def loss_of(answers: Any) -> float:
    return calibrated_loss(*answers())


def test_it_is_the_average_tensor_by_tensor() -> None:
    tuned = {"w": torch.tensor([1.0, 2.0, 1 / 3]), "n": torch.tensor(7)}
    start = {"w": torch.tensor([3.0, 2.0, 1 / 3]), "n": torch.tensor(2)}
    for share in (0.25, 0.8):
        found = between(tuned, start, share)
        expected = torch.tensor([(1 - share) * 1.0 + share * 3.0, 2.0, 1 / 3])
        torch.testing.assert_close(found["w"], expected)
        assert torch.equal(found["w"][1:], tuned["w"][1:])
        assert found["n"] == 7


def test_auto_takes_the_best_share_and_tells_both_figures(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, "auto")
    assert result.best.phase == "finetune"
    tuned = {name: tensor.clone() for name, tensor in job.classifier.state_dict().items()}
    start = job.checkpoints.start_weights()
    before = loss_of(answers)
    losses = {}
    for share in SHARES:
        job.classifier.load_state_dict(between(tuned, start, share))
        losses[share] = loss_of(answers)
    job.classifier.load_state_dict(tuned)
    after = average_with_start(job, result, answers)
    best = min(losses, key=losses.__getitem__)
    assert after.averaged["share"] == best
    assert after.averaged["kept"] == (losses[best] < before)
    assert after.averaged["tuned_loss"] == pytest.approx(before)
    assert loss_of(answers) == pytest.approx(min(before, losses[best]))
    assert after.weights_sha256 == weights_sha256(job.classifier)
    assert f"{before:.4f}" in after.notes[-1]
    assert frozen_hash(job.classifier) == result.frozen_at_end, "what was frozen is frozen still"


def test_it_is_not_kept_where_the_loss_does_not_fall(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, "auto")
    worse = {name: torch.full_like(tensor, 9.0) for name, tensor in job.classifier.state_dict().items()}
    job.checkpoints.keep_start(worse)
    after = average_with_start(job, result, answers)
    assert not after.averaged["kept"]
    assert after.weights_sha256 == result.weights_sha256 == weights_sha256(job.classifier)
    assert "not kept" in after.notes[-1]


def test_a_given_share_is_taken_as_it_is(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, 1.0)
    after = average_with_start(job, result, answers)
    assert after.averaged["kept"]
    start = job.checkpoints.start_weights()
    for name, tensor in job.classifier.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, start[name]), name


def test_off_changes_and_keeps_nothing(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, 0.0)
    assert average_with_start(job, result, answers) is result
    assert job.checkpoints.start_weights() is None


def test_where_the_head_was_better_there_is_nothing_to_average(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, "auto", train__lr=0.02, train__finetune_lr=1e-12)
    if result.best.phase == "finetune":  # by rounding; what matters is the other branch
        pytest.skip("fine-tuning by nothing was not worse")
    assert average_with_start(job, result, answers).notes[-1] == NOTHING_TUNED


def test_a_run_that_continues_comes_to_the_same(job_tiny: Any, recipe: Any) -> None:
    hashes = set()
    for _ in range(2):
        job, result, answers = finished(job_tiny, recipe, "auto")
        hashes.add(average_with_start(job, result, answers).weights_sha256)
    assert len(hashes) == 1


def test_a_damaged_start_is_told(job_tiny: Any, recipe: Any) -> None:
    job, result, answers = finished(job_tiny, recipe, "auto")
    file = job.checkpoints.folder / "start.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=r"start.safetensors is damaged"):
        average_with_start(job, result, answers)
