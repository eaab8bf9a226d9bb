"""Work in a process that may have no children, as the workers of Celery, Airflow and dask are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest

from saccade.audit.scan import scan
from saccade.sources import load_source
from saccade.workers import map_chunks, may_have_children


def doubled(chunk: Sequence[int]) -> list[int]:
    return [2 * number for number in chunk]


def crashed(number: int) -> list[int]:
    raise AssertionError(f"nothing crashed on {number}")


def map_in_chunks(numbers: list[int]) -> tuple[bool, list[int]]:
    chunks = [numbers[i : i + 3] for i in range(0, len(numbers), 3)]
    results = map_chunks(doubled, chunks, workers=2, on_crash=crashed)
    return may_have_children(), [number for _, found in results for number in found]


def scanned(folder: str) -> list[tuple[str, str, str]]:
    found = scan(load_source(folder), workers=2)
    return [(record.path, record.sha256, record.status) for record in found.dataset.records]


def batches() -> list[float]:
    """Training batches, asked for from two worker processes."""
    from saccade.transforms.batches import _Loader

    loader = _Loader(_Numbers(), 2, print)
    return [float(batch.sum()) for batch in loader.batches([[1, 2], [3]])]


class _Numbers:
    """Stands for images: a batch of given numbers."""

    def batch(self, keys: Sequence[int]):
        import torch

        return torch.tensor([float(key) for key in keys])

    def __getitem__(self, key: int):
        import torch

        return torch.tensor(float(key))


@pytest.fixture(scope="module")
def daemon():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


def test_chunks_are_computed_in_a_daemonic_process(daemon) -> None:
    numbers = list(range(10))
    assert may_have_children()
    assert daemon.apply(map_in_chunks, (numbers,)) == (False, [2 * n for n in numbers])


def test_a_scan_in_a_daemonic_process_finds_the_same(daemon, photo_writer, tmp_path: Path) -> None:
    folder = photo_writer(tmp_path / "photos", images=4)
    here = [(r.path, r.sha256, r.status) for r in scan(load_source(str(folder))).dataset.records]
    assert daemon.apply(scanned, (str(folder),)) == here
    assert len(here) == 12


def test_batches_in_a_daemonic_process_are_the_same(daemon) -> None:
    assert daemon.apply(batches) == [3.0, 3.0]
