"""What a data source must keep to."""

from __future__ import annotations

from collections.abc import Callable

from saccade.images.decoder import decode
from saccade.records import PARTS, Dataset

DECODED_IMAGES = 5


def check_source(load: Callable[[str], Dataset], location: str) -> None:
    """`load(location)` gives the same records in the same order each time, with paths that are unique.

    Every label is a class, every part one of train, validation and test (or ""), and the first images can be
    read and decoded. Raises AssertionError.
    """
    dataset, again = load(location), load(location)
    assert isinstance(dataset, Dataset), f"a source gives a Dataset, got {type(dataset).__name__}"
    assert dataset.records == again.records, "a second look gives other records, or another order"
    assert dataset.classes == again.classes, "a second look gives other classes"
    paths = [record.path for record in dataset.records]
    assert paths, f"there is no image at {location}"
    twice = sorted({path for path in paths if paths.count(path) > 1}) if len(set(paths)) < len(paths) else []
    assert not twice, f"paths are not unique: {', '.join(twice[:5])}"
    strange = sorted({record.label for record in dataset.records} - set(dataset.classes))
    assert not strange, f"labels that are no class: {', '.join(strange[:5])}"
    parts = sorted({record.part for record in dataset.records} - {"", *PARTS})
    assert not parts, f"unknown parts: {', '.join(parts)}; a part is one of {', '.join(PARTS)}"
    for path in paths[:DECODED_IMAGES]:
        decode(dataset.storage.read(path), name=path)
