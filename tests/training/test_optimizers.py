"""Optimizers: each is torch's or timm's, learns at its own rate, and goes on bit for bit after a stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.errors import Interrupted, RecipeError, TrainingError
from saccade.plan import OptimizerPlan
from saccade.recipe import RATES, WITH_MOMENTUM, Recipe
from saccade.recipe.optimizers import OWN, REFUSED
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training import Callback, StopRequest
from saccade.training.optimizer_state import flatten_optimizer
from saccade.training.optimizers import MOMENTS, MOST_MOMENTS, build_optimizer

timm_optim = pytest.importorskip("timm.optim")

DOZEN = ("adam", "sgd", "rmsprop", "muon", "lamb", "lion")
DOZEN += ("nadamw", "radam", "adan", "lars", "adafactorbv", "timm/muon")
OTHERS = sorted(RATES.keys() - set(DOZEN))


def gradients(network: Any, step: int) -> None:
    """The same for the same step, whatever the optimizer did before."""
    generator = torch.Generator().manual_seed(step)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def stepped(make: Callable[[Any], torch.optim.Optimizer], rates: list[float]) -> dict[str, Tensor]:
    network = tiny_classifier()
    optimizer = make(network)
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradients(network, step)
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", lambda groups: torch.optim.Adam(groups, lr=0.1)),
        ("adamw", lambda groups: torch.optim.AdamW(groups, lr=0.1)),
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True)),
        ("rmsprop", lambda groups: torch.optim.RMSprop(groups, lr=0.1, alpha=0.9, momentum=0.8)),
        ("nadam", lambda groups: torch.optim.NAdam(groups, lr=0.1)),
        ("adamax", lambda groups: torch.optim.Adamax(groups, lr=0.1)),
        ("adadelta", lambda groups: torch.optim.Adadelta(groups, lr=0.1)),
        ("lamb", lambda groups: timm_optim.Lamb(groups, lr=0.1)),
        ("lion", lambda groups: timm_optim.Lion(groups, lr=0.1)),
        ("nadamw", lambda groups: timm_optim.NAdamW(groups, lr=0.1)),
    ],
)
def test_it_is_the_librarys_own(name: str, reference: Callable[[Any], torch.optim.Optimizer]) -> None:
    plan = OptimizerPlan(name, momentum=0.8, weight_decay=0.05)

    def by_hand(network: Any) -> torch.optim.Optimizer:
        wide = [p for p in network.parameters() if p.ndim > 1]
        flat = [p for p in network.parameters() if p.ndim == 1]
        return reference([{"params": wide, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}])

    rates = [0.1, 0.05, 0.02, 0.01]
    ours = stepped(lambda network: build_optimizer(network, 0.1, plan), rates)
    theirs = stepped(by_hand, rates)
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], atol=1e-6, rtol=1e-5, msg=key)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class StopAt(Callback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.left = stop, step

    def on_step(self, progress: Any) -> None:
        self.left -= 1
        if not self.left:
            self.stop.set(15)


def resumes(name: str, fit_tiny: Callable[..., Any], recipe: Callable[..., Any]) -> None:
    chosen = Recipe().replaced(
        train__optimizer=name, train__epochs=4, train__batch_size=8, model__pretrained=False, seed=2
    )
    _, whole = fit_tiny("whole", recipe=chosen, pretrained=False)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny(recipe=chosen, pretrained=False, stop=stop, callbacks=(StopAt(stop, 8),))
    _, continued = fit_tiny(recipe=chosen, pretrained=False)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [*map(timeless, continued.history)] == [*map(timeless, whole.history)]
    assert all(entry.exact for entry in continued.continued)
    assert continued.continued


@pytest.mark.parametrize("name", DOZEN)
def test_a_stopped_training_goes_on_bit_for_bit(name: str, fit_tiny: Any, recipe: Any) -> None:
    resumes(name, fit_tiny, recipe)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_so_does_every_other(name: str, fit_tiny: Any, recipe: Any) -> None:
    resumes(name, fit_tiny, recipe)


def learns(name: str) -> None:
    network = tiny_classifier()
    optimizer = build_optimizer(network, RATES[name].scratch, OptimizerPlan(name))
    images, labels, _ = next(iter(TinyData(images=24, batch_size=24).epoch(1)))
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-9:]) < 0.98 * sum(losses[:9]), f"{RATES[name]}: {losses[::10]}"


@pytest.mark.parametrize("name", DOZEN)
def test_it_learns_at_its_own_rate(name: str) -> None:
    learns(name)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_learns_at_its_own_rate(name: str) -> None:
    learns(name)


def test_every_optimizer_of_timm_is_known_or_refused_by_name() -> None:
    for name in timm_optim.list_optimizers():
        spelled = f"timm/{name}" if name in OWN else name
        assert name in RATES or spelled in RATES or name.startswith(tuple(REFUSED)), name


def test_those_with_a_momentum_are_timms() -> None:
    with_momentum = {
        name
        for name in RATES
        if timm_optim.get_optimizer_info(name.removeprefix("timm/")).has_momentum and name not in OWN
    }
    assert with_momentum | {"sgd", "rmsprop", "muon"} == WITH_MOMENTUM


@pytest.mark.parametrize("name", DOZEN)
def test_space_is_asked_for_what_it_remembers(name: str) -> None:
    network = tiny_classifier()
    optimizer = build_optimizer(network, 0.01, OptimizerPlan(name))
    gradients(network, 0)
    optimizer.step()
    tensors, _ = flatten_optimizer(optimizer)
    size = sum(tensor.nbytes for tensor in tensors.values())
    weights = sum(parameter.nbytes for parameter in network.parameters())
    assert size <= (MOMENTS.get(name, MOST_MOMENTS) + 0.2) * weights


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm/lambb", "did you mean 'lamb'?"),
        ("admw", "did you mean 'adamw'?"),
        ("kron", "could not go on"),
        ("lookahead_adam", "could not go on"),
        ("timm/bnbadam", "GPUs"),
        ("adahessian", "second derivatives"),
        ("gradient descent", "usual are"),
    ],
)
def test_a_name_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe.from_mapping({"train.optimizer": text})
    assert said in str(refused.value) + refused.value.hint


def test_names_are_spelled_one_way() -> None:
    spelled = {
        text: Recipe.from_mapping({"train.optimizer": text}).train.optimizer
        for text in ("timm/lamb", "Lamb", "timm/adamw", "timm/muon", "muon", "timm/rmsprop")
    }
    assert [*spelled.values()] == ["lamb", "lamb", "adamw", "timm/muon", "muon", "rmsprop"]


@pytest.mark.parametrize("name", sorted(RATES))
def test_fine_tuning_is_gentle_with_every_optimizer(name: str) -> None:
    recipe = Recipe.from_mapping({"train.optimizer": name})
    assert 0 < recipe.finetune_learning_rate <= 0.1 * recipe.learning_rate * (1 + 1e-9)
    with pytest.raises(RecipeError, match="finetune_lr"):
        Recipe.from_mapping({"train.optimizer": name, "train.finetune_lr": 0.5 * recipe.learning_rate})


def test_a_state_that_is_no_tensor_is_refused() -> None:
    network = tiny_classifier()
    optimizer = build_optimizer(network, 0.01, OptimizerPlan("adamw"))
    gradients(network, 0)
    optimizer.step()
    optimizer.state[next(network.parameters())]["Q"] = [torch.zeros(2)]
    with pytest.raises(TrainingError, match="keeps 0/Q"):
        flatten_optimizer(optimizer)


def test_what_a_group_remembers_is_kept() -> None:
    network = tiny_classifier()
    optimizer = build_optimizer(network, 0.01, OptimizerPlan("lamb"))
    gradients(network, 0)
    optimizer.step()
    tensors, _ = flatten_optimizer(optimizer)
    assert tensors["group/0/step"] == 1
