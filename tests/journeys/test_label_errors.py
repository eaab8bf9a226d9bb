"""From wrong labels to the run that does without them: full report, decisions, training again, comparison."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.run_folder import RunFolder, read_csv

SMALL = ("--backbone", "small_cnn", "--image-size", "32", "--epochs", "6", "--lr", "3e-3")
WRONG = {"bar/disc_003.png": "disc", "bar/disc_011.png": "disc", "disc/checker_005.png": "checker"}


@pytest.mark.slow
def test_wrong_labels_are_found_decided_about_and_gone(
    make_photos: Callable[..., Path],
    saccade: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = make_photos(images=24)
    for name, true in WRONG.items():
        (photos / true / Path(name).name).rename(photos / name)
    old, new = tmp_path / "old", tmp_path / "old-2"
    assert saccade("train", photos, "--out", old, *SMALL)[0] == 0
    assert saccade("report", old, "--full")[0] == 0
    listed = read_csv(old / "report" / "label_errors.csv")
    assert len(listed) == 72
    assert len(WRONG.keys() & {row["path"] for row in listed[:12]}) >= 2, "a trained network doubts less"
    assert "decide.html" in (old / "report" / "report.html").read_text("utf-8")
    page = (old / "report" / "decide.html").read_text("utf-8")
    command = shlex.split(html.unescape(re.search(r"<pre><code>(.*?)</code>", page)[1]))

    test = next(r.path for r in RunFolder(old).read_dataset() if r.part == "test" and r.path not in WRONG)
    dropped = next(row["path"] for row in reversed(listed) if row["path"] not in {*WRONG, test})
    rows = [f"{path},,relabel,{true}" for path, true in WRONG.items()]
    apart = sorted(record.path for record in RunFolder(old).read_dataset()[-2:])
    pair = f"{apart[0]},,not a duplicate,,{apart[1]}"
    rows += [f"{test},,relabel,{'disc' if test.startswith('bar') else 'bar'}", f"{dropped},,drop,"]
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(
        "\n".join(["path,label,decision,new_label,other", *(f"{row}," for row in rows), pair])
    )
    monkeypatch.chdir(tmp_path)
    assert saccade(*command[1:])[0] == 0
    records = {record.path: record for record in RunFolder(new).read_dataset()}
    assert {path: records[path].label for path in WRONG} == WRONG
    assert records[dropped].note == "dropped by decisions.csv"
    code, out, _ = saccade("compare", old, new)
    assert code == 0
    assert "judged by the label that was decided on" in out

    assert saccade("report", new, "--full")[0] == 0
    again = {row["path"] for row in read_csv(new / "report" / "label_errors.csv")}
    assert len(again) == 72 - 5
    assert not again & {*WRONG, test}
    report = (new / "report" / "report.html").read_text("utf-8")
    assert "4 with another label" in report
    assert f'"not a duplicate", "", "{apart[1]}"' in (new / "report" / "decide.html").read_text("utf-8")
    decisions.write_text("path,decision,new_label\ndisc/none.png,relabel,bar\n")
    code, _, err = saccade("train", photos, "--out", tmp_path / "third", "--decisions", decisions, *SMALL)
    assert code == 2
    assert "decisions.csv: 1 row cannot be used" in err
    assert "line 2: no image 'disc/none.png' in the data" in err
