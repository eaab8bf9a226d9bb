"""Progress in a notebook: seen in a real kernel, since nothing else shows what a cell's output becomes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from saccade.notebook.progress import NotebookTerminal, in_notebook, terminal_for
from saccade.terminal import Terminal

IN_KERNEL = """\
from saccade.notebook.progress import in_notebook, terminal_for
terminal = terminal_for(None)
terminal.say("Data  <b>7</b> & more", "two\\x1blines")
with terminal.progress("reading") as progress:
    progress(2, 2)
terminal.say("Report")
"""
AT_WORK = """\
terminal = terminal_for(False)
terminal.say("Data")
work = terminal.progress("reading", "files")
work.__enter__()(3, 12, "loss <1")
"""
SILENT = "terminal_for(True).say('never'); print(in_notebook())"


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    """What the cells show, executed by one kernel."""
    nbclient = pytest.importorskip("nbclient", reason="executes notebooks: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="is the kernel: pip install ipykernel")
    cells = [nbformat.v4.new_code_cell(source) for source in (IN_KERNEL, AT_WORK, SILENT)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120).execute()
    return [cell["outputs"] for cell in notebook["cells"]]


def test_all_lines_are_one_output_without_the_bar_in_the_end(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[0]
    assert "Data  &lt;b&gt;7&lt;/b&gt; &amp; more\ntwo\\x1blines\nReport</pre>" in shown["data"]["text/html"]
    assert "<progress" not in shown["data"]["text/html"]
    assert shown["data"]["text/plain"].endswith("lines\nReport")


def test_work_under_way_is_a_bar_below_the_lines(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[1]
    lines, bar = shown["data"]["text/html"].split("</pre>")
    assert lines.endswith(">Data")
    assert '<progress value="3" max="12"' in bar
    assert "reading: 3/12 files" in bar
    assert "loss &lt;1" in bar
    assert "[########    " in shown["data"]["text/plain"]


def test_a_part_of_longer_work_has_no_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = NotebookTerminal()
    monkeypatch.setattr(terminal, "show", lambda: None)
    for own_time in (True, False):
        with terminal.progress("reading", own_time=own_time) as progress:
            time.sleep(0.05)
            progress(1, 1000)
            assert (" s left" in terminal._text()) is own_time


def test_quiet_says_nothing_also_in_a_notebook(outputs: list[list[Any]]) -> None:
    (printed,) = outputs[2]
    assert printed["text"] == "True\n"


def test_outside_a_notebook_only_quiet_false_is_heard() -> None:
    assert not in_notebook()
    assert [terminal_for(quiet).quiet for quiet in (None, True, False)] == [True, True, False]
    assert not any(isinstance(terminal_for(quiet), NotebookTerminal) for quiet in (None, True, False))
    assert type(terminal_for(False)) is Terminal
