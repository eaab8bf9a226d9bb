"""NaN and infinite losses and gradients: nothing is learnt from one, and what the step had is kept."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor, nn

from saccade.bundle import tensors_from_bytes
from saccade.errors import Interrupted, NotFiniteError, RunError
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.testing.tiny import TinyBackbone, TinyData, tiny_classifier
from saccade.training import Callback, StopRequest, loss_watch, not_finite
from saccade.training.cpu.depthwise import fast_depthwise_backward
from saccade.training.loss_watch import LossWatch, all_finite
from saccade.training.replay import read_step, replay
from saccade.training.state import Checkpoints, Switch

SPOILT = "class2/011.png"


@dataclasses.dataclass(frozen=True)
class Spoilt(TinyData):
    """In epoch 3 one value of one image is NaN."""

    def pixels(self, epoch: int) -> Tensor:
        images = super().pixels(epoch)
        if epoch == 3:
            images[11, 0, 0, 0] = torch.nan
        return images


ONE_STEP = Spoilt(12, batch_size=12)  # an epoch


@dataclasses.dataclass(frozen=True)
class Marked(TinyData):
    """In epoch 2 one image has a value that no other has."""

    def pixels(self, epoch: int) -> Tensor:
        images = super().pixels(epoch)
        if epoch == 2:
            images[11, 0, 0, 0] = 100
        return images


class Touchy(TinyBackbone):
    """NaN for a marked image, where it computes in bfloat16."""

    def forward(self, images: Tensor) -> Tensor:
        features = super().forward(images)
        return features * torch.nan if torch.is_autocast_enabled("cpu") and images.max() > 50 else features


def touchy():
    network = tiny_classifier()
    network.backbone.__class__ = Touchy
    return network


class Exploding(nn.Module):
    """A head whose gradient is infinite although its loss is not."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return self.dense(features) * (1 + self.scale.sqrt())


def exploding():
    network = tiny_classifier()
    torch.manual_seed(0)
    network.head = Exploding()
    return network


# -- again in float32 --------------------------------------------------------------------------------


def test_a_step_that_bfloat16_spoils_is_taken_again_in_float32_and_the_phase_goes_on(fit_tiny, recipe):
    chosen, data = recipe(precision="bfloat16"), Marked()
    step = next(3 + i for i, batch in enumerate(data.epoch(2)) if SPOILT in batch.paths)
    _, result = fit_tiny(recipe=chosen, classifier=touchy(), data=data, pretrained=False)
    assert result.switches == (Switch("main", 2, step),)
    assert len(result.history) == 3
    assert [note for note in result.notes if "finite in float32, and the phase went on in float32" in note]
    _, untouched = fit_tiny("untouched", recipe=chosen, data=data, pretrained=False)
    assert untouched.switches == ()
    assert untouched.history[0] == dataclasses.replace(
        result.history[0], seconds=untouched.history[0].seconds
    ), "until then it is the same training"
    assert untouched.weights_sha256 != result.weights_sha256, "then it computes in float32"


class StopAt(Callback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.left = stop, step

    def on_step(self, progress) -> None:
        self.left -= 1
        if not self.left:
            self.stop.set(15)


@pytest.mark.parametrize("step", [4, 5, 6, 8])  # before the switch and after it
def test_a_run_that_went_on_in_float32_continues_bit_for_bit(fit_tiny, recipe, step):
    options = {"recipe": recipe(precision="bfloat16"), "data": Marked(), "pretrained": False}
    _, whole = fit_tiny("whole", classifier=touchy(), **options)
    stop = StopRequest()
    with pytest.raises(Interrupted):
        fit_tiny(classifier=touchy(), stop=stop, callbacks=(StopAt(stop, step),), **options)
    _, continued = fit_tiny(classifier=touchy(), **options)
    assert continued.weights_sha256 == whole.weights_sha256
    assert continued.switches == whole.switches != ()


def test_what_float32_cannot_mend_is_said(fit_tiny, recipe):
    with pytest.raises(NotFiniteError, match=rf"{SPOILT}.*; in bfloat16, and again in float32"):
        fit_tiny(recipe=recipe(precision="bfloat16"), data=Spoilt(), pretrained=False)


# -- what the step had -------------------------------------------------------------------------------


def test_what_a_step_had_is_kept_and_its_layer_found(fit_tiny, recipe, tmp_path):
    with pytest.raises(NotFiniteError, match=rf"{SPOILT}.*\n.*debug/nan: `saccade replay .*/run` says which"):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    run = RunFolder(tmp_path / "run")
    assert sorted(path.name for path in run.not_finite.iterdir()) == [
        *("README.md", "batch.safetensors", "state.safetensors", "step.json")
    ]
    assert [path.name for path in run.not_finite.parent.iterdir()] == ["nan"], "nothing is left beside it"
    step = read_step(run.not_finite)
    assert (step.facts["epoch"], step.facts["step"], len(step.paths)) == (3, 2, 12)
    assert [path for path, image in zip(step.paths, step.images, strict=True) if image.isnan().any()] == [
        SPOILT
    ]
    found = replay(step, tiny_classifier(), Runtime.create("cpu"))
    assert found.images == [SPOILT]
    assert (found.layer, found.layer_images) == ("backbone.first.0 (Conv2d)", [SPOILT])
    assert found.again
    assert len(found.loss) == 12, "BatchNorm spreads it"
    assert found.weights == []


def test_what_is_kept_are_weights_statistics_and_optimizer_before_the_step(fit_tiny, recipe, tmp_path):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    run = RunFolder(tmp_path / "run")
    last, _ = Checkpoints(run.checkpoints).latest()
    step = read_step(run.not_finite)
    assert last.state.epoch == 2
    assert any("running_mean" in name for name in step.weights)
    for name, tensor in {**last.weights, **last.raw}.items():
        assert torch.equal(step.weights[name], tensor), name
    kept = tensors_from_bytes((run.not_finite / "state.safetensors").read_bytes(), where="state")
    for name, tensor in last.optimizer.items():
        assert torch.equal(kept[f"optimizer/{name}"], tensor), name


def test_a_step_is_taken_again_with_the_same_random_numbers(fit_tiny, recipe, tmp_path):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    step = read_step(RunFolder(tmp_path / "run").not_finite)
    clean = dataclasses.replace(step, images=step.images.nan_to_num())
    network = tiny_classifier()
    assert not replay(clean, network, Runtime.create("cpu")).again
    first = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    torch.rand(7)
    replay(clean, network, Runtime.create("cpu"))
    assert all(torch.equal(a, p.grad) for a, p in zip(first, network.parameters(), strict=True))


def test_an_infinite_gradient_changes_no_weight_and_names_its_own_batch(fit_tiny, tmp_path, recipe):
    network, data = exploding(), TinyData(8, batch_size=8)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    with pytest.raises(NotFiniteError, match=r"the gradient is NaN or infinite in epoch 1 .*class0/000\.png"):
        fit_tiny(classifier=network, data=data, recipe=recipe(), pretrained=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
    found = replay(read_step(RunFolder(tmp_path / "run").not_finite), exploding(), Runtime.create("cpu"))
    assert (found.layer, found.gradients) == ("", ["head.scale"])
    assert found.again


def test_a_step_that_cannot_be_kept_leaves_the_error_what_it_is(fit_tiny, recipe, monkeypatch, tmp_path):
    def full(path, data):
        raise RunError(f"{path.name} cannot be written (No space left on device)")

    monkeypatch.setattr(not_finite, "write_bytes", full)
    with pytest.raises(NotFiniteError, match=rf"{SPOILT}(?s:.*)could not be kept to look at \(batch"):
        fit_tiny(recipe=recipe(), data=Spoilt(), pretrained=False)
    assert not (tmp_path / "run" / "debug" / "nan").exists()


def test_a_damaged_or_absent_step_is_refused_by_name(fit_tiny, recipe, tmp_path):
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=r"nan holds no step to take again\nhint: give a run that stopped"):
        run.kept_step()
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=Spoilt(), pretrained=False)
    facts = run.not_finite / "step.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "seed": "1"}))
    with pytest.raises(RunError, match=r"step\.json is damaged \(seed\)"):
        read_step(run.not_finite)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"side": 10**9}, r"step\.json is damaged \(side\)"),
        ({"channels": -1}, r"step\.json is damaged \(channels\)"),
        ({"loss": {"name": "hinge"}}, r"step\.json is damaged \(loss\)"),
        ({"phase": {"name": "other"}}, r"step\.json is damaged \(phase\)"),
        ({"paths": ["a.png"]}, r"step\.json is damaged \(12 images, 12 targets, 1 paths\)"),
    ],
)
def test_a_step_that_none_of_ours_could_be_is_refused(fit_tiny, recipe, tmp_path, changed, problem):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    facts = RunFolder(tmp_path / "run").not_finite / "step.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), **changed}))
    with pytest.raises(RunError, match=problem):
        read_step(facts.parent)


@pytest.mark.parametrize("name", ["batch.safetensors", "state.safetensors"])
def test_one_flipped_bit_in_what_a_step_had_is_seen(fit_tiny, recipe, tmp_path, name):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    file = RunFolder(tmp_path / "run").not_finite / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match=rf"{name} is damaged .*SHA-256.*\nhint: train again"):
        read_step(file.parent)


@pytest.mark.parametrize("part", ["images", "targets"])
def test_a_step_that_does_not_fit_its_network_is_refused_in_words(fit_tiny, recipe, tmp_path, part):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    step = read_step(RunFolder(tmp_path / "run").not_finite)
    foreign = dataclasses.replace(step, **{part: getattr(step, part)[:, :2]})
    with pytest.raises(RunError, match="the step does not fit the network it names"):
        replay(foreign, tiny_classifier(), Runtime.create("cpu"))


def test_a_step_is_taken_again_with_the_backward_of_training(fit_tiny, recipe, tmp_path, monkeypatch):
    with pytest.raises(NotFiniteError):
        fit_tiny(recipe=recipe(), data=ONE_STEP, pretrained=False)
    network, asked = tiny_classifier(), []

    def noted(module):
        asked.append(module)
        return fast_depthwise_backward(module)

    monkeypatch.setattr("saccade.training.replay.fast_depthwise_backward", noted)
    replay(read_step(RunFolder(tmp_path / "run").not_finite), network, Runtime.create("cpu"))
    assert asked == [network]


# -- the watch ---------------------------------------------------------------------------------------


class OnAGpu(Tensor):
    """Losses that are read only when they are asked for."""

    @property
    def device(self):
        return torch.device("cuda")


def test_a_gpus_losses_are_read_before_the_weights_change_and_its_gradient_is_not(monkeypatch):
    asked = []
    monkeypatch.setattr(loss_watch, "_on_its_way", lambda number: lambda: asked.append(1) or float(number))
    watch, names = LossWatch(gradients=False, where="in epoch 1", remedy="Lower the rate"), ("a.png", "b.png")
    watch.see(torch.tensor([1.0, torch.inf]).as_subclass(OnAGpu), names)
    assert asked == []
    with pytest.raises(NotFiniteError, match=r"in epoch 1, for 1 of 2 images .* b\.png\nhint: Lower"):
        watch.settle(lambda: [torch.tensor(torch.nan)], names)
    watch.see(torch.tensor([1.0, 2.0]).as_subclass(OnAGpu), names)
    watch.settle(lambda: [torch.tensor(torch.nan)], names)
    assert asked == [1, 1]


def test_large_gradients_are_finite():
    assert all_finite([torch.full((100,), 3e38), torch.zeros(2)])
    assert not all_finite([torch.zeros(3), torch.tensor([0.0, -torch.inf])])
    assert not all_finite([torch.tensor(torch.nan)])
    assert all_finite([])
