"""What is said of an audit."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from saccade.pipeline.words import say_findings
from saccade.records import Audit, Dataset, Finding, Severity
from saccade.terminal import Terminal


class Nothing:
    def read(self, path: str) -> bytes:
        raise NotImplementedError


def said(*severities: Severity) -> str:
    findings = tuple(
        Finding(f"kind_{i}", severity, f"Finding {i}", "Look") for i, severity in enumerate(severities)
    )
    stream = io.StringIO()
    say_findings(Audit(Dataset(Path(), (), (), Nothing()), findings), Terminal(stream=stream))
    return stream.getvalue()


def test_an_info_that_stands_alone_is_said() -> None:
    assert said("info") == "Audit     1 info\n  info    Finding 0. Look\n"


def test_of_many_infos_the_first_are_said() -> None:
    lines = said("info", "info", "info", "info", "info").splitlines()
    assert [line.split(".")[0] for line in lines[1:-1]] == [f"  info    Finding {i}" for i in range(3)]
    assert lines[-1] == "          and 2 more infos"


@pytest.mark.parametrize("grave", ["warning", "error"])
def test_beside_graver_findings_infos_are_counted(grave: Severity) -> None:
    assert said(grave, "info").splitlines() == [
        f"Audit     1 {grave}, 1 info",
        f"  {grave:<8}Finding 0. Look",
    ]
