"""The quick depthwise backward: torch's gradients, nothing else touched."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from saccade.training.cpu.depthwise import (
    EXACT_KERNELS,
    depthwise_convolution,
    fast_depthwise_backward,
    is_plain_depthwise,
    pad_as_needed,
)

TOLERANCE = 1e-5


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(convolve, x, weight, bias):
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    out = convolve(*leaves)
    (out * normal(*out.shape, seed=7)).sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("kernel", EXACT_KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (15, 13), (8, 11)])
@pytest.mark.parametrize("padded", [True, False])
def test_gradients_are_torchs(kernel, stride, height, width, padded):
    channels, padding = 6, kernel // 2 if padded else 0
    x, weight, bias = (
        normal(3, channels, height, width),
        normal(channels, 1, kernel, kernel),
        normal(channels),
    )
    x = x.contiguous(memory_format=torch.channels_last)
    ours, our_gradients = gradients(
        lambda x, w, b: depthwise_convolution(x, w, b, stride=stride, padding=padding), x, weight, bias
    )
    theirs, their_gradients = gradients(
        lambda x, w, b: nn.functional.conv2d(x, w, b, stride, padding, 1, channels), x, weight, bias
    )
    assert torch.equal(ours, theirs)
    for found, expected in zip(our_gradients, their_gradients, strict=True):
        assert found.shape == expected.shape
        assert relative(found, expected) < TOLERANCE


@pytest.mark.parametrize("side", [7, 8, 15, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_padding_as_needed_is_timms(side, kernel, stride):
    from timm.layers import pad_same

    x = normal(2, 3, side, side + 1)
    assert torch.equal(
        pad_as_needed(x, kernel, stride), pad_same(x, [kernel, kernel], [stride, stride], [1, 1])
    )


def layer(kernel: int = 5, stride: int = 2, **options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=4, **options)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 7, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, stride=3),
        nn.Conv2d(4, 4, (3, 5), groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3),
        nn.Linear(4, 4),
    ],
    ids=lambda module: re.sub(r"\W+", "-", repr(module)),
)
def test_other_layers_are_left_alone(other):
    assert not is_plain_depthwise(other)
    with fast_depthwise_backward(nn.Sequential(other, layer())) as replaced:
        assert replaced == 1
        assert "forward" not in other.__dict__


def test_names_evaluation_and_the_layer_afterwards_are_as_before():
    network = nn.Sequential(layer(3, 1), nn.ReLU(), layer(5, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = normal(2, 4, 9, 9)
    plain = network(x)
    with fast_depthwise_backward(network) as replaced:
        assert replaced == 2
        state = network.state_dict()
        assert list(state) == list(before)
        assert all(torch.equal(state[name], before[name]) for name in before)
        assert "DepthwiseConvolution" not in graph(network(x)), "float32 stays torch's"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            network(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert "DepthwiseConvolution" in graph(network(x)), "the quick backward is at work in bfloat16"
    with torch.autocast("cpu", torch.bfloat16):
        assert "DepthwiseConvolution" not in graph(network(x))
    assert torch.equal(network(x), plain)
    assert all("forward" not in module.__dict__ for module in network.modules())


def graph(out: torch.Tensor) -> str:
    """Names of every operation that a result came from."""
    names, todo = [], [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None:
            names.append(type(node).__name__)
            todo += [inner for inner, _ in node.next_functions]
    return " ".join(names)


def test_a_copy_made_meanwhile_learns_by_itself():
    network = nn.Sequential(layer())
    with fast_depthwise_backward(network, always=True):
        copied = copy.deepcopy(network)
        copied(normal(2, 4, 9, 9)).sum().backward()
    assert copied[0].weight.grad is not None
    assert network[0].weight.grad is None


def test_bfloat16_gradients_are_as_near_as_torchs_own():
    network = nn.Sequential(layer(5, 2), nn.BatchNorm2d(4), layer(3, 2))
    x = normal(8, 4, 28, 28).contiguous(memory_format=torch.channels_last)

    def learnt(reduced: bool) -> list[torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            out = network(x)
        (out.float() * normal(*out.shape, seed=3)).sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    exact, plain = learnt(False), learnt(True)
    with fast_depthwise_backward(network):
        fast = learnt(True)
    for ours, theirs, reference in zip(fast, plain, exact, strict=True):
        if reference.norm() > 1e-3:  # not the biases before a BatchNorm
            assert relative(ours, reference) < 2 * relative(theirs, reference) + 5e-3


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("efficientnet_b0", {}, 16),
        ("mobilenetv3_large_100", {}, 15),
        ("mobilenetv2_100", {"pad_type": "same"}, 17),
    ],
)
def test_gradients_of_whole_networks_are_torchs(name, options, least):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).to(memory_format=torch.channels_last)
    network.train()
    x = normal(4, 3, 96, 96).contiguous(memory_format=torch.channels_last)

    def learnt() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)  # dropout
        network.zero_grad()
        nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2, 3])).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}

    expected = learnt()
    with fast_depthwise_backward(network, always=True) as replaced:
        found = learnt()
    assert replaced >= least
    assert found.keys() == expected.keys()
    whole = torch.cat([gradient.flatten() for gradient in expected.values()])
    differing = torch.cat([(found[key] - expected[key]).flatten() for key in expected])
    assert float(differing.norm() / whole.norm()) < TOLERANCE
