"""The measuring of time to accuracy: the clock, the files it watches, and the figures made from runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmarks() -> ModuleType:
    """The package beside the tests, which is no part of what is installed."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks import drawing, results, time_to_accuracy, tools
    finally:
        sys.path.remove(str(ROOT))
    package = ModuleType("benchmarks")
    package.__dict__.update(drawing=drawing, results=results, clock=time_to_accuracy, tools=tools)
    return package


SLOW_RIVAL = """
import sys, time
sys.path.insert(0, {rivals!r})
from common import arguments, note
asked = arguments("a rival that knows 0.5 at once and 0.75 half a second later")
note(asked.curve, 0.5)
time.sleep(0.5)
note(asked.curve, 0.75)
time.sleep({rest})
"""


@pytest.mark.parametrize(("rest", "state"), [(0, "finished"), (30, "stopped")])
def test_the_clock_from_outside_agrees_with_the_rival_s_own(
    benchmarks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: float, state: str
) -> None:
    rivals, fake = str(ROOT / "benchmarks/rivals"), tmp_path / "rivals/fake.py"
    fake.parent.mkdir()
    fake.write_text(SLOW_RIVAL.format(rivals=rivals, rest=rest))
    environment = tmp_path / "environments/torch/bin/python"
    environment.parent.mkdir(parents=True)
    environment.symlink_to(sys.executable)
    monkeypatch.setattr(benchmarks.tools, "HERE", tmp_path)
    monkeypatch.setitem(benchmarks.tools.TOOLS, "fake", benchmarks.tools.Tool("torch", "fake", (), "fake"))
    place = benchmarks.clock.Place(tmp_path, tmp_path / "environments", tmp_path / "work")

    run = benchmarks.clock.run_once("fake", "flowers5", tmp_path, place, number=3, minutes=0.05)

    lines = (tmp_path / "work/flowers5/fake-3/curve.txt").read_text().splitlines()
    own = [float(line.split()[0]) for line in lines]
    assert [value for _, value in run.points] == [0.5, 0.75]
    for (seconds, _), theirs in zip(run.points, own, strict=True):
        assert theirs - 0.02 <= seconds <= theirs + 0.4
    assert run.points[1][0] - run.points[0][0] == pytest.approx(0.5, abs=0.3)
    assert run.state == state
    assert run.wall_seconds >= (3 if rest else run.points[1][0])


def test_figures_of_two_rounds(benchmarks: ModuleType, tmp_path: Path) -> None:
    run, results = benchmarks.clock.Run, benchmarks.results
    made = [
        run("flowers5", "saccade", 1, 0.1, ((10.0, 0.88),), 20.0, "finished"),
        run("flowers5", "keras", 1, 0.2, ((20.0, 0.80), (60.0, 0.85), (80.0, 0.85)), 81.0, "finished"),
        run("flowers5", "saccade", 2, 0.1, ((12.0, 0.87),), 22.0, "finished"),
        run("flowers5", "keras", 2, 0.3, ((24.0, 0.86), (60.0, 0.84)), 90.0, "stopped"),
        run("flowers5", "timm", 2, 0.3, (), 4.0, "failed"),
    ]
    for each in made:
        results.append(tmp_path / "runs.csv", each)
    assert results.read(tmp_path / "runs.csv") == made
    assert [results.seconds_to(made[1], target) for target in (0.8, 0.85, 0.86)] == [20.0, 60.0, None]
    assert results.best(made[1]) == (60.0, 0.85)
    table = results.table(made, "flowers5")
    assert "| saccade | 2 | 11.0 (10.0 to 12.0) | 87.5 (87.0 to 88.0) |" in table
    assert (
        "| keras | 2 | 22.0 (20.0 to 24.0) | 85.5 (85.0 to 86.0) | 42.0 (24.0 to 60.0) | 84.5 (84.0" in table
    )
    assert "never" in table
    assert "timm" not in table
    # round 1: 60 / 10; round 2: 24 / 12; better by 3 and 1 points
    assert "| saccade | keras | 2 | 4.0 (2.0 to 6.0) | 2.0 (1.0 to 3.0) |" in results.sooner(made, "flowers5")
    benchmarks.drawing.draw(made, "flowers5", "here", tmp_path / "flowers5")
    assert (tmp_path / "flowers5.png").stat().st_size > 5_000
    assert "<svg" in (tmp_path / "flowers5.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nothing"], "--only: unknown \\['nothing'\\]"),
        (["--data", "flower5"], "--data: unknown \\['flower5'\\]"),
        (["--only", "saccade"], "SACCADE_DATA is ''"),
    ],
)
def test_what_is_missing_is_said_in_words(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", *arguments, "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "", "SACCADE_DATA": ""}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(said, done.stderr), done.stderr


def test_a_missing_environment_leaves_out_its_tools_only(
    benchmarks: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = benchmarks.clock.Place(tmp_path, tmp_path / "none", tmp_path / "work")
    ready = benchmarks.clock.ready_tools(list(benchmarks.tools.TOOLS), place)
    rivals = [name for name, tool in benchmarks.tools.TOOLS.items() if tool.environment != "saccade"]
    assert len(rivals) == 8
    assert not set(ready) & set(rivals)
    assert capsys.readouterr().out.count("python -m benchmarks setup") == 8
