"""Lists that are divided without a record a row: what stays together, shares, seeds, given parts."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import SourceError, SplitError
from saccade.pipeline.prepare import split_data
from saccade.recipe import Recipe
from saccade.records import PARTS, Audit, Dataset, ImageRecord
from saccade.sources import load_source, rows
from saccade.sources.columns import ROOT_KEY
from saccade.sources.indexing import write_index
from saccade.sources.rows import hashed, open_rows
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import USUAL_COLUMNS, Columns
from saccade.split import flat, split, streamed
from saccade.split.atoms import order_key
from saccade.split.flat import join, links
from saccade.terminal import Terminal

Row = dict[str, Any]
KEPT_TOGETHER = ("group", "cluster", "sha256", "etag")


def some_rows(count: int, *, seed: int = 0, classes: int = 4) -> list[Row]:
    """Rows of which most belong to a small group of one class, some to a group of several, some to copies."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        label = f"class_{number * classes // count}"
        group = draw.choice(
            ["", f"{label}_{number // 7}", f"{label}_{number // 7}", f"any_{number % 97 // 2}"]
        )
        row = {"path": f"{label}/{number:06d}.jpg", "label": label, "group": group, "cluster": ""}
        row |= {"sha256": f"hash {number}", "size": number, "etag": f"tag {number}"}
        if number % 40 == 1 and made[-1]["label"] == label:
            row["sha256"] = made[-1]["sha256"]
        if number % 60 == 7:
            row["cluster"] = str(number // 600)
        if number % 50 == 3 and made[-1]["label"] == label:
            row |= {"sha256": "", "etag": made[-1]["etag"], "size": made[-1]["size"]}
        made.append(row)
    return made


def write_list(
    path: Path, made: Sequence[Row], *, root: str = "s3://bucket/photos", group: int = 500
) -> Path:
    table = pyarrow.Table.from_pylist(list(made))
    metadata = {ROOT_KEY: root.encode()} if root else None
    parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group)
    return path


def divided(path: Path, columns: Columns = USUAL_COLUMNS, **options: Any) -> streamed.RowSplit:
    return streamed.split_rows(open_rows(str(path), columns), **options)


def parts(made: streamed.RowSplit, of: Sequence[Row]) -> dict[str, str]:
    return {row["path"]: PARTS[p] for row, p in zip(of, made.parts.tolist(), strict=True) if p >= 0}


def in_two_parts(part: Mapping[str, str], of: Iterable[Row], column: str) -> list[str]:
    """Values of a column whose rows stand in more than one part."""
    found = defaultdict(set)
    for row in of:
        if row[column] and row["path"] in part:
            found[row[column], row["size"] if column == "etag" else 0].add(part[row["path"]])
    return [value for value, where in found.items() if len(where) > 1]


def in_hash_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for many sets."""
    monkeypatch.setattr(flat, "FEW", 0)
    monkeypatch.setattr(flat, "FEW_MIXED", 0)


@pytest.fixture(params=["few", "many"])
def any_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of allocation: that of small data sets, and that in the order of hashes."""
    if request.param == "many":
        in_hash_order(monkeypatch)


# -- flat arrays -----------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 6), min_size=30, max_size=30), min_size=1, max_size=4))
def test_rows_are_joined_as_by_hand(columns: list[list[int]]) -> None:
    home = np.arange(30, dtype=np.int32)
    by_hand = list(range(30))
    for column in columns:
        join(home, *links(np.array(column, dtype=np.uint64)))
        for i in range(30):
            for j in range(i):
                if column[i] == column[j] != 0:
                    old, new = sorted((by_hand[i], by_hand[j]), reverse=True)
                    by_hand = [new if value == old else value for value in by_hand]
    assert home.tolist() == by_hand


def test_the_order_is_that_of_smaller_data_sets() -> None:
    names = ["a.jpg", "b/ü.jpg", "c"]
    assert hashed(names, before="7/").tolist() == [order_key(7, name) for name in names]


# -- a new split -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_size")
def test_what_belongs_together_shares_a_part(tmp_path: Path) -> None:
    of = some_rows(3000)
    made = divided(write_list(tmp_path / "m.parquet", of))
    part = parts(made, of)
    assert len(part) == 3000
    assert [value for column in KEPT_TOGETHER for value in in_two_parts(part, of, column)] == []
    assert made.crossing == 0
    assert set(made.joined) == {"path", *KEPT_TOGETHER}
    assert min(count for mark, count in made.joined.items() if mark != "path") > 0


@pytest.mark.usefixtures("any_size")
def test_each_class_has_its_shares_up_to_a_set(tmp_path: Path) -> None:
    of = [{**row, "group": f"{row['label']}_{i // 3}"} for i, row in enumerate(some_rows(3000))]
    of = [{key: row[key] for key in ("path", "label", "group")} for row in of]
    made = divided(write_list(tmp_path / "m.parquet", of), validation=0.2, test=0.1)
    part = parts(made, of)
    found = Counter((row["label"], part[row["path"]]) for row in of)
    for label in ("class_0", "class_1", "class_2", "class_3"):
        assert abs(found[label, "validation"] - 150) <= 3
        assert abs(found[label, "test"] - 75) <= 3
    assert made.reasons == ()
    assert made.untold == 3000


def test_seed_and_paths_alone_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_hash_order(monkeypatch)
    of = some_rows(2000)
    first = parts(divided(write_list(tmp_path / "m.parquet", of)), of)
    renamed = [{**row, "label": "kinds"[int(row["label"][-1]) :]} for row in of]
    for number, (other, size) in enumerate(((of, 37), (renamed, 500), (of[::-1], 500))):
        path = write_list(tmp_path / f"{number}.parquet", other, group=size)
        assert parts(divided(path), other) == first
    monkeypatch.setattr(rows, "ROWS_AT_A_TIME", 100)
    assert parts(divided(tmp_path / "m.parquet"), of) == first
    assert parts(divided(tmp_path / "m.parquet", seed=1), of) != first


@pytest.mark.parametrize("group", [1, 7])
def test_few_images_move_where_data_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    in_hash_order(monkeypatch)
    of = [{"path": row["path"], "label": row["label"]} for row in some_rows(5600)]
    of = [{**row, "group": f"{i // group}"} for i, row in enumerate(of)]
    more = of + [{**row, "path": f"new/{row['path']}"} for row in of[::group]]
    before = parts(divided(write_list(tmp_path / "a.parquet", of)), of)
    after = parts(divided(write_list(tmp_path / "b.parquet", more)), more)
    assert sum(before[path] != after[path] for path in before) <= 0.02 * len(before)


def test_rare_classes_are_in_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_hash_order(monkeypatch)
    rare = [{**some_rows(1)[0], "path": f"rare/{i}", "group": "", "sha256": f"rare {i}"} for i in range(3)]
    of = some_rows(1000) + [{**row, "label": "rare", "etag": ""} for row in rare]
    part = parts(divided(write_list(tmp_path / "m.parquet", of)), of)
    assert {part[f"rare/{i}"] for i in range(3)} == set(PARTS)
    with pytest.raises(SplitError, match="class 'rare' has 2 images"):
        divided(write_list(tmp_path / "m.parquet", of[:-1]))


def test_left_out(tmp_path: Path) -> None:
    """All copies of a file with two labels, rows without a label, and a path that comes again."""
    of = [
        {**row, "group": "", "cluster": "", "etag": "", "sha256": f"{i}"}
        for i, row in enumerate(some_rows(400))
    ]
    of[3] |= {"sha256": "same"}
    of[390] |= {"sha256": "same"}
    of[5] |= {"label": "", "sha256": "other"}
    of[6] |= {"sha256": "other"}
    of[8] |= {"path": of[9]["path"]}
    made = divided(write_list(tmp_path / "m.parquet", of))
    assert np.flatnonzero(made.parts < 0).tolist() == [3, 5, 9, 390]
    assert (made.two_labels, made.unlabelled, made.joined["path"]) == (2, 1, 1)
    assert "the same file has two labels: 'class_0/000003.jpg' (class_0)" in made.reasons[0]
    with pytest.raises(SourceError, match="1 row cannot be used") as refused:
        divided(write_list(tmp_path / "plain.parquet", of, root=""))
    assert "row 6: no label; fill it in or remove the row" in str(refused.value)


def test_an_etag_of_another_service_says_nothing(tmp_path: Path) -> None:
    of = some_rows(1000)
    made = divided(write_list(tmp_path / "m.parquet", of, root="gs://bucket/photos"))
    assert "etag" not in made.joined
    assert made.untold == sum(not row["sha256"] for row in of) > 0


# -- parts that were given -------------------------------------------------------------------------------


def in_memory(of: Sequence[Row], **options: Any) -> dict[str, str]:
    """What `split` makes of the same rows."""
    records = tuple(
        ImageRecord(row["path"], row["label"], row["part"], row["group"])
        for row in sorted(of, key=lambda r: r["path"])
    )
    classes = tuple(sorted({record.label for record in records}))
    named = tuple(part for part in PARTS if any(record.part == part for record in records))
    dataset = Dataset(Path(), records, classes, FolderStorage(Path()), named)
    return {record.path: record.part for record in split(Audit(dataset, ()), **options).dataset.used()}


def with_parts(of: Sequence[Row], *, blank: float, mixed: bool = False, seed: int = 0) -> list[Row]:
    """Rows with parts, those of a group in one unless `mixed`."""
    draw = random.Random(seed)
    home: defaultdict[str, str] = defaultdict(
        lambda: draw.choice(("train", "train", "train", "validation", "test"))
    )
    made = []
    for number, row in enumerate(of):
        part = home[str(number) if mixed else row["group"] or str(number)]
        part = "" if draw.random() < blank else part
        made.append({"path": row["path"], "label": row["label"], "group": row["group"], "part": part})
    return made


@pytest.mark.parametrize("options", [{}, {"repair": True}, {"allow_leaks": True}])
def test_parts_that_were_given_are_kept_as_in_memory(tmp_path: Path, options: dict[str, bool]) -> None:
    of = with_parts(some_rows(1500), blank=0.3, mixed=bool(options))
    made = divided(write_list(tmp_path / "m.parquet", of), **options)
    part, expected = parts(made, of), in_memory(of, **options)
    if "repair" not in options:
        assert part == expected
    tally = [Counter((row["label"], found[row["path"]]) for row in of) for found in (part, expected)]
    assert tally[0] == tally[1]
    assert (made.crossing > 0) == bool(options.get("allow_leaks"))
    assert any("images without a part: they train" in reason for reason in made.reasons)


def test_a_group_in_two_given_parts_is_refused_as_in_memory(tmp_path: Path) -> None:
    of = with_parts(some_rows(700), blank=0.0, mixed=True)
    of = [{**row, "group": f"g{i % 5}" if i < 50 else ""} for i, row in enumerate(of)]
    with pytest.raises(SplitError) as in_flat:
        divided(write_list(tmp_path / "m.parquet", of))
    with pytest.raises(SplitError) as expected:
        in_memory(of)
    assert str(in_flat.value) == str(expected.value)


def test_validation_comes_of_the_training_images(tmp_path: Path) -> None:
    of = [
        {**row, "part": row["part"].replace("validation", "train")}
        for row in with_parts(some_rows(2000), blank=0)
    ]
    made = divided(write_list(tmp_path / "m.parquet", of))
    part = parts(made, of)
    assert all(part[row["path"]] == "test" for row in of if row["part"] == "test")
    trained = sum(row["part"] == "train" for row in of)
    assert made.sizes()["validation"] == pytest.approx(0.15 * trained, rel=0.05)
    assert in_two_parts(part, [{**row, "size": 0} for row in of], "group") == []
    assert any("no validation part was given" in reason for reason in made.reasons)
    of = [{**row, "part": "train" if row["label"] != "class_0" else "test"} for row in of]
    with pytest.raises(SplitError, match="no training images of 'class_0'"):
        divided(write_list(tmp_path / "m.parquet", of), allow_leaks=True)


def test_other_names_of_columns_and_parts(tmp_path: Path) -> None:
    of = [
        {"file": row["path"], "kind": row["label"], "split": "val" if row["group"] == "" else "training"}
        for row in some_rows(900)
    ]
    made = divided(write_list(tmp_path / "m.parquet", of, root=""), Columns("file", "kind"))
    assert {row["split"]: PARTS[p] for row, p in zip(of, made.parts.tolist(), strict=True)} == {
        "val": "validation",
        "training": "train",
    }
    with pytest.raises(SourceError, match="no column 'sort'"):
        divided(tmp_path / "m.parquet", Columns("file", "sort"))


# -- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def photos(make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of drawn pictures that counts as large."""
    root = make_photos(images=20, side=8, suffix=".jpg")
    (root / "bar/copy.jpg").write_bytes((root / "bar/bar_003.jpg").read_bytes())
    write_index(str(root), tmp_path / "manifest.parquet", hashes=True)
    monkeypatch.setattr(rows, "LARGE_ROWS", 50)
    return tmp_path / "manifest.parquet"


def run_split(data: Path, out: Path, *, folds: int = 0, **fields: Any) -> None:
    recipe = Recipe()
    recipe = recipe.model_copy(update={"split": recipe.split.model_copy(update=fields)})
    split_data(str(data), recipe, Terminal(), out=str(out), folds=folds)


def test_the_list_that_comes_of_it_is_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photos.with_name("elsewhere") / "divided.parquet"
    run_split(photos, out, group_pattern=r"_0(\d\d)\.|copy")
    said = capsys.readouterr().out
    assert "Data      61 images in 3 classes (bar 21, checker 20, disc 20)" in said
    assert "no group or SHA-256 is in two parts" in said
    assert "near-duplicates and unreadable ones are unknown: `saccade audit`" in said
    assert capsys.readouterr().err == ""
    here = load_source(photos)
    there = load_source(out)
    assert there.given_parts == ("train", "validation", "test")
    assert [(r.path, r.label) for r in there.records] == [(r.path, r.label) for r in here.records]
    assert there.root == here.root
    part = {record.path: record.part for record in there.records}
    assert part["bar/copy.jpg"] == part["bar/bar_003.jpg"]
    assert {record.group for record in there.records} == {*(f"{i:02d}" for i in range(20)), ""}
    assert parquet.read_schema(out).names[:4] == ["path", "label", "part", "group"]
    again = split(Audit(there, ()))
    assert {record.path: record.part for record in again.dataset.used()} == part


def test_images_of_an_earlier_list_keep_their_part(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = photos.with_name("divided.parquet")
    run_split(photos, out)
    before = dict(zip(*(parquet.read_table(out)[name].to_pylist() for name in ("path", "part")), strict=True))
    root = photos.with_name("photos")
    gone = next(path for path, part in before.items() if part == "train" and path != "bar/copy.jpg")
    test = next(path for path, part in before.items() if part == "test")
    (root / gone).unlink()
    for i in range(6):
        (root / f"disc/new_{i}.jpg").write_bytes((root / test).read_bytes() if i == 0 else bytes([i]))
    (root / "disc/new_0.jpg").rename(root / test.split("/")[0] / "new_0.jpg")
    write_index(str(root), photos, hashes=True)
    run_split(photos, out)
    after = dict(zip(*(parquet.read_table(out)[name].to_pylist() for name in ("path", "part")), strict=True))
    assert len(after) == 66
    assert {path: after[path] for path in before if path != gone} == {
        p: w for p, w in before.items() if p != gone
    }
    assert after[f"{test.split('/')[0]}/new_0.jpg"] == "test"
    said = capsys.readouterr().out
    assert "1 images of the earlier split are no longer in use" in said
    assert "60 images kept the part they had in" in said


def test_what_needs_the_images_is_refused(photos: Path) -> None:
    with pytest.raises(SplitError, match=r"not the name of a \.parquet file.*has 61 rows"):
        run_split(photos, photos.with_suffix(".csv"))
    with pytest.raises(SplitError, match="no folds"):
        run_split(photos, photos.with_name("d.parquet"), folds=5)
    with pytest.raises(SplitError, match="is the list that is to be divided"):
        run_split(photos, photos)
    other = write_list(photos.with_name("other.parquet"), with_parts(some_rows(60), blank=0))
    with pytest.raises(SplitError, match="images of another place"):
        run_split(photos, other)


def test_memory_is_asked_about_before_it_is_taken(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(load_source(photos).records) == 61
    assert "61 rows; their records alone take 0.0 GB of memory" in capsys.readouterr().err
    monkeypatch.setattr(rows, "usable_memory", lambda: 1000)
    with pytest.raises(SourceError, match=r"and 0\.0 GB are free") as refused:
        load_source(photos)
    assert "`predict` hold no records" in refused.value.hint
    monkeypatch.setattr(rows, "LARGE_ROWS", 100)
    assert len(load_source(photos).records) == 61
    assert capsys.readouterr().err == ""
