"""Data sources of other packages: read by their name, held to a contract, never a traceback."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade import extensions
from saccade.audit.scan import scan
from saccade.errors import ImageError, RecipeError, SaccadeError, SourceError
from saccade.extensions import register_source
from saccade.pipeline.prepare import list_data
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.sources import SOURCES, load_source
from saccade.testing import check_source


@dataclass(frozen=True)
class Drawn:
    """Pictures that exist nowhere: their colour is in their name."""

    broken: bool = False

    def read(self, path: str) -> bytes:
        if self.broken:
            raise KeyError(path)
        label, _, name = path.partition("/")
        if label not in ("dark", "light"):
            raise ImageError("no such picture", "Name another")
        level = int(name.removesuffix(".png"))
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file, "PNG")
        return file.getvalue()


def drawn(location: str, *, broken: bool = False) -> Dataset:
    count = int(location)
    paths = sorted(f"{label}/{level:03d}.png" for label in ("dark", "light") for level in range(count))
    records = tuple(ImageRecord(path, path.partition("/")[0]) for path in paths)
    return Dataset(Path(), records, ("dark", "light"), Drawn(broken))


@pytest.fixture
def named() -> Iterator[Callable[[Callable[[str], object]], None]]:
    """Registers a source under the name `drawn` for one test."""
    kept = dict(extensions._registered["sources"])
    yield lambda load: register_source("drawn", load)
    extensions._registered["sources"].clear()
    extensions._registered["sources"].update(kept)


def test_a_registered_source_is_read_by_its_name_and_said_so(named: Callable[..., None]) -> None:
    named(drawn)
    check_source(drawn, "3")
    dataset = load_source("drawn:3")
    assert [record.path for record in dataset.records] == [
        f"{label}/{n:03d}.png" for label in ("dark", "light") for n in range(3)
    ]
    assert any("data source 'drawn'" in finding.message for finding in dataset.findings)
    scanned = scan(dataset, workers=2).dataset
    assert all(record.used and record.width == 8 for record in scanned.records)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: replace(data, records=data.records[::-1]), "order of their paths"),
        (lambda data: replace(data, storage=Lenient()), "must raise ImageError"),
    ],
)
def test_the_check_for_strangers_fails_where_a_source_does(
    spoil: Callable[..., Dataset], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_source(lambda location: spoil(drawn(location)), "3")


def test_the_check_for_strangers_looks_twice() -> None:
    counts = iter("345")
    with pytest.raises(AssertionError, match="a second look gives other records"):
        check_source(lambda location: drawn(next(counts)), "any")


def test_group_patterns_serve_sources_of_others_too(named: Callable[..., None]) -> None:
    named(drawn)
    assert {record.group for record in load_source("drawn:2", group_pattern=r"\d+").records} == {"000", "001"}


def test_our_own_sources_cannot_be_taken_over(named: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "drawn:3").mkdir()
    named(lambda location: pytest.fail("asked for a folder that exists"))
    with pytest.raises(SourceError, match="no images found"):
        load_source(tmp_path / "drawn:3")
    assert not {"drawn"} & set(SOURCES)


UNFIT = {
    "nothing": (lambda data: None, "returned a NoneType"),
    "no images": (lambda data: replace(data, records=()), "there are none"),
    "twice": (lambda data: replace(data, records=data.records + data.records), "paths are not unique"),
    "unsorted": (lambda data: replace(data, records=data.records[::-1]), "in the order of their paths"),
    "label": (lambda data: replace(data, classes=("dark", "bright")), "labels that are no class: light"),
    "part": (
        lambda data: replace(data, records=tuple(replace(r, part="dev") for r in data.records)),
        "unknown parts: dev",
    ),
    "parts": (
        lambda data: replace(data, records=tuple(replace(r, part="train") for r in data.records)),
        "parts that given_parts does not name: train",
    ),
    "root": (lambda data: replace(data, root="somewhere"), "root is no pathlib.Path"),
    "storage": (lambda data: replace(data, storage=None), "storage has no read"),
    "pickle": (lambda data: replace(data, storage=Local()), "storage cannot be pickled"),
    "one class": (
        lambda data: replace(data, records=data.records[:3], classes=("dark",)),
        "fewer than 2 classes",
    ),
    "empty class": (lambda data: replace(data, empty_classes=("red",)), "no image of red"),
}


@dataclass(frozen=True)
class Lenient:
    """A storage that has every image."""

    def read(self, path: str) -> bytes:
        return Drawn().read("dark/000.png")


class Local:
    """A storage that holds what no other process can be given."""

    def __init__(self) -> None:
        self.read = lambda path: b""


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_one_clear_error(named: Callable[..., None], case: str) -> None:
    spoil, message = UNFIT[case]
    named(lambda location: spoil(drawn("3")))
    with pytest.raises(SourceError, match=f"data source 'drawn': .*{message}") as caught:
        load_source("drawn:x")
    assert "check_source" in caught.value.hint


def test_a_column_asked_of_a_source_of_others_is_refused(named: Callable[..., None]) -> None:
    named(drawn)
    with pytest.raises(SourceError, match="--group 'patient' means nothing"):
        load_source("drawn:3", group="patient")


def test_a_source_of_others_says_itself_that_images_have_several_labels(named: Callable[..., None]) -> None:
    def sets(location: str) -> Dataset:
        data = drawn(location)
        records = tuple(replace(record, several=True) for record in data.records)
        return replace(data, records=records, multi_label=True)

    named(sets)
    recipe = Recipe.from_mapping({"data.multi_label": True})
    assert list_data("drawn:3", recipe).multi_label
    with pytest.raises(RecipeError, match="add --multi-label"):
        list_data("drawn:3", Recipe())


def test_an_image_that_its_source_cannot_read_is_set_aside(named: Callable[..., None]) -> None:
    named(lambda location: drawn(location, broken=True))
    records = scan(load_source("drawn:2"), workers=1).dataset.records
    assert not any(record.used for record in records)
    assert all("data source 'drawn' cannot read it (KeyError" in record.note for record in records)
    with pytest.raises(ImageError):
        load_source("drawn:2").storage.read("dark/000.png")


def test_an_unknown_name_is_answered_with_those_that_are_known(named: Callable[..., None]) -> None:
    named(drawn)
    with pytest.raises(SourceError, match="data path does not exist: drown:3") as caught:
        load_source("drown:3")
    assert "drawn:..." in caught.value.hint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_anywhere:load", "ModuleNotFoundError"),
        ("operator:itemgetter", "returned a itemgetter"),
    ],
)
def test_a_broken_source_of_an_installed_package_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    point = EntryPoint(f"acme-{len(value)}", value, "saccade.sources")
    monkeypatch.setattr(extensions, "_points", lambda group: (point,))
    with pytest.raises(SaccadeError, match=message) as caught:
        load_source(f"{point.name}:flowers")
    assert caught.value.hint
