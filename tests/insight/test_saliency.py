"""Grad-CAM against gradients taken by hand, on networks of every shape; and that weights matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saccade.insight.grad_cam import find_layer, grad_cam, rank_correlations, shuffled
from saccade.insight.saliency import saliency
from saccade.models.network import Classifier
from saccade.testing.tiny import tiny_classifier

SMALL_SWIN = {"depths": (1, 1), "embed_dim": 24, "num_heads": (2, 2)}


def images(count: int, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_maps_are_the_mean_gradients_times_the_outputs_of_the_last_maps() -> None:
    network = tiny_classifier().train()
    inputs, classes = images(9), torch.arange(9) % 3
    layer = find_layer(network, inputs[:1])
    assert layer is not None
    assert (layer.name, layer.order, layer.grid) == ("second", "NCHW", (16, 16))
    found = grad_cam(network, layer, inputs, classes)
    assert network.training, "every part's own mode comes back"
    assert all(weights.requires_grad and weights.grad is None for weights in network.parameters())
    network.eval()
    backbone: Any = network.backbone
    for i in range(9):  # one image at a time, without hooks
        outputs = backbone.second(backbone.first(inputs[i : i + 1])).detach().requires_grad_()
        (slopes,) = torch.autograd.grad(network.head(outputs.mean(dim=(2, 3)))[0, classes[i]], outputs)
        by_hand = sum(slopes[0, c].mean() * outputs[0, c] for c in range(6)).clamp(min=0)
        np.testing.assert_allclose(found[i], by_hand.detach().numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "options", "layer", "order"),
    [
        ("test_efficientnet", {}, "bn2", "NCHW"),
        ("test_vit", {}, "blocks.5.norm1", "tokens"),
        ("test_vit", {"global_pool": "avg"}, "norm", "tokens"),
        ("swin_tiny_patch4_window7_224", SMALL_SWIN, "norm", "NHWC"),
        ("mobilenetv3_small_050", {}, "blocks", "NCHW"),
    ],
)  # fmt: skip
def test_the_layer_is_the_last_that_keeps_places(
    name: str, options: dict[str, Any], layer: str, order: str
) -> None:
    import timm

    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    side = backbone.pretrained_cfg["input_size"][-1]
    with torch.no_grad():
        width = backbone(torch.zeros(1, 3, side, side)).shape[1]
    network = Classifier(backbone, nn.Linear(width, 3)).eval()
    found = find_layer(network, images(1, side))
    assert found is not None
    assert (found.name, found.order) == (layer, order)
    maps = grad_cam(network, found, images(2, side), torch.tensor([0, 1]))
    assert maps.shape == (2, *found.grid)
    assert maps.max() > 0


class Flat(nn.Module):
    """No map of places anywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_a_network_without_places_has_no_layer() -> None:
    assert find_layer(Classifier(Flat(), nn.Linear(3 * 16 * 16, 3)), images(1)) is None


def test_other_weights_give_other_maps_and_the_network_stays() -> None:
    network = tiny_classifier().eval()
    before = [weights.clone() for weights in network.parameters()]
    other = shuffled(network, 0)
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    for one, two in zip(before, other.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)
    inputs, classes = images(8), torch.arange(8) % 3
    layer = find_layer(network, inputs[:1])
    assert layer is not None
    same, apart = (grad_cam(each, layer, inputs, classes) for each in (network, other))
    assert rank_correlations(same, same) == pytest.approx(1)
    assert rank_correlations(same, apart).mean() < 0.9


def test_a_map_for_each_mistake_and_some_right_answers(make_material: Callable[..., Any]) -> None:
    answers = ["checker", "checker", "bar", "bar", "checker", "disc", "bar", "checker", "disc"]
    material = make_material(np.zeros((12, 4)), answers, network=tiny_classifier())
    found = saliency(material)
    assert found is not None
    maps = found["maps"]
    assert (found["layer"], found["grid"], len(maps)) == ("second", [16, 16], 5)
    assert [one["label"] == one["predicted"] for one in maps] == [False, False, True, True, True]
    assert maps[0]["confidence"] > maps[1]["confidence"]
    for one in maps:
        rows = np.array(one["rows"])
        assert rows.shape == (16, 16)
        assert (rows.min() >= 0, rows.max()) in ((True, 1.0), (True, 0.0))
        assert one["seen"] == [0.0, 0.0, 1.0, 1.0]
    assert found["sanity"] is None, "too few maps"


def test_networks_that_cannot_be_looked_into_are_said(make_material: Callable[..., Any]) -> None:
    answers = ["checker", "checker", "bar"]
    several = saliency(make_material(np.zeros((6, 4)), answers, network=nn.Identity()))
    assert several == {"left_out": "the model is several networks"}
    flat = Classifier(Flat(), nn.Linear(3 * 16 * 16, 3))
    found = saliency(make_material(np.zeros((6, 4)), answers, network=flat))
    assert (found or {})["left_out"].startswith("no layer of this network")


def test_answers_of_the_models_of_folds_are_not_explained_by_another_model(
    make_material: Callable[..., Any],
) -> None:
    material = make_material(np.zeros((6, 4)), ["checker", "checker", "bar"], network=tiny_classifier())
    run = material.run
    run.write_predictions("folds", run.read_predictions("validation"))
    run.metrics("validation").rename(run.metrics("folds"))
    found = saliency(material) or {}
    assert found["left_out"].startswith("each answer is that of the model of one fold")
