"""Some images of a manifest, evenly chosen, and how many there are; however many, in little memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from saccade.errors import SourceError
from saccade.records import Dataset, ImageRecord
from saccade.sources.addresses import is_remote
from saccade.sources.columns import stored_root
from saccade.sources.remote import RemoteStorage
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import parquet_module
from saccade.terminal import printable

_CLASSES = ("any", "other")  # what the images show is of no matter


class Sample(NamedTuple):
    """`dataset` has the images that were chosen; `images` and `total_bytes` are of all."""

    dataset: Dataset
    images: int
    total_bytes: int


def sampled(manifest: Path, count: int) -> Sample:
    """At most `count` images of a manifest of `saccade index`; raises SourceError for another file."""
    where = printable(str(manifest))
    root = stored_root(manifest) if manifest.suffix == ".parquet" and manifest.is_file() else ""
    if not root:
        raise SourceError(f"{where}: is no manifest", hint=f"saccade index LOCATION --out {where}")
    records: list[ImageRecord] = []
    seen = total_bytes = 0
    with parquet_module(where).ParquetFile(manifest) as file:
        images: int = file.metadata.num_rows
        step = max(1, -(-images // count))
        for batch in file.iter_batches(columns=["path", "label", "size"]):
            total_bytes += sum(batch.column(2).to_pylist())
            for row in range(-seen % step, batch.num_rows, step):
                records.append(ImageRecord(batch.column(0)[row].as_py(), batch.column(1)[row].as_py()))
            seen += batch.num_rows
    storage = RemoteStorage(root) if is_remote(root) else FolderStorage(Path(root))
    return Sample(Dataset(Path(root), tuple(records), _CLASSES, storage), images, total_bytes)
