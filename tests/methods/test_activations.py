"""Activations at the freeze boundary: the same network, computed once."""

from __future__ import annotations

import math
import signal

import pytest
import timm
import torch
from torch import nn

from saccade.errors import Interrupted, RecipeError
from saccade.methods import METHODS, activations, phases_of
from saccade.methods.activations import KeptViews, Trunk, find_boundary, only_the_tail, tail_is_exact
from saccade.models.finetune import unfreeze
from saccade.models.network import Classifier
from saccade.recipe import Recipe
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, timeless, tiny_classifier
from saccade.training import Callback, StopRequest
from saccade.training.clock import Judging

RUNTIME = Runtime.create("cpu", "float32")


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    backbone = timm.create_model(name, pretrained=False, num_classes=0)
    for module in backbone.modules():  # statistics that are not those of an untouched network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    width = backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    found = Classifier(backbone, nn.Linear(width, 3)).eval()
    RUNTIME.place(found)
    return found


@pytest.mark.parametrize(
    ("name", "spec", "module"),
    [
        ("mobilenetv2_050", "2", "blocks.5"),
        ("mobilenetv2_050", "0.42", "blocks.3"),
        ("mobilenetv2_050", "layers:-1", ""),
        ("mobilenetv3_small_050", "0.3", "blocks.3"),
        ("resnet10t", "1", "layer3"),
        ("resnet18", "4", "bn1"),  # behind it a relu and a pooling that own no weights
        ("convnext_atto", "1", "stages.2"),
        ("test_vit", "1", "blocks.4"),  # tokens, to which positions are added before the first block
        ("vit_tiny_patch16_dinov3_qkvb", "2", "blocks.9"),  # turned by position in each block
        ("tiny_vit_5m_224", "1", "stages.2"),
    ],
)
def test_trunk_and_tail_are_the_network(name, spec, module):
    whole, images = network(name), torch.randn(2, 3, 64, 64)
    unfreeze(whole, spec)
    found = find_boundary(whole, RUNTIME.images(images))
    assert (found.module if found else "") == module
    if not found:
        return
    with torch.no_grad():
        expected = whole(images)
        activations = Trunk.of(whole, found, RUNTIME)(images)
        assert tuple(activations.shape[1:]) == found.shape
        with only_the_tail(whole, found):
            torch.testing.assert_close(whole(activations), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(whole(images), expected), "afterwards it takes images again"
    assert tail_is_exact(whole, found, RUNTIME, images)


def test_a_backbone_that_does_more_between_its_stages_is_found_out():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(c, c + 1, 3) for c in (3, 4, 5))

        def forward(self, images):
            early = self.first(images)
            return (self.third(self.second(early)) + early.mean()).mean((2, 3))

    torch.manual_seed(0)
    odd, images = Classifier(Skipping(), nn.Linear(6, 3)), torch.randn(2, 3, 16, 16)
    unfreeze(odd, "1")
    found = find_boundary(odd, images)
    assert found
    assert found.module == "second"
    assert not tail_is_exact(odd, found, RUNTIME, images)


def test_what_a_backbone_does_between_frozen_stages_is_no_hindrance():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(c, c + 1, 3) for c in (3, 4, 5))

        def forward(self, images):
            return self.third(self.second(self.first(images) * 2)).mean((2, 3))

    torch.manual_seed(0)
    odd, images = Classifier(Doubling(), nn.Linear(6, 3)), torch.randn(2, 3, 16, 16)
    unfreeze(odd, "1")
    found = find_boundary(odd, images)
    assert found
    assert found.module == "second"
    assert tail_is_exact(odd, found, RUNTIME, images)


def views_of(data: TinyData, *, reduced: bool = False) -> KeptViews:
    tiny = tiny_classifier()
    unfreeze(tiny, "1")
    found = find_boundary(tiny, torch.zeros(2, 3, 8, 8))
    assert found
    assert found.module == "first"
    return KeptViews(data, Trunk.of(tiny, found, RUNTIME), 3, 2, data.images, 5, reduced, StopRequest())


def by_path(batches) -> dict[str, torch.Tensor]:
    return {path: image for batch in batches for path, image in zip(batch.paths, batch.images, strict=True)}


def test_views_come_in_turn_in_an_order_of_their_own():
    views = views_of(TinyData(images=20))
    epochs = {epoch: list(views.epoch(epoch)) for epoch in (3, 4, 5, 6, 7)}
    assert [len(batch.paths) for batch in epochs[5]] == [8, 8, 4]
    assert len(views) == 3
    first, second, again = (by_path(epochs[epoch]) for epoch in (3, 4, 5))
    assert all(torch.equal(first[path], again[path]) for path in first)
    assert not any(torch.equal(first[path], second[path]) for path in first)
    orders = {tuple(path for batch in batches for path in batch.paths) for batches in epochs.values()}
    assert len(orders) == 5
    labels = {
        path: label
        for batch in epochs[7]
        for path, label in zip(batch.paths, batch.targets.tolist(), strict=True)
    }
    assert all(path.startswith(f"class{label}/") for path, label in labels.items())


@pytest.mark.parametrize("reduced", [False, True])
def test_a_run_that_continues_computes_the_same_views(reduced):
    data = TinyData(images=20)
    whole = views_of(data, reduced=reduced)
    expected = {epoch: list(whole.epoch(epoch)) for epoch in range(3, 8)}[7]
    later = views_of(data, reduced=reduced)
    next(later.epoch(3))  # a look at some images, as a timing takes it, keeps nothing
    for found, wanted in zip(later.epoch(7), expected, strict=True):
        assert found.paths == wanted.paths
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.targets, wanted.targets)


def test_ctrl_c_ends_also_the_computing_of_views_anew():
    views = views_of(TinyData(images=20))
    views.stop.set(signal.SIGINT)
    with pytest.raises(Interrupted):
        next(views.epoch(6))


class Stop(Callback):
    """Ends a training after some epochs, as a crash would."""

    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def on_step(self, progress) -> None:
        if progress.epoch == self.at:
            raise KeyboardInterrupt


def tail_recipe(recipe, **more) -> Recipe:
    return recipe(train__unfreeze="1", train__epochs=5, train__kept_views=2, **more)


def test_frozen_stages_do_not_move_and_figures_are_those_of_the_whole_network(fit_tiny, recipe):
    asked = tail_recipe(recipe, precision="float32", train__head_epochs=0)
    network, result = fit_tiny("kept", recipe=asked)
    before = tiny_classifier().backbone.first.state_dict()
    after = network.backbone.first.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert result.frozen[-1].kept
    assert result.frozen[-1].parameters > 0
    assert any("activations cached at the end of first, of 2 views" in note for note in result.notes)
    best = result.history[result.best.epoch - 1]
    with torch.no_grad():
        batches = list(TinyData().validation())
        logits = network.eval()(torch.cat([batch.images for batch in batches]))
    labels = torch.cat([batch.targets for batch in batches])
    loss = float(nn.functional.cross_entropy(logits, labels))
    assert math.isclose(loss, best.validation_loss, rel_tol=1e-5)


def test_the_first_views_teach_what_the_whole_network_would(fit_tiny, recipe):
    plain = {"precision": "float32", "train__head_epochs": 0, "train__unfreeze": "1", "train__epochs": 2}
    _, whole = fit_tiny("whole", recipe=recipe(**plain))
    _, kept = fit_tiny("kept", recipe=recipe(**plain, train__kept_views=2))
    for one, other in zip(whole.history, kept.history, strict=True):
        assert timeless(other)[3:] == pytest.approx(timeless(one)[3:], rel=1e-5)


@pytest.mark.parametrize("epoch", [4, 6, 7])
def test_stopped_and_continued_it_ends_bit_identical(fit_tiny, recipe, epoch):
    asked = tail_recipe(recipe)
    _, whole = fit_tiny("whole", recipe=asked)
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("stopped", recipe=asked, callbacks=[Stop(epoch)])
    _, continued = fit_tiny("stopped", recipe=asked)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [timeless(row) for row in continued.history] == [timeless(row) for row in whole.history]


def test_memory_bounds_the_views_and_a_continued_run_keeps_their_number(fit_tiny, recipe, monkeypatch):
    numbers = 4 * 8 * 8
    exact, view = 4 * 0 * numbers, 24 * 4 * numbers
    monkeypatch.setattr(activations, "MOST_BYTES", exact + view + 1)
    asked = tail_recipe(recipe, precision="float32")
    with pytest.raises(KeyboardInterrupt):
        fit_tiny("short", recipe=asked, callbacks=[Stop(4)])
    monkeypatch.undo()
    _, result = fit_tiny("short", recipe=asked)
    assert any("of 1 view of each" in note for note in result.notes)
    monkeypatch.setattr(activations, "MOST_BYTES", 10)
    _, result = fit_tiny("none", recipe=asked)
    assert any("do not fit into a quarter of the memory" in note for note in result.notes)


def test_under_a_limit_the_ending_is_measured_on_the_whole_network(job_tiny, recipe):
    job = job_tiny(recipe=tail_recipe(recipe, train__head_epochs=0), validation_images=12)
    clock = job.watch.clock
    clock.limit, clock.deadline, clock.ending_seconds = 600.0, clock.started + 400, 200.0
    clock.judging = Judging(images=10, validated=12, rest_seconds=20.0)
    METHODS[job.plan.method].train(job, None)
    assert 20.0 < clock.ending_seconds < 40.0
    assert clock.deadline > clock.started + 550, "what is not needed in the end is for training"


def test_where_images_are_mixed_nothing_is_kept(fit_tiny, recipe):
    _, result = fit_tiny("mixed", recipe=tail_recipe(recipe), mix_up=0.2)
    assert any("images are mixed in each step" in note for note in result.notes)


def test_methods_and_their_views():
    tail = Recipe().replaced(train__method="tail")
    assert (tail.train.unfreeze, tail.train.epochs, tail.kept_views) == ("0.42", 6, 4)
    _, (head, phase) = phases_of(tail)
    assert head.fitted
    assert phase.unfreeze == "0.42"
    assert phase.kept_views == 4
    assert phase.keep_statistics
    assert Recipe().replaced(train__method="tail", train__epochs=9).train.epochs == 9
    assert Recipe.from_toml(tail.to_toml()) == tail
    assert phases_of(Recipe().replaced(train__epochs=3))[1][-1].kept_views == 0
    for method in ("auto", "head", "full"):
        with pytest.raises(RecipeError, match=r"kept_views = 2 has no effect"):
            Recipe().replaced(train__method=method, train__kept_views=2)
    with pytest.raises(RecipeError, match="kept_views"):
        Recipe().replaced(train__method="tail", train__kept_views=-1)
