"""What the audit tells of parts: differences beyond chance and by much, and where shortcuts point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from saccade.audit import after_split
from saccade.audit.parts import largest_difference, part_differences
from saccade.audit.quality import Measurements, blank_values
from saccade.audit.shortcuts import shortcuts
from saccade.near_duplicates.descriptors import empty_descriptions
from saccade.records import Audit, Dataset, ImageRecord
from saccade.sources.storage import FolderStorage

SIZES = {"train": 240, "validation": 60, "test": 60}


def images(
    *, seed: int = 0, sizes: dict[str, int] = SIZES, shift: float = 0.0, by_label: float = 0.0, **record: Any
) -> tuple[Dataset, Measurements]:
    """Two classes; `shift` is how much brighter test images are, `by_label` how much those of b."""
    random = np.random.default_rng(seed)
    records, light = [], []
    for part, count in sizes.items():
        for i in range(count):
            label = "ab"[i % 2]
            records.append(
                ImageRecord(f"{part}/{i:03d}.png", label, part, width=64, height=64, mode="RGB", **record)
            )
            light.append(random.normal(0.4, 0.1) + shift * (part == "test") + by_label * (label == "b"))
    values = blank_values(len(records))
    for name in values.dtype.names:
        values[name] = random.normal(size=len(records)) if name != "file_bytes" else 1000
    values["brightness"] = light
    texts = ("",) * len(records)
    measured = Measurements(values, texts, texts, texts, empty_descriptions(len(records)))
    return Dataset(Path(), tuple(records), ("a", "b"), FolderStorage(Path())), measured


def test_a_part_that_is_much_brighter_is_named_with_its_figures() -> None:
    (found,) = part_differences(*images(shift=0.2))
    assert found.severity == "info"
    assert "test images differ from training images of the same classes in brightness (0.6" in found.message
    assert found.figure["part"] == "test"
    assert [one["property"] for one in found.figure["properties"]] == ["brightness"]
    assert {path.split("/")[0] for path in found.paths} == {"train", "test"}


def test_parts_that_differ_by_chance_or_a_little_are_not_named() -> None:
    assert [part_differences(*images(seed=seed)) for seed in range(40)] == [[]] * 40
    assert part_differences(*images(shift=0.03)) == []
    few = {"train": 240, "validation": 8, "test": 8}
    assert [part_differences(*images(seed=seed, sizes=few)) for seed in range(20)] == [[]] * 20


def test_images_of_one_group_count_once() -> None:
    dataset, measured = images(shift=0.2)
    one = dataset.with_records(replace(r, group=r.part if r.part == "test" else "") for r in dataset.records)
    assert part_differences(one, measured) == []


def test_other_class_shares_are_no_difference_of_the_images() -> None:
    dataset, measured = images(by_label=0.4)
    kept = [r for r in dataset.records if r.part != "test" or r.label == "b" or r.path.endswith("0.png")]
    rows = np.array([r in kept for r in dataset.records])
    texts = ("",) * len(kept)
    fewer = Measurements(measured.values[rows], texts, texts, texts, empty_descriptions(len(kept)))
    assert part_differences(dataset.with_records(kept), fewer) == []


def test_a_camera_that_training_images_lack_is_named() -> None:
    dataset, measured = images()
    cameras = tuple("phone" if r.part == "test" else "scanner" for r in dataset.records)
    (found,) = part_differences(dataset, replace(measured, cameras=cameras))
    assert "the camera (phone in 100% against phone in 0%)" in found.message


def test_the_statistic_is_that_of_kolmogorov_and_smirnov() -> None:

    random = np.random.default_rng(1)
    for _ in range(20):
        first, second = np.round(random.normal(size=30), 1), np.round(random.normal(0.5, size=50), 1)
        expected = ks_2samp(first, second).statistic
        assert abs(largest_difference(first, np.ones(30), second) - expected) < 1e-12
        twice = largest_difference(np.repeat(first, 2), np.ones(60), second)
        assert abs(largest_difference(first, np.full(30, 2.0), second) - twice) < 1e-12


def test_a_shortcut_says_where_it_points_for_images_that_were_not_learnt() -> None:
    dataset, measured = images(by_label=0.4)
    audit = Audit(dataset, tuple(shortcuts(dataset, measured, {})))
    told = after_split(audit, dataset, measured)
    (found,) = (one for one in told.findings if one.kind == "shortcut")
    guesses = found.figure["guesses"]
    assert set(guesses) == {r.path for r in dataset.records if r.part != "train"}
    right = [guesses[r.path] == r.label for r in dataset.records if r.path in guesses]
    assert np.mean(right) > 0.9
    assert found.figure["of_the_file"] is False
