"""README and docs name only commands, flags and files that exist."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import elsewhere
from saccade.cli.commands import COMMANDS, RECIPE_COMMANDS
from saccade.cli.flags import chosen_recipe, recipe_parameters
from saccade.cli.parsing import parsed
from saccade.errors import RecipeError

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HISTORY = "lab-notes.md"  # commands of their day


def ours(page: Path) -> str:
    """The page; of a dictionary (`from-timm.md`) without the first column, where other tools speak."""
    text = page.read_text("utf-8")
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE) if page.name.startswith("from-") else text


def commands(page: Path) -> list[str]:
    """Lines of code blocks that call saccade, without what a shell would expand."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("saccade ")]


FOUND = [(page.name, line) for page in PAGES if page.name != HISTORY for line in commands(page)]


def test_pages_and_commands_are_found() -> None:
    assert len(PAGES) > 10
    assert len(FOUND) > 20
    assert sum(name == "README.md" for name, _ in FOUND) > 10


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


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_the_python_of_a_page_is_python(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks or page.name != "README.md"
    for block in blocks:
        compile(block, page.name, "exec")


ELSEWHERE = {
    "--backend-store-uri",
    "--bind",
    "--busy",
    "--cap-drop",
    "--cores",
    "--data-binary",
    "--decays",
    "--keep-statistics",
    "--kill-on-bad-exit",
    "--max-restarts",
    "--minutes",
    "--model-repository",
    "--node",
    "--nproc-per-node",
    "--only",
    "--plan",
    "--read-only",
    "--rm",
    "--rounds",
    "--rows",
    "--security-opt",
    "--seeds",
}  # of Python's web server, the benchmarks, Docker, curl, Triton, torchrun


def flags_of_the_command_line() -> set[str]:
    known = {"--help", "--help-all", *(f"--{name.replace('_', '-')}" for name in elsewhere.FLAGS)}
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
    code = " ".join(re.findall(r"`[^`]*`|^ {0,3}saccade .*$", ours(page), re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", code))
    assert sorted(named - flags_of_the_command_line() - ELSEWHERE) == []


# -- the pages "Coming from ..." --------------------------------------------------------------------

DICTIONARIES = [page for page in PAGES if page.name.startswith("from-")]


def said_in_cells(page: Path) -> list[str]:
    """`saccade ...` and flags of `saccade train`, as the table cells of a dictionary have them."""
    rows = "\n".join(line for line in ours(page).splitlines() if line.startswith("|"))
    code = re.findall(r"`([^`]*)`", rows)
    return [words for words in code if re.match(r"saccade \w+ |--", words)]


def flags_there(cell: str) -> list[list[str]]:
    """Flags of another tool, each with its values: [--opt, adamw] or [imgsz=224]; no calls or whole lines."""
    flags: list[list[str]] = []
    for code in re.findall(r"`([^`]*)`", cell):
        if re.match(r"--?\w", code):
            flags += [shlex.split(flag) for flag in re.findall(r"--?[a-z]\S*(?: [^-]\S*)*", code)]
        elif re.match(r"(?!data=)\w+=", code) and "(" not in code:
            flags += [[f"{key}={value}"] for key, value in re.findall(r'(\w+)="?([\w.-]+)', code)]
    return flags


def flags_in(text: str) -> list[str]:
    return [flag.replace("--no-", "--") for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", text)]


def typed_there() -> list[tuple[list[str], list[str]]]:
    """(a flag there, the flags here that may be its answer); in step where a row has as many of both."""
    pairs = []
    for page in DICTIONARIES:
        rows = [line.split("|") for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
        for _, left, right, *_ in rows:
            there, here = flags_there(left), flags_in(right)
            in_step = [[flag] for flag in here] if len(there) == len(here) else [here] * len(there)
            pairs += zip(there, in_step, strict=True)
    return pairs


TYPED = typed_there()


def test_the_flags_of_other_tools_are_found() -> None:
    assert len(TYPED) > 90


@pytest.mark.parametrize(("there", "here"), TYPED, ids=[" ".join(there) for there, _ in TYPED])
def test_the_command_answers_a_flag_of_another_tool_as_the_page_does(
    there: list[str], here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = ["train", "photos", *there], io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            parsed(words)
        except RecipeError as error:
            words = [str(error)]
    answer = f"{' '.join(words)} {said.getvalue()}"
    if here:
        assert set(flags_in(answer)) & set(here), answer
    else:
        assert "has no --" in answer or "is not needed" in answer, answer


TABLES = [*DICTIONARIES, ROOT / "docs" / "index.md"]
SAID = [(page.name, words) for page in TABLES for words in said_in_cells(page)]


def test_each_table_says_much() -> None:
    for page in TABLES:
        assert sum(name == page.name for name, _ in SAID) > 10, page.name
    assert len(DICTIONARIES) == 5


def recipe_of(words: list[str]) -> Any:
    """The recipe of a command line, each value checked; None where the command has none."""
    command, given = parsed(words)
    if command not in RECIPE_COMMANDS:
        return None
    fields = {field.name for field in recipe_parameters(command.__name__)} & given.arguments.keys()
    return chosen_recipe(command.__name__, {name: given.arguments[name] for name in fields}, "")[0]


def test_a_value_that_no_field_takes_is_refused() -> None:
    assert recipe_of(["train", "photos", "--epochs", "7"]).train.epochs == 7
    with pytest.raises(RecipeError, match="schedule"):
        recipe_of(["train", "photos", "--schedule", "circle"])


def field_of(flag: str) -> str:
    """The recipe field, with `__` for the dot, that a flag of `saccade train` sets."""
    name = elsewhere.FLAGS.get(elsewhere.plain(flag), flag)
    parameters = recipe_parameters("train")
    return next(field.name for field in parameters if name in field.annotation.__metadata__[0].name)


@pytest.mark.parametrize(("page", "said"), SAID)
def test_what_a_table_says_is_taken(page: str, said: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(said)
    if words[0] == "saccade":
        recipe_of(words[1:])
    elif len(words) > 1 and words[0] != "--out":  # of a flag alone the name is checked above
        values = dict(zip(words[::2], words[1::2], strict=True))
        chosen_recipe("train", {field_of(flag): text for flag, text in values.items()}, "")


# -- the site -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built: fails where a page is missing in `nav`, or a link or an anchor leads nowhere."""
    pytest.importorskip("material", reason="the site needs mkdocs-material (the extra docs)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    pages = {page.stem for page in PAGES} - {"README"}
    assert len(pages) > 10
    assert pages <= {page.stem for page in site.glob("*.html")}
    home = (site / "index.html").read_text("utf-8")
    nav = home[: home.index("<article")]  # the menu stands before the text
    assert sorted(page for page in pages if f'href="{page}.html"' not in nav) == []


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.glob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 10
    fetched = r"<(?:script|img|iframe|link)[^>]*(?:src|href)=\"?https?:[^>]*>|url\([\"']?https?:[^)]*"
    assert [found for page in pages for found in re.findall(fetched, page.read_text("utf-8"))] == []
