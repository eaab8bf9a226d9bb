"""Images that grow while a network learns: by the epoch alone, and never on the validation part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from saccade.errors import RecipeError
from saccade.testing.tiny import TinyBackbone, TinyData, tiny_classifier
from saccade.transforms.batches import Batch

SIDE = 96


class LargerData(TinyData):
    """`TinyData` at 96 pixels."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for images, targets, paths in super().epoch(epoch):
            yield Batch(torch.nn.functional.interpolate(images, SIDE), targets, paths)

    def validation(self) -> Iterator[Batch]:
        return LargerData(8, 8, seed=self.seed + 7).epoch(0)


class Watched(TinyBackbone):
    """Writes down the side of every batch: of training and of validation."""

    def __init__(self) -> None:
        super().__init__()
        self.learnt: list[int] = []
        self.judged: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (self.learnt if torch.is_grad_enabled() else self.judged).append(images.shape[-1])
        return super().forward(images)


def sides(fit_tiny, chosen, **options) -> tuple[list[int], list[int]]:
    network = tiny_classifier()
    network.backbone = Watched()
    fit_tiny(recipe=chosen, classifier=network, data=LargerData(8, 8), **options)
    return network.backbone.learnt, network.backbone.judged


def test_training_grows_with_the_epoch_and_validation_is_always_whole(fit_tiny, recipe):
    chosen = recipe(train__epochs=8, train__progressive_size=0.45, train__early_stopping=0)
    learnt, judged = sides(fit_tiny, chosen, pretrained=False)
    assert learnt == [32, 64, 64, 64, 64, 96, 96, 96]
    assert set(judged) == {SIDE}


def test_off_is_off_and_a_part_of_a_network_learns_at_full_size(fit_tiny, recipe):
    assert set(sides(fit_tiny, recipe(), pretrained=False)[0]) == {SIDE}
    chosen = recipe(train__progressive_size=0.4, train__unfreeze="1")
    network = tiny_classifier()
    network.backbone = Watched()
    fit_tiny("part", recipe=chosen, classifier=network, data=LargerData(8, 8))
    assert set(network.backbone.learnt) == {SIDE}


def test_a_network_that_takes_one_size_is_refused(recipe):
    import dataclasses

    from saccade.building import check_network
    from saccade.models import build_model

    network = build_model("small_cnn", 3, pretrained=False, image_size=64)

    class OneSize(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[-1] == 64, "one size only"
            return images.mean((2, 3))

    network.module.backbone = OneSize()
    check_network(network, recipe())
    with pytest.raises(RecipeError, match=r"progressive_size = 0\.5: .* does not take images of 32 x 32"):
        check_network(dataclasses.replace(network), recipe(train__progressive_size=0.5))
