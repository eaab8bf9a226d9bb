"""Parts and classes that are lost once the images have been read: nobody could have meant that."""

from __future__ import annotations

from collections import Counter

from saccade.records import Dataset


def lost_by_reading(dataset: Dataset) -> tuple[str, ...]:
    """Given parts without a usable image, and classes mostly in formats that are not read, in words."""
    parts = [
        f"the {part} part has no image that can be used"
        for part in dataset.given_parts
        if not dataset.used(part)
    ]
    used = dataset.counts()
    unread = Counter(r.label for r in dataset.records if not r.used and r.note.startswith("unsupported: "))
    classes = [
        f"{unread[label]:,} of {unread[label] + used[label]:,} images of {label} have formats not read here"
        for label in dataset.classes
        if unread[label] > used[label]
    ]
    return (*parts, *classes)
