"""The ten promises of saccade, and what a run wrote down about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saccade.run_record import RunRecord

TITLES = (
    ("No leak", "No two near-duplicate images, and no group, stand in two parts of the split."),
    (
        "Only training images are augmented",
        "An image that is evaluated again gives the same input: that of the preprocessing alone.",
    ),
    (
        "Preprocessing belongs to the weights",
        "Resize, crop, interpolation, mean and std travel with the model.",
    ),
    ("Frozen is frozen", "Frozen weights and BatchNorm statistics are bit-identical before and after."),
    ("Fine-tuning is gentle", "The learning rate of fine-tuning is at most a tenth of the head's."),
    ("The gap is watched", "Both curves are read and explained, with a remedy."),
    (
        "The test part is used once",
        "After every choice; each figure has an interval and its number of images.",
    ),
    ("What is exported is certified", "The exported file predicts real images as the trained model does."),
    ("Stopping loses nothing", "The same command in the same folder continues."),
    ("No code in data", "No pickle is read or written."),
)
# of runs that were finished before the field `state` was written beside `kept`
STATES = {True: "kept", False: "broken", None: "not applicable"}


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, its state in this run, and the evidence.

    "kept" and "broken" come from something measured; "not applicable", "not checked" (nothing was measured)
    and "not shown" (the run folder does not tell) claim nothing.
    """

    number: int
    title: str
    meaning: str
    state: str
    evidence: str


def promises(block: Mapping[str, Mapping[str, Any]]) -> list[Promise]:
    """All ten, from the block `promises` of `environment.json`; one without an entry is "not shown"."""
    entries = [block.get(str(n)) for n in range(1, len(TITLES) + 1)]
    return [_promise(n, *TITLES[n - 1], entry) for n, entry in enumerate(entries, start=1)]


def use_of_test_images(record: RunRecord) -> str:
    """How the test images were used, where promise 7 is kept; else "", since nothing shows it."""
    if promises(record.promises)[6].state != "kept":
        return ""
    once = "once, " if len(record.measured(7).get("measured_by", ())) <= 1 else ""
    return f"used {once}after every choice was made"


def _promise(number: int, title: str, meaning: str, entry: Mapping[str, Any] | None) -> Promise:
    if entry is None:
        return Promise(number, title, meaning, "not shown", "this run folder does not tell")
    return Promise(number, title, meaning, _state(entry), entry["evidence"])


def _state(entry: Mapping[str, Any]) -> str:
    return str(entry.get("state") or STATES[entry["kept"]])
