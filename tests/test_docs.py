"""README and docs name only commands, flags and files that exist."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest

from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS
from saccade.cli.parsing import parsed

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HISTORY = "lab-notes.md"  # commands of their day


def commands(page: Path) -> list[str]:
    """Lines of code blocks that call saccade, without what a shell would expand."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("saccade ")]


FOUND = [(page.name, line) for page in PAGES if page.name != HISTORY for line in commands(page)]


def test_pages_and_commands_are_found() -> None:
    assert len(PAGES) > 10
    assert len(FOUND) > 20
    assert sum(name == "README.md" for name, _ in FOUND) > 15


@pytest.mark.parametrize(("page", "line"), FOUND)
def test_each_command_of_a_page_is_one(page: str, line: str) -> None:
    words = shlex.split(line.partition("  ")[0], comments=True)[1:]
    command, given = parsed(words)
    assert command.__name__ in (words[0], "print_help")
    assert given.arguments or words[0] in ("demo", "doctor")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_python_example_of_the_readme_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


ELSEWHERE = {
    "--busy",
    "--cores",
    "--decays",
    "--minutes",
    "--only",
    "--rounds",
    "--seeds",
}  # of the benchmarks


def flags_of_the_command_line() -> set[str]:
    from saccade.cli.flags import recipe_parameters

    known = {"--help", "--help-all"}
    for command in COMMANDS:
        own = inspect.signature(command, eval_str=True).parameters.values()
        more = recipe_parameters(command.__name__) if command in RECIPE_COMMANDS else []
        for parameter in (*own, *more):
            known.add(f"--{parameter.name.replace('_', '-')}")
            for note in getattr(parameter.annotation, "__metadata__", ()):
                known |= {*(note.name or ()), *(note.negative or ())}
    return known


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_each_flag_of_a_page_is_one(page: Path) -> None:
    if page.name == HISTORY:
        pytest.skip("flags of their day")
    code = " ".join(re.findall(r"`[^`]*`|^ {0,3}saccade .*$", page.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", code))
    assert sorted(named - flags_of_the_command_line() - ELSEWHERE) == []
