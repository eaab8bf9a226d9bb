"""The template of decisions: what is in it, where it must lie, and that it is never lost."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from PIL import Image

from saccade.audit.decisions import parse_decisions, read_decisions
from saccade.audit.findings import finding
from saccade.audit.to_decide import HEADER, rows_to_decide
from saccade.cli import main


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes; one blank picture in each, so that there is something to decide."""
    for label, shade in (("cat", 30), ("dog", 200)):
        for number in range(4):
            file = tmp_path / "photos" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = Image.effect_noise((64, 64), 40 + 5 * number)
            Image.merge("RGB", [noise, noise.rotate(90), Image.new("L", (64, 64), shade)]).save(file)
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(tmp_path / "photos" / label / "blank.png")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_audit_writes_a_template_says_where_it_must_lie_and_keeps_what_is_filled_in(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = Path("audit/audit-decisions.csv")
    assert main(["audit", "photos", "--out", "audit"]) == 1
    said = capsys.readouterr().out
    text = template.read_text()
    assert text.startswith(f"{','.join(HEADER)}\n")
    assert "cat/blank.png,,,keep | drop,blank" in text
    assert f"put it beside the data as {photos / 'audit-decisions.csv'}" in said
    assert len(read_decisions(template)) == 0, "as it is, it decides nothing"

    filled = text.replace("cat/blank.png,,,", "cat/blank.png,,drop,")
    template.write_text(filled)
    main(["audit", "photos", "--out", "audit"])
    assert "audit-decisions.csv is filled in and stays as it is" in capsys.readouterr().out
    assert template.read_text() == filled

    (photos / "audit-decisions.csv").write_text(filled)
    main(["audit", "photos", "--out", "second"])
    said = capsys.readouterr().out
    assert "(cat 4, dog 5); 1 set aside" in said
    assert f"add its rows to {photos / 'audit-decisions.csv'}" in said
    assert "cat/blank.png" not in Path("second/audit-decisions.csv").read_text()


def test_pairs_and_single_images_have_their_own_words() -> None:
    pair = [["a.jpg", "b.jpg", "certain", 1.0, ""]]
    rows = rows_to_decide(
        [
            finding("near_duplicates", "two alike", paths=["a.jpg", "b.jpg"], figure={"pairs": pair}),
            finding("possible_duplicates", "the same again", figure={"pairs": pair}),
            finding("tiny", "small", paths=["c.jpg", "=d.jpg"]),
            finding("shortcut", "nothing to decide", paths=["e.jpg"]),
        ]
    )
    assert [row[:4] for row in rows] == [
        ("a.jpg", "b.jpg", "", "not a duplicate"),
        ("c.jpg", "", "", "keep | drop"),
        ("=d.jpg", "", "", "keep | drop"),
    ]


def test_rows_without_a_decision_are_passed_over() -> None:
    text = "path,other,decision,choose from\na.jpg,,,keep | drop\nb.jpg,,drop,keep | drop\n"
    assert parse_decisions(text, where="d.csv").dropped == {"b.jpg"}


def test_a_file_of_a_german_spreadsheet_is_taken(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "dog").rename(photos / "Käfer")
    main(["audit", "photos", "--out", "audit"])
    template = Path("audit/audit-decisions.csv")
    assert template.read_bytes().startswith(codecs.BOM_UTF8), "Excel shows umlauts only behind that mark"
    assert len(read_decisions(template)) == 0
    filled = "path;other;decision\nKäfer/blank.png;;drop\nKäfer/weg.png;;keep\n"
    (photos / "audit-decisions.csv").write_bytes(filled.encode("cp1252"))
    capsys.readouterr()
    main(["audit", "photos", "--out", "second"])
    said = capsys.readouterr().out
    assert "1 set aside" in said
    assert "warning audit-decisions.csv names 1 file that the data lacks: K\\udce4fer/weg.png" in said
    assert "CSV UTF-8" in said
    assert json.loads(Path("second/audit.json").read_bytes().decode("utf-8"))["set_aside"] == 1
