"""The equal average of the last epochs (SWA), against torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from saccade.errors import Interrupted
from saccade.models import Classifier
from saccade.recipe import Recipe
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training import Callback, StopRequest
from saccade.transforms.batches import Batch

Weights = dict[str, torch.Tensor]


class EpochEnds(TinyData):
    """Keeps the raw weights at the end of each epoch: a refresh of statistics asks for an epoch again."""

    network: Classifier
    ends: dict[int, Weights]

    @classmethod
    def of(cls, network: Classifier) -> EpochEnds:
        data = cls()
        object.__setattr__(data, "network", network)
        object.__setattr__(data, "ends", {})
        return data

    def epoch(self, epoch: int) -> Iterator[Batch]:
        yield from super().epoch(epoch)
        weights = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.ends.setdefault(epoch, weights)


class Kept(Callback):
    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def on_epoch_end(self, state: Any, row: Any) -> None:
        self.weights.append(state.weights())


def chosen(**options: Any) -> Recipe:
    return Recipe().replaced(
        train__epochs=5,
        train__batch_size=8,
        train__lr=0.02,
        train__schedule="constant",
        train__warmup_epochs=0.0,
        model__pretrained=False,
        **{"train__swa_epochs": 3, **options},
    )


def test_it_is_torchs_with_statistics_made_again(fit_tiny: Any) -> None:
    network, kept = tiny_classifier(), Kept()
    network.head[0].p = 0.0  # dropout is drawn otherwise here and there
    data = EpochEnds.of(network)
    fit_tiny(recipe=chosen(), data=data, classifier=network, pretrained=False, callbacks=(kept,))
    averaged = torch.optim.swa_utils.AveragedModel(tiny_classifier())
    for epoch in (3, 4, 5):
        source = tiny_classifier()
        source.load_state_dict(data.ends[epoch])
        averaged.update_parameters(source)
    averaged.module.head[0].p = 0.0
    torch.optim.swa_utils.update_bn((batch.images for batch in TinyData().epoch(5)), averaged)
    for name, tensor in averaged.module.state_dict().items():
        torch.testing.assert_close(kept.weights[-1][name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_before_the_last_epochs_it_is_the_network_itself_which_trains_on_as_without(fit_tiny: Any) -> None:
    ends, kept = {}, Kept()
    for epochs in (0, 3):
        network = tiny_classifier()
        data = EpochEnds.of(network)
        callbacks = (kept,) if epochs else ()
        recipe = chosen(train__swa_epochs=epochs)
        fit_tiny(
            str(epochs), recipe=recipe, data=data, classifier=network, pretrained=False, callbacks=callbacks
        )
        ends[epochs] = data.ends
    floating = [name for name, tensor in kept.weights[0].items() if tensor.is_floating_point()]
    for epoch in range(1, 6):
        assert all(torch.equal(ends[0][epoch][name], ends[3][epoch][name]) for name in floating)
        same = all(torch.equal(ends[3][epoch][name], kept.weights[epoch - 1][name]) for name in floating)
        assert same == (epoch <= 3)


class StopAt(Callback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.left = stop, step

    def on_step(self, progress: Any) -> None:
        self.left -= 1
        if not self.left:
            self.stop.set(15)


@pytest.mark.parametrize("step", [8, 11, 14])
def test_stopped_anywhere_it_ends_bit_identical(fit_tiny: Any, step: int) -> None:
    _, whole = fit_tiny("whole", recipe=chosen(), pretrained=False)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny(recipe=chosen(), pretrained=False, stop=stop, callbacks=(StopAt(stop, step),))
    _, continued = fit_tiny(recipe=chosen(), pretrained=False)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [*map(timeless, continued.history)] == [*map(timeless, whole.history)]


def test_fine_tuning_has_it_too_and_no_moving_average_beside_it(fit_tiny: Any, recipe: Any) -> None:
    swa = recipe(train__swa_epochs=2, train__ema_decay=0.5, train__unfreeze="1")
    _, result = fit_tiny("swa", recipe=swa)
    _, without = fit_tiny("plain", recipe=recipe(train__unfreeze="1"))
    rows, plain = result.history, without.history
    assert [timeless(row) for row in rows[:4]] == [timeless(row) for row in plain[:4]]
    assert timeless(rows[4]) != timeless(plain[4])
    assert rows[4].train_loss == plain[4].train_loss


def test_statistics_are_made_with_as_many_images_at_once_as_a_step_has(
    fit_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(
        torch.optim.swa_utils, "update_bn", lambda images, network: sizes.extend(map(len, images))
    )
    recipe = chosen(train__swa_epochs=3).replaced(train__batch_size=4, train__accumulate=2)
    fit_tiny(recipe=recipe, classifier=tiny_classifier(), pretrained=False)
    assert sizes
    assert max(sizes) == 4, "a step has two batches of 4"
