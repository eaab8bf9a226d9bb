"""How lines look on a real terminal, and elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from saccade.terminal import Terminal, counted, drop_output, wrapped


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


# ── names that want to be more than names ────────────────────────────────────────────────────────────

HOSTILE = {
    "clears the screen": "cat\x1b[2J\x1b[H.jpg",
    "hides the line before": "cat\x1b[1A\x1b[2K.jpg",
    "paints": "cat\x1b[31mred\x1b[0m",
    "sets the window's title": "cat\x1b]0;owned\x07",
    "makes a link": "cat\x1b]8;;http://example.org\x1b\\here\x1b]8;;\x1b\\",
    "8-bit control sequence": "cat\x9b2J",
    "8-bit operating system command": "cat\x9d0;owned\x9c",
    "begins the line anew": "cat\rAll is well",
    "begins a line of its own": "cat\nAudit     nothing found",
    "other line ends": "cat\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029dog",
    "rubs out": "cat\b\b\b\x7fdog",
    "bell": "cat\x07",
    "nul": "cat\x00dog",
    "tab": "cat\tdog",
    "turns the direction": "cat\u202egpj.exe",
    "isolates a direction": "cat\u2067gpj\u2069",
    "marks a direction": "cat\u200f\u200e\u061c",
    "cannot be seen": "cat\u200b\ufeff\u2060dog",
    "tags": "cat\U000e0041\U000e0042",
    "bytes that are no UTF-8": "cat\udce9\udcff",
    "half of a pair": "cat\ud800",
    "shifts the character set": "cat\x0e\x0f",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_never_reaches_the_terminal_raw(name: str) -> None:
    text = HOSTILE[name]
    for stream in (Screen(), io.StringIO()):
        terminal = Terminal(stream=stream)
        terminal.say("a warning that must be seen")
        terminal.say(f"{text}: tulip 99 %")
        shown = stream.getvalue()
        lines = shown.split("\n")
        assert lines[0] == "a warning that must be seen"
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)
        assert "cat" in shown
        assert "tulip 99 %" in shown


def test_what_is_harmless_stays_as_it_is() -> None:
    for text in ("Füchse", "キツネ", "🦊", "e\u0301", "a \\ b", "naïve [red] {x}", "עברית"):
        stream = io.StringIO()
        Terminal(stream=stream).say(text)
        assert stream.getvalue() == text + "\n"


def test_several_lines_are_several_arguments() -> None:
    stream = io.StringIO()
    Terminal(stream=stream).say("", "one", "two\nthree")
    Terminal(stream=stream).say()
    assert stream.getvalue() == "\none\ntwo\\nthree\n\n"


def test_a_bar_shows_names_and_obeys_none() -> None:
    screen = Screen()
    with Terminal(stream=screen).progress("reading [/red]") as progress:
        progress(1, 2, "[/bold]\x1b]0;owned\x07\ncat.jpg")
    assert "]0;owned" not in screen.getvalue().replace("\\x1b]0;owned", "")
    assert "\x07" not in screen.getvalue()


def test_a_warning_in_a_quiet_program_is_printable() -> None:
    with pytest.warns(UserWarning, match=r"^cat\\x1b\[2J dog$"):
        Terminal(quiet=True).warn("cat\x1b[2J\ndog")
    with pytest.warns(UserWarning, match=r"^cat; call a vet$"):
        Terminal(quiet=True).warn("cat", hint="call a vet")


def test_python_warnings_are_said_as_others_on_the_command_line() -> None:
    code = (
        "import sys, warnings; sys.argv = ['saccade', 'doctor']\n"
        "from saccade import cli, doctor\n"
        "doctor.examine = lambda terminal: warnings.warn('a tail\\n is long') or 0\n"
        "sys.exit(cli.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "warning: a tail is long\n")


def test_a_program_without_an_output_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    terminal = Terminal()
    terminal.say("nobody hears it")
    with terminal.progress("nor sees it") as progress:
        progress(1, 2)
    with pytest.warns(UserWarning, match="a warning"):
        terminal.warn("a warning")


def _without_reader() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def test_work_goes_on_where_the_reader_has_gone() -> None:
    with _without_reader() as stream:
        terminal = Terminal(stream=stream)
        terminal.say("nobody")
        terminal.say("reads this")
        with terminal.progress("reading images") as progress:
            progress(1, 2)


def test_a_command_that_only_prints_hears_that_the_reader_has_gone() -> None:
    with _without_reader() as stream:
        with pytest.raises(BrokenPipeError):
            Terminal(stream=stream, lasting=False).say("nobody")
        drop_output(stream)


def test_a_full_disk_behind_the_output_is_an_error_still() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as stream:
        with pytest.raises(OSError, match="No space left"):
            Terminal(stream=stream).say("nobody")
        drop_output(stream)


def test_plain_progress_says_only_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("saccade.terminal.time.monotonic", lambda: now[0])
    screen = io.StringIO()
    with Terminal(stream=screen).progress("reading") as progress:
        for seconds, done, detail in ((5, 50, ""), (20, 100, "loss 0.3"), (40, 400, ""), (1000, 401, "done")):
            now[0] = 100.0 + seconds
            progress(done, 400 if done == 400 else 500, detail)
    assert screen.getvalue().splitlines() == [
        "  reading: 100/500 images, 5/s, 80 s left, loss 0.3",
        "  reading: 400/400 images, 10/s",
        "  reading: 401/500 images, 4 min left, done",
    ]
