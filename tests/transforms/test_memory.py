"""Batch augmentation against a naive loop over images, and that it never waits for the device."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.errors import DataError, ImageError
from saccade.images.decoder import Limits
from saccade.preprocess import Preprocess
from saccade.recipe import POLICIES
from saccade.records import ImageRecord
from saccade.transforms import Augmentation, TrainingBatches, training_batches
from saccade.transforms.augment import mirrored_in
from saccade.transforms.memory import MemoryBatches, decode_all, draw_epoch, fits_in_memory, moved

SIDE = 12
PREPROCESS = Preprocess(SIDE, "squash", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SMALL = Augmentation(**POLICIES["small"])


class Files:
    """PNG files in memory, one of which can be damaged."""

    def __init__(self, count: int, damaged: int = -1) -> None:
        rng = np.random.default_rng(5)
        self.pixels = [rng.integers(0, 256, (SIDE, SIDE + i % 2, 3), np.uint8) for i in range(count)]
        self.damaged = damaged

    def read(self, path: str) -> bytes:
        index = int(path.removesuffix(".png"))
        if index == self.damaged:
            raise ImageError("is gone", "Restore it")
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(buffer, "PNG")
        return buffer.getvalue()


def records(count: int) -> list[ImageRecord]:
    return [ImageRecord(f"{i}.png", "ab"[i % 2], "train", width=SIDE, height=SIDE) for i in range(count)]


def batches(
    augmentation: Augmentation, *, count: int = 11, size: int = 4, device: str = "cpu"
) -> MemoryBatches:
    return MemoryBatches(
        Files(count),
        records(count),
        ("a", "b"),
        PREPROCESS,
        size,
        augmentation=augmentation,
        seed=3,
        device=device,
        threads=2,
    )


def by_path(source: MemoryBatches | TrainingBatches, epoch: int) -> dict[str, torch.Tensor]:
    return {
        path: image
        for batch in source.epoch(epoch)
        for path, image in zip(batch.paths, batch.images, strict=True)
    }


def test_without_augmentation_it_gives_what_the_per_image_path_gives() -> None:
    own = list(batches(Augmentation()).epoch(2))
    other = list(
        training_batches(
            Files(11), records(11), ("a", "b"), PREPROCESS, 4, augmentation=Augmentation(), seed=3, epoch=2
        )
    )
    assert [batch.paths for batch in own] == [batch.paths for batch in other]
    assert len(own) == 3
    for mine, theirs in zip(own, other, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.targets, theirs.targets)


def test_crop_and_flip_are_what_padding_and_cutting_give() -> None:
    pixels = torch.from_numpy(decode_all(Files(11), records(11), PREPROCESS, Limits(), 1))
    draws = draw_epoch(11, Augmentation(random_crop=0.25, horizontal_flip=0.5, vertical_flip=0.5), SIDE, 1, 4)
    result = moved(pixels, torch.arange(11), draws)
    border = 3
    assert len({int(d) for d in draws.down}) > 2
    for index in range(11):
        padded = np.pad(pixels[index].numpy(), [(border, border)] * 2 + [(0, 0)], mode="reflect")
        top, left = border + int(draws.down[index]), border + int(draws.right[index])
        expected = padded[top : top + SIDE, left : left + SIDE]
        expected = expected[:, ::-1] if draws.mirrored[index] else expected
        expected = expected[::-1] if draws.upside_down[index] else expected
        assert np.array_equal(result[index].numpy(), expected)


def test_a_mean_border_is_zero_after_normalisation() -> None:
    strength = Augmentation(random_crop=0.25)
    draws = draw_epoch(11, strength, SIDE, 3, 1)
    images = by_path(batches(strength), 1)
    index = int(draws.down.argmax())
    rows = int(draws.down[index])
    assert rows > 0
    assert not images[f"{index}.png"][:, SIDE - rows :].any()
    assert images[f"{index}.png"][:, : SIDE - rows].any()


def test_cutout_covers_a_rectangle_of_some_images() -> None:
    plain, cut = (
        by_path(batches(Augmentation(), count=40), 1),
        by_path(batches(Augmentation(cutout=0.5), count=40), 1),
    )
    changed = [path for path in plain if not torch.equal(plain[path], cut[path])]
    assert 8 < len(changed) < 32
    for path in changed:
        covered = (cut[path] != plain[path]).any(0)
        rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert covered.sum() == height * width
        assert not cut[path][:, covered].any()


def test_draws_are_a_function_of_seed_epoch_and_image() -> None:
    strength = Augmentation(**{**POLICIES["small"], "cutout": 0.5})
    few, many = (draw_epoch(count, strength, 32, 7, 2) for count in (5, 50))
    assert torch.equal(few.down, many.down[:5])
    assert torch.equal(few.mirrored, many.mirrored[:5])
    assert torch.equal(few.cuts, many.cuts[:5])
    assert not torch.equal(many.down, draw_epoch(50, strength, 32, 7, 3).down)
    assert not torch.equal(many.down, draw_epoch(50, strength, 32, 8, 2).down)


def test_an_epoch_can_be_entered_anywhere() -> None:
    whole = list(batches(SMALL).epoch(5))
    rest = list(batches(SMALL).epoch(5, start_batch=1))
    assert len(rest) == len(whole) - 1 == 2
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[1:], rest, strict=True))


def test_flips_alternate() -> None:
    first, second, third = (mirrored_in(epoch, seed=1, images=200) for epoch in (1, 2, 3))
    assert np.array_equal(first, ~second)
    assert np.array_equal(first, third)
    assert 60 < first.sum() < 140


def test_both_paths_agree_on_which_images_are_mirrored() -> None:
    strength = Augmentation(horizontal_flip=0.5, alternate_flip=True)
    other = TrainingBatches(Files(11), records(11), ("a", "b"), PREPROCESS, 4, augmentation=strength, seed=3)
    for epoch in (1, 2):
        mine, theirs = by_path(batches(strength), epoch), by_path(other, epoch)
        assert all(torch.equal(mine[path], theirs[path]) for path in mine)


def test_nothing_of_an_epoch_is_read_back_from_the_device() -> None:
    """On the device "meta" tensors have no values, so whoever waits for one fails."""
    strength = Augmentation(**{**POLICIES["small"], "cutout": 0.5, "crop_border": "mean"})
    found = list(batches(strength, device="meta").epoch(1))
    assert [batch.images.shape[0] for batch in found] == [4, 4, 3]
    assert all(batch.images.is_meta and batch.targets.is_meta for batch in found)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in found)


def test_an_image_that_went_bad_is_named() -> None:
    source = MemoryBatches(
        Files(6, damaged=4), records(6), ("a", "b"), PREPROCESS, 2, augmentation=SMALL, seed=0
    )
    with pytest.raises(DataError, match=r"4\.png: is gone"):
        next(source.epoch(1))


@pytest.mark.parametrize(
    ("images", "side", "changes", "fits"),
    [
        (60_000, 32, {}, True),
        (60_000, 32, {"cutout": 0.5, "mix_up": 0.2}, True),
        (60_000, 65, {}, False),
        (700_000, 32, {}, False),
        (60_000, 32, {"rotation": 10.0}, False),
        (60_000, 32, {"automatic": "rand_augment"}, False),
    ],
)
def test_who_goes_by_batch(images: int, side: int, changes: dict[str, object], fits: bool) -> None:
    strength = Augmentation(**{**POLICIES["small"], **changes})
    assert fits_in_memory(images, Preprocess(side), strength) is fits


def test_named_policies_of_old_stay_on_the_per_image_path() -> None:
    old: Sequence[str] = ("light", "medium", "strong")
    assert not any(fits_in_memory(10, PREPROCESS, Augmentation(**POLICIES[name])) for name in old)


def test_balanced_sampling_visits_rare_classes_again_with_other_draws() -> None:
    uneven = [record for record in records(16) if record.label == "a" or record.path == "1.png"]
    source = MemoryBatches(
        Files(16),
        uneven,
        ("a", "b"),
        PREPROCESS,
        4,
        augmentation=Augmentation(random_crop=0.2),
        seed=3,
        sampling="balanced",
    )
    found = list(source.epoch(1))
    targets, images = (torch.cat([batch[place] for batch in found]) for place in (1, 0))
    assert len(images) == len(uneven) == 9
    assert targets.bincount().tolist() in ([5, 4], [4, 5])
    rare = images[targets == 1]  # one image, four times or five
    assert len({image.numpy().tobytes() for image in rare}) > 1
    again = list(source.epoch(1, start_batch=1))
    assert all(torch.equal(a.images, b.images) for a, b in zip(again, found[1:], strict=True))


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_rows_of_two_processes_are_the_batches_of_one(sampling: str) -> None:
    made = MemoryBatches(
        Files(11), records(11), ("a", "b"), PREPROCESS, 4, augmentation=SMALL, seed=3, sampling=sampling
    )
    halves = [made.epoch(2, rows=lambda n: range(n // 2)), made.epoch(2, rows=lambda n: range(n // 2, n))]
    for whole, first, second in zip(made.epoch(2), *halves, strict=True):
        assert torch.equal(torch.cat([first.images, second.images]), whole.images)
        assert whole.paths == first.paths == second.paths
        assert torch.equal(whole.targets, first.targets)
