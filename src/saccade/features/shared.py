"""Frozen features of a set of images that several trainings learn from, each computed once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from saccade.features.compute import Engines, Images
from saccade.files import MOST_WEIGHT_BYTES, read_file
from saccade.models.weights import tensors_of
from saccade.records import ImageRecord
from saccade.run_folder import write_bytes

NAME = "features"  # of the one tensor in a file


@dataclass
class SharedFeatures:
    """Features of `records` by one backbone, whatever part an image has in a training.

    `folder`: where other processes find them, too, by a `name` that tells backbones apart. `engines` are
    those of the first training that asked, which it does before anything is fine-tuned.
    """

    records: Sequence[ImageRecord]
    name: str = ""
    folder: Path | None = None
    engines: Engines | None = None
    _views: dict[str, Tensor] = field(default_factory=dict)

    def of(self, images: Images, compute: Callable[[Images], Tensor], *, mirror: bool) -> Tensor:
        """float32 (images, F); `compute` gives those of all records when a view is first asked for."""
        view = f"{'exact' if images.exact else 'quick'}{' mirrored' if mirror else ''}"
        if view not in self._views:
            whole = replace(images, records=tuple(self.records))
            self._views[view] = self._kept(view, whole, compute)
        row = {record.path: number for number, record in enumerate(self.records)}
        return self._views[view][[row[record.path] for record in images.records]]

    def _kept(self, view: str, images: Images, compute: Callable[[Images], Tensor]) -> Tensor:
        """As another process left them in the folder, else computed and left there."""
        if self.folder is None:
            return compute(images)
        told = [self.name, view, str(images.preprocess), *(f"{r.path} {r.sha256}" for r in images.records)]
        digest = hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()
        place = self.folder / f"{digest[:32]}.safetensors"
        with contextlib.suppress(OSError, ValueError, KeyError):  # not there, or not whole: made anew
            return tensors_of(read_file(place, max_bytes=MOST_WEIGHT_BYTES))[0][NAME]
        from safetensors.torch import save

        found = compute(images)
        write_bytes(place, save({NAME: found.contiguous()}))
        return found
