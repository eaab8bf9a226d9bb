"""How lines look on a real terminal, and elsewhere."""

from __future__ import annotations

import io

import pytest

from saccade.terminal import Terminal, counted, wrapped


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nouns_agree_with_their_number() -> None:
    assert counted(1, "class", "classes") == "1 class"
    assert counted(1200, "class", "classes") == "1,200 classes"
    assert counted(0, "image") == "0 images"


def test_long_lines_break_between_words_and_keep_the_label_free() -> None:
    lines = wrapped("Diagnosis " + "word " * 40, 60).split("\n")
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 10 + "word") for line in lines[1:])
    assert " ".join(lines).split() == ["Diagnosis", *["word"] * 40]


def test_paths_are_not_broken_and_short_lines_stay_as_they_are() -> None:
    path = "runs/" + "long-name-" * 12 + "/report.html"
    assert path in wrapped(f"Report    {path}", 40)
    assert wrapped("  layer   output\n\n  a       b", 40) == "  layer   output\n\n  a       b"


def test_only_a_terminal_gets_broken_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    screen, pipe = Screen(), io.StringIO()
    for stream in (screen, pipe):
        Terminal(stream=stream).say("Diagnosis " + "word " * 20)
    assert len(pipe.getvalue().splitlines()) == 1
    assert len(screen.getvalue().splitlines()) > 2
