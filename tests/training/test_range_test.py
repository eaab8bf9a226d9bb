"""The learning-rate range test: its rates, where it stops, and that it leaves everything as it was."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.cli import main
from saccade.pipeline.rates import suggestions
from saccade.plan import FINETUNE, HEAD, MAIN, Phase
from saccade.recipe import HARD_FINETUNE_RATIO, Recipe
from saccade.testing.tiny import tiny_classifier
from saccade.training.range_test import RangeTest, learn, range_test, rate_share

EVERYTHING = Phase(MAIN, 1, 0.01, "all")


def test_rates_rise_by_one_factor() -> None:
    shares = [rate_share(step, 50) for step in range(50)]
    factors = [later / earlier for earlier, later in itertools.pairwise(shares)]
    assert factors == pytest.approx([10 ** (6 / 49)] * 49)
    assert (shares[0], shares[-1]) == (pytest.approx(1e-3), pytest.approx(1e3))


def test_it_ends_where_the_loss_explodes_and_suggests_less(job_tiny: Any, recipe: Any) -> None:
    job = job_tiny(recipe=recipe(train__optimizer="sgd"), pretrained=False)
    found = range_test(job, EVERYTHING, steps=120)
    assert len(found.rates) == len(found.losses) < 120
    assert found.learnt
    assert found.suggestion == pytest.approx(found.rates[found.turn] / 10)
    assert found.losses[found.turn] == min(found.losses)


def test_it_leaves_weights_and_random_state_as_they_were(job_tiny: Any, tmp_path: Path) -> None:
    network = tiny_classifier()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    range_test(job_tiny(classifier=network, pretrained=False), EVERYTHING, steps=12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [part.training for part in network.modules()] == modes
    assert all(p.requires_grad for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_the_same_seed_gives_the_same_curve(job_tiny: Any) -> None:
    curves = [range_test(job_tiny(pretrained=False), EVERYTHING, steps=15) for _ in range(2)]
    assert curves[0] == curves[1]


def test_learning_moves_what_the_phase_frees(job_tiny: Any) -> None:
    network = tiny_classifier()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learn(job_tiny(classifier=network), Phase(HEAD, 1, 0.01, "head"), steps=5)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"head.1.weight", "head.1.bias"}


def test_where_the_loss_does_not_fall_it_is_the_rate_before_it_rises() -> None:
    found = RangeTest("finetune", (0.01, 0.1, 1.0, 10.0), (1.0, 0.99, 1.1, 3.0))
    assert not found.learnt
    assert found.suggestion == pytest.approx(0.1)


@pytest.mark.parametrize(("lowest", "expected"), [(0.5, 0.1), (0.005, 0.0005)])
def test_fine_tuning_gets_at_most_a_tenth_of_the_heads_rate(lowest: float, expected: float) -> None:
    head = RangeTest(HEAD, (1.0, 10.0), (1.0, 0.5))
    tuned = RangeTest(FINETUNE, (1e-6, lowest), (1.0, 0.5))
    rates = suggestions([head, tuned])
    assert rates == {"--lr": 1.0, "--finetune-lr": pytest.approx(min(expected, lowest / 10))}
    assert rates["--finetune-lr"] <= HARD_FINETUNE_RATIO * rates["--lr"]
    Recipe.from_mapping({"train.lr": rates["--lr"], "train.finetune_lr": rates["--finetune-lr"]})


def test_the_command_draws_a_picture_and_keeps_nothing_else(
    make_photos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    photos = make_photos(images=12)
    words = ["--backbone", "small_cnn", "--image-size", "16", "--batch-size", "8", "--steps", "12"]
    assert main(["lr", str(photos), "--out", "rates.png", *words]) == 0
    said = capsys.readouterr().out
    assert "saccade train DATA --lr" in said
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "cache", "rates.png"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "rates.jpg"], "ends in .png"),
        (["--out", "rates.png", "--steps", "3"], "--steps must be at least 10"),
        (["--out", "rates.png", "--backbone", "auto"], "--backbone is auto"),
        (["--out", "rates.png", "--train.epochs", "3"], "--train.epochs has no effect on `saccade lr`"),
    ],
)
def test_what_it_cannot_do_is_said(words: list[str], said: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["lr", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err
