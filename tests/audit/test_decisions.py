"""A decisions file is read whole or refused with every bad row named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saccade.audit.decisions import (
    Decisions,
    NewLabel,
    decided_in,
    decisions_beside,
    meant,
    parse_decisions,
    parted_in,
    read_decisions,
    relabelled,
)
from saccade.errors import DataError
from saccade.pipeline.prepare import decisions_of, read_images
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal

HEAD = "path,other,decision\n"


def test_each_kind_of_decision(tmp_path: Path) -> None:
    (tmp_path / "audit-decisions.csv").write_text(
        f"{HEAD}a/1.jpg,b/2.jpg,not a duplicate\na/3.jpg,,keep\n\na/4.jpg,,drop\n"
    )
    path = decisions_beside(tmp_path)
    assert path is not None
    decisions = read_decisions(path)
    assert decisions == Decisions(
        frozenset({frozenset({"a/1.jpg", "b/2.jpg"})}), frozenset({"a/3.jpg"}), frozenset({"a/4.jpg"})
    )
    assert decisions.parted("b/2.jpg", "a/1.jpg")
    assert not decisions.parted("a/1.jpg", "a/3.jpg")
    assert len(decisions) == 3


def test_no_file_no_decisions(tmp_path: Path) -> None:
    assert decisions_beside(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,other,decision\r\na.jpg,,keep\r\n",
        "path;other;decision\na.jpg;;keep\n",
        "decision,path\nkeep,a.jpg\n",
        'Path, Decision\n"a.jpg", keep\n'.replace('"', ""),
    ],
)
def test_dialects_of_spreadsheets(text: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8", newline="")
    assert read_decisions(tmp_path / "d.csv").kept == {"a.jpg"}


def test_names_that_no_encoding_knows_survive(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(HEAD.encode() + b"a\xff,b.jpg,,keep\n".replace(b",b", b"_b"))
    assert read_decisions(tmp_path / "d.csv").kept == {"a\udcff_b.jpg"}


def test_every_bad_row_is_named_with_its_line() -> None:
    text = HEAD + (
        "a.jpg,,kepe\n"
        ",,drop\n"
        "a.jpg,a.jpg,not a duplicate\n"
        "b.jpg,,not a duplicate\n"
        "c.jpg,,keep\n"
        "c.jpg,,drop\n"
        "d.jpg,,banana\n"
    )
    with pytest.raises(DataError) as caught:
        parse_decisions(text, where="D.csv")
    message = str(caught.value)
    assert message.startswith("D.csv: 6 rows cannot be used")
    for part in (
        "line 2: unknown decision 'kepe'; did you mean 'keep'?",
        "line 3: no path",
        "line 4: 'not a duplicate' needs a second image",
        "line 5: 'not a duplicate' needs a second image",
        "line 7: 'c.jpg' is to drop, but line 6 says keep",
        "line 8: unknown decision 'banana'; known: not a duplicate, keep, drop",
    ):
        assert part in message


def test_line_numbers_count_quoted_newlines() -> None:
    with pytest.raises(DataError, match="line 4: unknown decision"):
        parse_decisions(f'{HEAD}"two\nlines.jpg",,keep\na.jpg,,no\n', where="D.csv")


@pytest.mark.parametrize(
    ("text", "words"), [("", "no column path and decision"), ("path,other\n", "no column")]
)
def test_a_missing_column_is_named(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_decisions(text, where="D.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv cannot be read"):
        read_decisions(tmp_path / "nowhere.csv")


def test_a_repeated_row_is_no_contradiction() -> None:
    assert parse_decisions(f"{HEAD}a,,keep\na,,keep\n", where="D.csv").kept == {"a"}


def test_a_row_that_is_too_long_is_refused_instead_of_shifted() -> None:
    with pytest.raises(DataError, match="line 2: 4 fields where the header names 3; quote a path"):
        parse_decisions(f"{HEAD}a,b.jpg,,drop\n", where="D.csv")


def test_utf_16_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"{HEAD}ä.jpg,,keep\n", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16 text\nhint: save it as UTF-8"):
        read_decisions(tmp_path / "d.csv")


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("Käfer/1.jpg", "cp1252"), ("Käfer/1.jpg", "mac_roman"), ("Škoda/1.jpg", "cp1250")],
)
def test_names_saved_by_a_spreadsheet_find_their_file(name: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(f"path;other;decision\n{name};;keep\n".encode(encoding))
    assert meant(read_decisions(tmp_path / "d.csv"), ["a.jpg", name]).kept == {name}


def test_bytes_that_are_the_name_come_before_an_encoding(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(HEAD.encode() + b"\xe4.jpg,,keep\n\xe4.jpg,x\\y.jpg,not a duplicate\n")
    decisions = meant(read_decisions(tmp_path / "d.csv"), ["\udce4.jpg", "ä.jpg", "x/y.jpg"])
    assert decisions.kept == {"\udce4.jpg"}
    assert decisions.parted("\udce4.jpg", "x/y.jpg")


# -- new labels ------------------------------------------------------------------------------------------

NEW = "path,label,decision,new_label\n"


def data(*labels: str) -> Dataset:
    records = tuple(ImageRecord(f"{number}.jpg", label) for number, label in enumerate(labels))
    return Dataset(Path(), records, tuple(sorted(set(labels))), FolderStorage(Path()))


def test_an_image_gets_the_label_that_was_decided_on() -> None:
    decided = parse_decisions(f'{NEW}0.jpg,cat,relabel,dog\n"1.jpg","dog","keep",""\n', where="x/d.csv")
    assert decided.relabelled == {"0.jpg": NewLabel("dog", 2, "x/d.csv")}
    assert decided.name == "d.csv"
    assert [record.label for record in relabelled(data("cat", "dog"), decided).records] == ["dog", "dog"]


def test_a_label_that_begins_like_a_formula_is_read_as_it_was_meant() -> None:
    assert parse_decisions(f"{NEW}a.jpg,,relabel,'=x\n", where="d").relabelled["a.jpg"].label == "=x"


def test_new_labels_of_nothing_are_refused_with_file_and_line() -> None:
    text = f"{NEW}9.jpg,cat,relabel,dog\n0.jpg,cat,relabel,dig\n1.jpg,dog,relabel,dog\n"
    with pytest.raises(DataError) as caught:
        relabelled(data("cat", "dog"), parse_decisions(text, where="x/d.csv"))
    message = str(caught.value)
    assert message.startswith("x/d.csv: 2 rows cannot be used")
    assert "line 2: no image '9.jpg' in the data" in message
    assert "line 3: no class 'dig' in the data; did you mean 'dog'?" in message


def test_new_labels_that_are_missing_or_two_are_refused() -> None:
    text = f"{NEW}a.jpg,,relabel,\nb.jpg,,relabel,dog\nb.jpg,,relabel,cat\nb.jpg,,relabel,dog\n"
    with pytest.raises(DataError) as caught:
        parse_decisions(text, where="d.csv")
    assert "line 2: 'relabel' needs a label; name it in the column 'new_label'" in str(caught.value)
    assert "line 4: 'b.jpg' is to relabel to 'cat', but line 3 says relabel to 'dog'" in str(caught.value)
    assert "2 rows" in str(caught.value)


def test_of_two_files_the_named_one_wins(tmp_path: Path) -> None:
    (tmp_path / "audit-decisions.csv").write_text(
        f"{HEAD}0.jpg,,drop\n1.jpg,,drop\n1.jpg,2.jpg,not a duplicate\n"
    )
    (tmp_path / "decisions.csv").write_text(f"{NEW}0.jpg,cat,relabel,dog\n2.jpg,cat,keep,\n")
    dataset = replace(data("cat", "dog", "cat"), root=tmp_path)
    recipe = Recipe.from_mapping({"data.decisions": str(tmp_path / "decisions.csv")})
    found = decisions_of(dataset, recipe)
    assert (found.dropped, found.kept, set(found.relabelled)) == ({"1.jpg"}, {"2.jpg"}, {"0.jpg"})
    assert found.parted("1.jpg", "2.jpg")
    assert found.name == "audit-decisions.csv and decisions.csv"
    assert decisions_of(dataset, Recipe()).dropped == {"0.jpg", "1.jpg"}


def test_a_wrong_row_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "decisions.csv").write_text(f"{NEW}0.jpg,cat,relabel,bird\n")
    recipe = Recipe.from_mapping({"data.decisions": str(tmp_path / "decisions.csv")})
    with pytest.raises(DataError, match="line 2: no class 'bird'"):
        read_images(data("cat", "dog"), recipe, Terminal(quiet=True))


def test_an_audit_tells_what_was_decided() -> None:
    found = [
        {"kind": "relabelled", "paths": ["a"], "figure": {"labels": {"a": ["cat", "dog"]}}},
        {"kind": "blurred", "paths": ["b"], "figure": {}},
        {"kind": "dropped", "paths": ["c"]},
    ]
    parted = {"kind": "parted", "paths": ["a", "b"], "figure": {"pairs": [["a", "b"]]}}
    audit = {"findings": [*found, parted]}
    assert decided_in(audit) == (("a", "relabel", "cat", "dog"), ("c", "drop", "", ""))
    assert parted_in(audit) == (("a", "b"),)
