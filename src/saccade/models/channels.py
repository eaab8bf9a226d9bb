"""Networks for images of other channels than red, green and blue: the first convolution and its filters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from saccade.errors import ModelError
from saccade.models.weights import IMAGE_CHANNELS

GRAY_SPREAD = "made for grayscale images: their first convolution is spread evenly over red, green and blue"


def take_channels(network: nn.Module, channels: int) -> None:
    """Put a new first convolution for so many channels into the network, in place; ModelError without one."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == IMAGE_CHANNELS and layer.groups == 1:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, _with_channels(layer, channels))
            return
    raise ModelError(
        f"no first convolution of 3 channels was found, so none can be made for {channels}",
        hint="use another backbone",
    )


def _with_channels(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        layer.out_channels,
        kernel_size=layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )


def for_channels(
    backbone: nn.Module, tensors: Mapping[str, Tensor], where: str
) -> tuple[Mapping[str, Tensor], str]:
    """Weights whose first convolution takes the network's channels, and a note where it was made for others.

    RGB filters become what timm makes of them: summed for gray, which answers a gray image as before; else
    repeated in turn and scaled. Those for gray are spread evenly over RGB. Raises ModelError for weights of
    other channels: nobody can tell which of them are the colours.
    """
    for name, wanted in backbone.state_dict().items():
        given = tensors.get(name)
        if given is None or not _differ_in_channels(given, wanted):
            continue
        has, needs = given.shape[1], wanted.shape[1]
        if has == IMAGE_CHANNELS:
            return {**tensors, name: adapted(given, needs)}, _adapted_note(needs)
        if has == 1 and needs == IMAGE_CHANNELS:
            return {**tensors, name: given.expand(-1, needs, -1, -1) / needs}, GRAY_SPREAD
        if needs == IMAGE_CHANNELS or _is_first(backbone, name):
            ours = "3: red, green and blue" if needs == IMAGE_CHANNELS else str(needs)
            raise ModelError(
                f"{where} is made for images of {has} channels ({name}), and ours have {ours}",
                hint="give weights for three channels, or for as many as the images have",
            )
    return tensors, ""


def adapted(filters: Tensor, channels: int) -> Tensor:
    """(out, 3, k, k) RGB filters for so many channels: (out, channels, k, k), as timm's `adapt_input_conv`.

    >>> import torch
    >>> adapted(torch.ones(1, 3, 1, 1), 1).flatten().tolist(), adapted(torch.ones(1, 3, 1, 1), 6).sum().item()
    ([3.0], 3.0)
    """
    wide = filters.float()
    if channels == 1:
        return wide.sum(dim=1, keepdim=True).to(filters.dtype)
    turns = -(-channels // IMAGE_CHANNELS)
    repeated = wide.repeat(1, turns, 1, 1)[:, :channels]
    return (repeated * (IMAGE_CHANNELS / channels)).to(filters.dtype)


def _adapted_note(channels: int) -> str:
    how = "summed" if channels == 1 else "repeated in turn and scaled"
    return f"made for RGB images: the filters of their first convolution are {how} for {channels} " + (
        "channel" if channels == 1 else "channels"
    )


def _differ_in_channels(given: Tensor, wanted: Tensor) -> bool:
    """Whether both are filters of one shape but for the number of channels that they take."""
    if given.ndim != 4 or wanted.ndim != 4 or given.shape[1] == wanted.shape[1]:
        return False
    return given.shape[0] == wanted.shape[0]


def _is_first(backbone: nn.Module, name: str) -> bool:
    filters = (key for key, value in backbone.state_dict().items() if value.ndim == 4)
    return name == next(filters, "")
