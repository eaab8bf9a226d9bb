from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from saccade.transforms.resize import batch_of_one, resized, side_by_side


def planes(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def together(image: torch.Tensor) -> torch.Tensor:
    """The same picture, colours side by side in memory."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(17, 23), (60, 31), (40, 90), (5, 1), (1, 5)])
def test_pixels_are_torchvisions_in_either_order_of_memory(interpolation, sides):
    whole = planes(47, 61)
    expected = functional.resize(whole, list(sides), InterpolationMode(interpolation), antialias=True)
    for image in (whole, together(whole)):
        assert torch.equal(resized(image, *sides, interpolation), expected)
    part = functional.resize(
        whole[:, 3:40, 5:50].clone(), list(sides), InterpolationMode(interpolation), antialias=True
    )
    for image in (whole, together(whole)):
        assert torch.equal(resized(image[:, 3:40, 5:50], *sides, interpolation), part)


def test_nothing_is_done_at_equal_size():
    image = planes(9, 7)
    assert resized(image, 9, 7) is image


def test_colours_side_by_side_stay_so():
    whole = together(planes(47, 61))
    for image in (whole, whole[:, 3:40, 5:50]):
        assert resized(image, 20, 30).stride() == (1, 90, 3)
    assert resized(planes(47, 61), 20, 30).is_contiguous()


def test_a_batch_of_one_shares_memory():
    image = together(planes(4, 5))
    batch = batch_of_one(image)
    assert batch.shape == (1, 3, 4, 5)
    assert torch.equal(batch[0], image)
    assert batch.data_ptr() == image.data_ptr()


def test_side_by_side_copies_only_what_is_not():
    whole = planes(12, 14)
    for image in (whole, together(whole), whole[:, 1:9, 2:7], together(whole)[:, 1:9, 2:7], whole.flip(-1)):
        rows = side_by_side(image)
        assert rows.is_contiguous()
        assert torch.equal(rows, image.permute(1, 2, 0))
    image = together(whole)
    assert side_by_side(image).data_ptr() == image.data_ptr()
    part = side_by_side(image[:, 1:9, 2:7])
    assert part.untyped_storage().nbytes() == part.nbytes  # the rest is not kept alive
