"""What a data source must keep to."""

from __future__ import annotations

from collections.abc import Callable

from saccade.errors import ImageError
from saccade.images.decoder import decode
from saccade.records import Dataset
from saccade.sources.registry import dataset_problems

DECODED_IMAGES = 5
NO_IMAGE = "no/such/image.jpg"


def check_source(load: Callable[[str], Dataset], location: str) -> None:
    """`load(location)` gives the same records each time, in the order of their paths, which are unique.

    Every label is a class, every part one of train, validation and test (or ""); the storage can be pickled,
    raises ImageError for what it does not hold, and the first images can be read and decoded. Raises
    AssertionError.
    """
    dataset, again = load(location), load(location)
    problems = dataset_problems(dataset)
    assert not problems, f"{location}: {'; '.join(problems)}"
    assert dataset.records == again.records, "a second look gives other records"
    assert dataset.classes == again.classes, "a second look gives other classes"
    for record in dataset.records[:DECODED_IMAGES]:
        decode(dataset.storage.read(record.path), name=record.path)
    try:
        dataset.storage.read(NO_IMAGE)
    except ImageError:
        return
    raise AssertionError(f"read({NO_IMAGE!r}) must raise ImageError where there is no such image")
