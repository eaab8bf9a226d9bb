"""What the diagnosis reads of a run folder: the audit's figures, and the command to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_example import ExampleRun

from saccade.report import write_report
from saccade.report.facts import read_facts
from saccade.run_folder import RunFolder


def finding(kind: str, figure: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind, "severity": "info", "confidence": "likely", "message": "m", "remedy": "r", "paths": [],
        "figure": figure,
    }  # fmt: skip


def with_findings(run: RunFolder, *findings: dict[str, Any]) -> RunFolder:
    audit = run.read_audit()
    run.write_audit({**audit, "findings": [*audit["findings"], *findings]})
    return run


def test_the_audit_tells_of_shortcuts_and_parts(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path)
    answers = example.predictions("test")
    half = dict(zip(answers.paths[:30], answers.labels[:30], strict=True))
    wrong = dict.fromkeys(answers.paths[30:], "tulip")
    shortcut = {"property": "light", "accuracy": 0.8, "guesses": half | wrong, "of_the_file": False}
    before = {"property": "size", "accuracy": 0.8}  # of a run that was made before guesses were kept
    shift = {"part": "test", "properties": []}
    run = with_findings(
        example.write(),
        *(finding("shortcut", figure) for figure in (shortcut, before)),
        finding("part_shift", shift),
    )
    evidence = read_facts(run).evidence()
    (use,) = evidence.shortcuts
    tulips = answers.labels[30:].count("tulip")
    assert (use.alike, use.against) == (30 + tulips, 30 - tulips)
    assert evidence.differences == [shift]
    assert evidence.short_side == 96


def test_the_command_to_try_next_stands_on_the_first_screen(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path).write()
    told = {"kind": "overfitting", "severity": "warning", "message": "It is.", "remedy": "(--augment strong)"}
    run.update_record(diagnosis=(told,))
    page = write_report(run).read_text("utf-8")
    assert "saccade train &#39;my photos&#39; --out runs/x-2 --augment strong" in page
