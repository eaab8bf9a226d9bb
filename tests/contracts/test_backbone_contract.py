"""The contract of backbones holds for ours, and breaks for what breaks it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.models import BACKBONES
from saccade.testing import check_backbone


def test_there_is_something_to_check():
    assert list(BACKBONES) == ["small_cnn", "fast_cnn"]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_every_backbone_keeps_the_contract(name, head):
    check_backbone(BACKBONES[name], image_size=16, export=False, head=head)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_exports(name):
    check_backbone(BACKBONES[name], image_size=16)


def network(classes: int, *extra: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes), *extra
    )


def with_idle_layer(classes: int, *, weights: str) -> nn.Module:
    built = network(classes)
    built[0].idle = nn.Parameter(torch.zeros(1))
    return built


class Forgetful(nn.Module):
    """Its answer depends on something that its state does not hold."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = network(classes)
        self.secret = torch.rand(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images) * self.secret


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda classes, *, weights: network(classes + 1), r"instead of \(4, 3\)"),
        (with_idle_layer, "no finite gradient reaches 0.idle"),
        (lambda classes, *, weights: Forgetful(classes), "answers differently"),
        (
            lambda classes, *, weights: network(7, nn.Linear(7, classes, bias=False), nn.ReLU())[:4],
            "instead of",
        ),
    ],
)
def test_what_breaks_the_contract_is_found(build, words):
    with pytest.raises(AssertionError, match=words):
        check_backbone(build, export=False)


def test_a_network_that_gives_a_dictionary_is_told_so() -> None:
    class Named(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": images.mean((2, 3))}

    with pytest.raises(AssertionError, match="gives a dict, not a tensor of logits"):
        check_backbone(lambda classes: Named())
