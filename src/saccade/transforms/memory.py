"""Small training images as one uint8 tensor on the device, augmented a batch at a time.

Draws are functions of (seed, epoch, image index), as on the per-image path, but other draws. Indices go to
the device once an epoch; nothing there waits for anything here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.images.decoder import Limits, read_pixels
from saccade.preprocess import Geometry, Preprocess
from saccade.records import ImageRecord, Storage
from saccade.transforms.appearance import CUTOUT_AREA, CUTOUT_RATIO
from saccade.transforms.apply import channels_first, normalise_rows
from saccade.transforms.augment import mirrored_in, stream
from saccade.transforms.batches import Batch, Rows, batch_plan, class_targets
from saccade.transforms.geometry import as_evaluated
from saccade.transforms.sampling import epoch_visits
from saccade.transforms.strengths import Augmentation

LARGEST_SIDE = 64
MOST_BYTES = 2_000_000_000  # fixed, not a share of this machine's memory: a run must be the same on another
DECODED_AT_ONCE = 256
# What a batch can do at once; any other strength sends every image through the per-image path.
IN_BATCHES = {
    "random_crop",
    "crop_border",
    "fill_mode",
    "fill_colour",
    "horizontal_flip",
    "alternate_flip",
    "vertical_flip",
    "cutout",
    "mix_up",
    "cut_mix",
    "mix_switch",
    "mix_until",
}
# columns of an epoch's draws, one row an image
TOP, LEFT, MIRROR, UPSIDE_DOWN, CUT, AREA, RATIO, CUT_TOP, CUT_LEFT = range(9)


def fits_in_memory(images: int, preprocess: Preprocess, augmentation: Augmentation) -> bool:
    """Whether `MemoryBatches` takes them: sides of 64 pixels or less, 2 GB or less, augmented in batches."""
    neutral = Augmentation()
    asked = {
        f.name for f in fields(Augmentation) if getattr(augmentation, f.name) != getattr(neutral, f.name)
    }
    image_bytes = preprocess.pixels.count * preprocess.size**2 * (1 if preprocess.pixels.bits == 8 else 4)
    small = preprocess.size <= LARGEST_SIDE and images * image_bytes <= MOST_BYTES
    border = augmentation.border if augmentation.random_crop else "mean"
    return small and asked <= IN_BATCHES and border in ("mean", "inner reflect")


class MemoryBatches:
    """Augmented batches of small training images, epoch by epoch; decodes them when the first is asked for.

    Batches are float32 on `device`, channels last in memory. Raises DataError naming an image that went bad.
    """

    shareable = True  # among processes, of which each makes some rows of a batch

    def __init__(
        self,
        storage: Storage,
        records: Sequence[ImageRecord],
        classes: Sequence[str],
        preprocess: Preprocess,
        batch_size: int,
        *,
        augmentation: Augmentation,
        seed: int,
        sampling: str = "natural",
        limits: Limits | None = None,
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        self._storage, self._limits = storage, limits or Limits()
        self._records = tuple(records)
        self._preprocess, self._augmentation = preprocess, augmentation
        self._batch_size, self._seed, self._threads = batch_size, seed, threads
        self._device, self._sampling = torch.device(device), sampling
        targets = class_targets(records, classes)
        self._targets, self._labels = targets.to(self._device), targets.tolist()
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(batch_plan(range(len(self._records)), self._batch_size))

    def epoch(self, epoch: int, *, start_batch: int = 0, rows: Rows | None = None) -> Iterator[Batch]:
        """The batches of one epoch from `start_batch` on; of each the images of `rows` only, where given."""
        if self._pixels is None:
            decoded = decode_all(self._storage, self._records, self._preprocess, self._limits, self._threads)
            if decoded.dtype == np.uint16:  # of which torch can pick no images
                decoded = decoded.astype(np.int32)
            self._pixels = torch.from_numpy(decoded).to(self._device)
        visits = epoch_visits(self._labels, self._sampling, seed=self._seed, epoch=epoch)
        order = [index for index, _ in visits]
        drawn = draw_epoch(len(self._records), self._augmentation, self._preprocess.size, self._seed, epoch)
        on_device = drawn.to(self._device)
        chosen = torch.tensor(order).to(self._device, non_blocking=True)
        start = 0
        for number, batch in enumerate(batch_plan(order, self._batch_size)):
            place, start = slice(start, start + len(batch)), start + len(batch)
            if number >= start_batch:
                own: slice | Tensor = place
                if rows is not None:
                    numbers = [place.start + row for row in rows(len(batch))]
                    own = torch.tensor(numbers).to(self._device, non_blocking=True)
                paths = tuple(self._records[index].path for index in batch)
                # an image that is visited again is drawn again: then draws are by visit, not by image
                draws = on_device.of(chosen[own] if self._sampling == "natural" else own)
                yield Batch(
                    self._inputs(self._pixels, chosen[own], draws), self._targets[chosen[place]], paths
                )

    def _inputs(self, pixels: Tensor, indices: Tensor, draws: Draws) -> Tensor:
        """(B, C, S, S) float32, normalised and augmented."""
        changed = moved(pixels, indices, draws)
        ready = normalise_rows(changed.to(torch.float32), self._preprocess)
        images = ready.view(changed.shape).permute(0, 3, 1, 2)
        if self._augmentation.random_crop and self._augmentation.border == "mean":
            images = images * inside(draws, pixels.shape[1])
        return images * outside_cuts(draws, pixels.shape[1]) if self._augmentation.cutout else images


@dataclass(frozen=True, slots=True)
class Draws:
    """What is done to images: int64 (n,) offsets of the crop (0 is none), bool (n,) mirrorings, int64 (n, 4)
    top, bottom, left and right of what is cut out (all 0: nothing)."""

    down: Tensor
    right: Tensor
    mirrored: Tensor
    upside_down: Tensor
    cuts: Tensor

    def of(self, indices: Tensor | slice) -> Draws:
        """Those of some images."""
        return Draws(*(getattr(self, field.name)[indices] for field in fields(self)))

    def to(self, device: torch.device) -> Draws:
        return Draws(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def draw_epoch(images: int, strength: Augmentation, side: int, seed: int, epoch: int) -> Draws:
    """One draw for each image of an epoch; an image's draw does not depend on how many there are."""
    values = stream(seed, "batches", epoch).random((images, CUT_LEFT + 1))
    border = round(strength.random_crop * side)
    mirrored = values[:, MIRROR] < strength.horizontal_flip
    if strength.alternate_flip and strength.horizontal_flip:
        mirrored = mirrored_in(epoch, seed=seed, images=images)
    return Draws(
        down=torch.from_numpy((values[:, TOP] * (2 * border + 1)).astype(np.int64) - border),
        right=torch.from_numpy((values[:, LEFT] * (2 * border + 1)).astype(np.int64) - border),
        mirrored=torch.from_numpy(mirrored),
        upside_down=torch.from_numpy(values[:, UPSIDE_DOWN] < strength.vertical_flip),
        cuts=torch.from_numpy(_cuts(values, strength.cutout, side)),
    )


def _cuts(values: NDArray[np.float64], probability: float, side: int) -> NDArray[np.int64]:
    """(n, 4) top, bottom, left, right; sides that would not fit are cut to the image."""
    area = (CUTOUT_AREA[0] + values[:, AREA] * (CUTOUT_AREA[1] - CUTOUT_AREA[0])) * side**2
    low, high = np.log(CUTOUT_RATIO)
    ratio = np.exp(low + values[:, RATIO] * (high - low))
    height = np.clip(np.rint(np.sqrt(area / ratio)), 1, side)
    width = np.clip(np.rint(np.sqrt(area * ratio)), 1, side)
    top = np.floor(values[:, CUT_TOP] * (side - height + 1))
    left = np.floor(values[:, CUT_LEFT] * (side - width + 1))
    box = np.stack([top, top + height, left, left + width], axis=1)
    return (box * (values[:, CUT] < probability)[:, None]).astype(np.int64)


def moved(pixels: Tensor, indices: Tensor, draws: Draws) -> Tensor:
    """(B, S, S, C): each chosen image shifted by its draw and mirrored, in one gather.

    Where the shift uncovers nothing of the image, it is reflected at its edge (the edge itself not repeated).
    """
    side = pixels.shape[1]
    rows, columns = _places(draws.down, draws.upside_down, side), _places(draws.right, draws.mirrored, side)
    return pixels[
        indices[:, None, None], _reflected(rows, side)[:, :, None], _reflected(columns, side)[:, None]
    ]


def inside(draws: Draws, side: int) -> Tensor:
    """(B, 1, S, S) float32: 1 where a shifted image has pixels of its own, 0 where it was uncovered."""
    rows, columns = _places(draws.down, draws.upside_down, side), _places(draws.right, draws.mirrored, side)
    own_rows, own_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return (own_rows[:, :, None] & own_columns[:, None]).to(torch.float32)[:, None]


def outside_cuts(draws: Draws, side: int) -> Tensor:
    """(B, 1, S, S) float32: 0 in each image's cut-out rectangle, 1 elsewhere."""
    top, bottom, left, right = (column[:, None] for column in draws.cuts.unbind(1))
    places = torch.arange(side, device=draws.cuts.device)
    rows, columns = (places >= top) & (places < bottom), (places >= left) & (places < right)
    return (~(rows[:, :, None] & columns[:, None])).to(torch.float32)[:, None]


def _places(offsets: Tensor, reversed_: Tensor, side: int) -> Tensor:
    """(B, S) where along one axis of the image each place of the result comes from; may lie outside."""
    places = torch.arange(side, device=offsets.device).expand(len(offsets), side)
    places = torch.where(reversed_[:, None], side - 1 - places, places)
    return places + offsets[:, None]


def _reflected(places: Tensor, side: int) -> Tensor:
    """Places outside 0 .. side - 1 mirrored back at the edge pixels, for shifts below `side`."""
    return (side - 1) - ((side - 1) - places.abs()).abs()


def decode_all(
    storage: Storage, records: Sequence[ImageRecord], preprocess: Preprocess, limits: Limits, threads: int
) -> NDArray[Any]:
    """(n, S, S, C), as decoded: every image in the evaluation geometry; raises DataError for a bad one."""
    side = preprocess.size
    images = np.empty((len(records), side, side, preprocess.pixels.count), preprocess.pixels.dtype)

    def fill(start: int) -> None:
        for index in range(start, min(start + DECODED_AT_ONCE, len(records))):
            images[index] = _on_square(read_pixels(storage, records[index], limits), preprocess)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(fill, range(0, len(records), DECODED_AT_ONCE)):
            pass
    return images


def _on_square(pixels: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    side = preprocess.size
    if pixels.shape[:2] == (side, side) and preprocess.geometry(side, side) == Geometry(side, side, 0, 0):
        return pixels  # nothing to resize, which is quicker not asked for
    squared: NDArray[Any] = as_evaluated(channels_first(pixels), preprocess).permute(1, 2, 0).numpy()
    return squared
