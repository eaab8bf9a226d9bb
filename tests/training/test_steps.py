"""What a step is made of: batches summed up, gradients kept short, rates by stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from saccade.models import Classifier, rate_scales
from saccade.plan import OptimizerPlan
from saccade.recipe import Recipe
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training.clipping import CLIPS
from saccade.training.optimizers import build_optimizer


def without_batch_norm() -> Classifier:
    network = tiny_classifier()
    for block in (network.backbone.first, network.backbone.second):
        block[1] = nn.GroupNorm(2, block[1].num_features)
    network.head[0].p = 0.0
    return network


def chosen(**options: Any) -> Recipe:
    return Recipe().replaced(
        train__epochs=3, train__batch_size=8, train__lr=0.02, model__pretrained=False, **options
    )


def test_batches_summed_up_are_the_large_batch(fit_tiny: Any) -> None:
    results = {}
    for accumulate in (1, 3):
        network = without_batch_norm()
        recipe = chosen(train__accumulate=accumulate)
        data = TinyData(images=48, batch_size=24)
        _, result = fit_tiny(str(accumulate), recipe=recipe, data=data, classifier=network, pretrained=False)
        results[accumulate] = network, result
    for name, tensor in results[3][0].state_dict().items():
        torch.testing.assert_close(tensor, results[1][0].state_dict()[name], atol=1e-6, rtol=1e-4, msg=name)
    assert not results[3][1].notes, "memory was not too small"
    assert [row.lr for row in results[3][1].history] == [row.lr for row in results[1][1].history]


def test_batch_norm_sees_the_batches(fit_tiny: Any) -> None:
    losses = []
    for accumulate in (1, 3):
        data = TinyData(images=48, batch_size=24)
        recipe = chosen(train__accumulate=accumulate)
        losses.append([*map(timeless, fit_tiny(str(accumulate), recipe=recipe, data=data)[1].history)])
    assert losses[0] != losses[1]


def test_a_step_asks_for_all_its_images_at_once() -> None:
    from saccade.methods import plan_training

    plan = plan_training(chosen(train__accumulate=4))
    assert (plan.images_a_step, plan.planned_micro_batch) == (32, 8)
    assert plan_training(chosen()).planned_micro_batch == 0


def clipped(kind: str, limit: float) -> tuple[Classifier, Classifier]:
    """A network whose gradient was shortened, and one with the same gradient as it was."""
    from types import SimpleNamespace

    networks = []
    for clip in (True, False):
        network, runtime = tiny_classifier(), Runtime.create("cpu")
        optimizer = build_optimizer(network, 0.1, OptimizerPlan("sgd"))
        forward, stepper = runtime.setup(network, optimizer)
        images, labels, _ = next(iter(TinyData().epoch(1)))
        torch.manual_seed(0)
        runtime.backward(nn.functional.cross_entropy(forward(images), labels))
        learner: Any = SimpleNamespace(runtime=runtime, forward=forward, stepper=stepper, classifier=network)
        if clip:
            CLIPS[kind](learner, limit)
        networks.append(network)
    return networks[0], networks[1]


def gradient(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_by_norm_and_by_value_are_torchs() -> None:
    short, long = clipped("norm", 0.05)
    torch.nn.utils.clip_grad_norm_(long.parameters(), 0.05)
    torch.testing.assert_close(gradient(short), gradient(long))
    short, long = clipped("value", 0.01)
    torch.nn.utils.clip_grad_value_(long.parameters(), 0.01)
    torch.testing.assert_close(gradient(short), gradient(long))
    assert gradient(short).abs().max() == pytest.approx(0.01)


def test_by_the_length_of_the_weights_filter_by_filter() -> None:
    short, long = clipped("agc", 0.01)
    assert torch.equal(short.head[1].weight.grad, long.head[1].weight.grad)
    ours, before = short.backbone.second[0], long.backbone.second[0]
    for weights, was, now in zip(ours.weight, before.weight.grad, ours.weight.grad, strict=True):
        most = 0.01 * max(float(weights.detach().norm()), 1e-3)
        expected = was * min(1.0, most / max(float(was.norm()), 1e-6))
        torch.testing.assert_close(now, expected, atol=1e-8, rtol=1e-5)


def test_each_stage_has_a_share_of_the_rate_and_steps_by_it() -> None:
    network = tiny_classifier()
    scales = rate_scales(network, 0.5)
    assert {name.rpartition(".")[0]: scale for name, scale in scales.items()} == {
        "backbone.first.0": 0.25,
        "backbone.first.1": 0.25,
        "backbone.second.0": 0.5,
        "backbone.second.1": 0.5,
        "head.1": 1.0,
    }
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = build_optimizer(network, 0.1, OptimizerPlan("sgd", momentum=0.0, layer_decay=0.5))
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.1 * scales[name]), msg=name)


def test_the_rates_of_a_transformer_are_timms() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    backbone = timm.create_model("test_vit", num_classes=0)
    ours = rate_scales(Classifier(backbone, nn.Linear(backbone.num_features, 3)), 0.75)
    whole = timm.create_model("test_vit", num_classes=3)
    names = {id(p): f"backbone.{name}" for name, p in whole.named_parameters()}
    groups = param_groups_layer_decay(whole, layer_decay=0.75)
    theirs = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(theirs) > 50
    for name, scale in theirs.items():
        assert ours.get(name, 1.0) == pytest.approx(scale), name  # the head is timm's own there


def test_layer_decay_1_is_as_before() -> None:
    groups = build_optimizer(tiny_classifier(), 0.1, OptimizerPlan("adamw", weight_decay=0.1)).param_groups
    assert [("lr_scale" in group, group["weight_decay"]) for group in groups] == [(False, 0.1), (False, 0.0)]


@pytest.mark.parametrize("name", ["adamw", "muon", "lion"])
def test_rates_by_stage_go_with_every_optimizer(name: str, fit_tiny: Any) -> None:
    hashes = {
        fit_tiny(
            str(decay), recipe=chosen(train__optimizer=name, train__layer_decay=decay), pretrained=False
        )[1].weights_sha256
        for decay in (1.0, 0.5)
    }
    assert len(hashes) == 2
