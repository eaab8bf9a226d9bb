"""Files of a run come back as they were written, whole or not at all, and one process writes at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.errors import RunError
from saccade.recipe import Recipe
from saccade.records import EpochRow, ImageRecord, Predictions
from saccade.run_folder import RunFolder, certificate_beside, write_bytes

ODD_NAMES = (
    'a b/"quoted".jpg',
    "line\nbreak.png",
    "-dash.png",
    "emoji😀.png",
    "bad\udce9utf8.png",
    "=1+1.png",
)


def test_records_survive_the_csv(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    records = tuple(
        ImageRecord(name, "cat, black", "train", "g1", "ab", 3, 4, "RGB", "used", "note, with comma")
        for name in ODD_NAMES
    )
    run.write_dataset(records)
    assert run.read_dataset() == records


def test_predictions_keep_nine_digits_and_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.dirichlet([0.1] * 3, size=len(ODD_NAMES))
    run = RunFolder(tmp_path)
    written = Predictions(ODD_NAMES, ("x",) * len(ODD_NAMES), ("x", "p_y", "z z"), values)
    run.write_predictions("test", written)
    back = run.read_predictions("test")
    assert back.paths == ODD_NAMES
    assert back.classes == ("x", "p_y", "z z")
    np.testing.assert_allclose(back.probabilities, values, rtol=1e-8)


def test_history_survives_even_a_loss_that_is_not_a_number(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    rows = [
        EpochRow("head", 1, 0.1, 1.5, 0.5, 1.25, 0.625, 3.5),
        EpochRow("head", 2, 0.1, float("inf"), 0, 1, 0, 4),
    ]
    run.write_history(rows)
    run.write_history(rows)
    assert run.read_history() == rows


def test_another_recipe_in_the_same_folder_is_refused_by_key(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.continues(Recipe(), {}) is False
    run.write_recipe(Recipe())
    assert run.continues(Recipe(), {}) is True
    with pytest.raises(RunError, match=r"train\.epochs: there 'auto', now 3"):
        run.continues(Recipe.from_mapping({"train.epochs": 3}), {})


def test_a_run_with_a_former_default_is_shown_and_goes_on_only_when_it_is_named(tmp_path: Path) -> None:
    run, former = RunFolder(tmp_path / "run"), Recipe.from_mapping({"train.monitor": "loss"})
    run.write_recipe(former)
    run.write_environment({"finished": False})
    with pytest.raises(RunError) as refused:
        run.continues(Recipe(), {}, only_to_show=True)
    assert "--train.monitor loss, or give --resume" in refused.value.hint
    assert run.continues(former, {})
    run.write_environment({"finished": True})
    assert run.continues(Recipe(), {}, only_to_show=True)
    with pytest.raises(RunError, match="now 'calibrated_loss'"):
        run.continues(Recipe(), {}), "it may be trained again"
    for given in ({"train.monitor": "calibrated_loss"}, {"train.monitor": "accuracy"}, {"seed": 1}):
        with pytest.raises(RunError):
            run.continues(Recipe.from_mapping(given), {}, only_to_show=True)


def test_what_changes_no_result_may_be_another_in_a_run_that_continues(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_recipe(Recipe())
    assert run.continues(Recipe.from_mapping({"train.workers": 4, "train.checkpoint_every": "5m"}), {})


def test_other_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_recipe(Recipe())
    run.write_environment({"root": "photos"})
    with pytest.raises(RunError, match="root: there 'photos', now 'others'"):
        run.continues(Recipe(), {"root": "others"})


def test_a_folder_with_other_files_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(RunError, match="is not a run folder"):
        RunFolder(tmp_path).continues(Recipe(), {})
    with pytest.raises(RunError), RunFolder(tmp_path).locked():
        RunFolder(tmp_path).continues(Recipe(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"], "no lock is left in it"
    assert (tmp_path / "thesis.doc").read_text() == "years of work"


def test_a_second_process_is_refused_with_the_first_ones_id(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from saccade.run_folder import RunFolder\n"
        "try:\n    with RunFolder(pathlib.Path(sys.argv[1])).locked(): print('got it')\n"
        "except Exception as error: print(error)"
    )
    with RunFolder(tmp_path).locked():
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in second.stdout
    third = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert third.stdout.strip() == "got it"


def test_commands_that_come_and_go_in_one_folder_never_hold_it_together(tmp_path: Path) -> None:
    """Each finds nothing to keep, so each removes folder and lock while the others are about to open them."""
    code = (
        "import sys, pathlib; from saccade.run_folder import RunFolder\n"
        "from saccade.errors import RunError\n"
        "run, inside, said = RunFolder(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), set()\n"
        "for _ in range(1500):\n"
        "    try:\n"
        "        with run.locked():\n"
        "            inside.mkdir()\n"  # fails where another is inside
        "            inside.rmdir()\n"
        "    except RunError as error:\n"
        "        said.add('in use' if 'in use by process' in str(error) else str(error))\n"
        "print(*said or {'in use'})"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "inside")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    commands = [subprocess.Popen(arguments, **pipes) for _ in range(3)]
    said = [command.communicate(timeout=120) for command in commands]
    assert said == [("in use\n", "")] * 3


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError), run.locked():
        raise RuntimeError
    assert not run.root.exists()
    with run.locked():
        run.write_recipe(Recipe())
    assert run.recipe.exists()


BEGIN = """
import os, signal, subprocess, sys
from pathlib import Path
from saccade.recipe import Recipe
from saccade.errors import RunError
from saccade.records import ImageRecord
from saccade.run_folder import RunFolder

RECORDS = tuple(ImageRecord(f"cat/{i}.jpg", "cat", "train", "", "ab" * 32, 3, 4) for i in range(200))
run = RunFolder(Path(sys.argv[1]))

def begin():
    with run.locked():
        if not run.continues(Recipe(), {}):
            with run.begun():
                run.write_dataset(RECORDS)
                run.write_audit({"findings": ["x" * 20_000]})
                run.write_environment({"command": ["y" * 20_000]})
                run.write_recipe(Recipe())

def whole():
    names = [path.name for path in sorted(run.root.iterdir())]
    first = ["audit.json", "dataset.csv", "environment.json", "manifest.json", "recipe.toml"]
    assert names == [".lock", *first], names
    assert run.read_dataset() == RECORDS and run.read_audit() and run.read_environment() and run.read_recipe()
"""

KILLED = """
import shutil

def kill_at(instant):
    def counted(call):
        def run(*values, **named):
            tick()
            result = call(*values, **named)
            tick()
            return result
        return run
    def tick(passed=iter(range(1000))):
        if next(passed) == instant:
            os.kill(os.getpid(), signal.SIGKILL)
    for name in ("fsync", "fchmod", "replace", "unlink", "pwrite", "ftruncate"):
        setattr(os, name, counted(getattr(os, name)))

for instant in range(1000):
    child = os.fork()
    if not child:
        kill_at(instant)
        begin()
        os._exit(0)
    _, ended = os.waitpid(child, 0)
    begin()
    whole()
    shutil.rmtree(run.root)
    if not ended:
        break
    assert ended == signal.SIGKILL, ended
print(instant)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_killed_at_any_instant_of_its_first_files_begins_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BEGIN + KILLED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 30, "so many instants"


FULL = """
refused = []
for kilobytes in range(4, 84, 4):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", sys.argv[1]], check=True)
    run = RunFolder(Path(sys.argv[1]) / "run")
    try:
        begin()
    except RunError as error:
        assert "No space left on device" in str(error) and "--out another folder" in str(error), error
        refused.append(str(error).partition(" ")[0].rpartition("/")[2])
        assert not run.root.exists(), list(run.root.iterdir())
    subprocess.run(["mount", "-o", "remount,size=1m", sys.argv[1]], check=True)
    begin()
    whole()
    subprocess.run(["umount", sys.argv[1]], check=True)
print(*sorted(set(refused)))
"""


def test_a_run_whose_first_files_met_a_full_disk_begins_again(tmp_path: Path) -> None:
    alone = ["unshare", "-m"]
    trial = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk (root, and `unshare`)")
    command = [*alone, sys.executable, "-c", BEGIN + FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"audit.json", "dataset.csv", "environment.json", "manifest.json"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    "names",
    [
        ("dataset.csv",),
        ("audit.json", "audit.html"),
        ("environment.json",),
        (".lock", "dataset.csv"),
        (".dataset.csv.abcdefgh.part",),
        ("notes.txt", ".lock"),
        (".git/config",),
        ("cat/1.jpg", "dog/2.jpg"),
        ("bundle/model.json",),
    ],
    ids="+".join,
)
def test_what_a_stopped_run_did_not_leave_is_refused_and_untouched(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        path = tmp_path / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    run = RunFolder(tmp_path / "given")
    with pytest.raises(RunError, match=r"is not a run folder \(it holds "), run.locked():
        run.continues(Recipe(), {})
    kept = [name for name in names if name != ".lock"]
    assert [(run.root / name).read_text() for name in kept] == ["mine"] * len(kept)


def test_temporary_files_of_a_killed_write_are_gone_when_the_run_goes_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    left = [
        ".model.json.abc_1234.part",
        "bundle/.weights.safetensors.x.part",
        "evaluations/new/.a.csv.y.part",
    ]
    own = ["notes.part", ".hidden", "bundle/weights.part"]
    for name in (*left, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with run.locked():
        pass
    assert [name for name in (*left, *own) if (tmp_path / name).exists()] == own


def test_a_forked_process_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time, pathlib; from saccade.run_folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).locked():\n"
        "    child = os.fork()\n"
        "    if not child: os.close(1); time.sleep(60); os._exit(0)  # a pipe left open would be waited for\n"
        "    print(child, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    child = int(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    try:
        with RunFolder(tmp_path).locked():
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_process_that_leaves_the_block_leaves_the_lock_alone(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from saccade.run_folder import RunFolder\n"
        "run = RunFolder(pathlib.Path(sys.argv[1]))\n"
        "with run.locked():\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        assert run.lock.exists()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.json"
    write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match=r"No space left on device.*\nhint: .*give --out another folder"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.json"]


def test_file_modes_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_bytes(path, b"1")
    ordinary = tmp_path / "y"
    ordinary.write_bytes(b"1")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)
    path.chmod(0o640)
    write_bytes(path, b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_certificates_stand_where_the_design_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.certificate() == run.certificate(run.onnx) == tmp_path / "export" / "certificate.json"
    assert run.certificate(run.int8).name == "model.int8.onnx.certificate.json"
    assert certificate_beside(Path("m.onnx")) == Path("m.onnx.certificate.json")


def test_damaged_files_say_what_to_do(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(
        RunError, match=r"audit\.json is missing\nhint: to make it again, run: `saccade train`"
    ):
        run.read_audit()
    run.audit.write_text("{")
    with pytest.raises(RunError, match=r"audit\.json is damaged"):
        run.read_audit()


def test_a_file_where_the_run_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a run")
    wanted = pytest.raises(RunError, match=r"taken cannot be a run folder \(File exists\)\nhint: give --out")
    with wanted, RunFolder(tmp_path / "taken").locked():
        pass
    assert (tmp_path / "taken").read_text() == "not a run"


# -- the manifest ----------------------------------------------------------------------------------


class Killed(BaseException):
    """What kill -9 does, as far as a test in the same process can: nothing after it runs."""


def killed_write(
    run: RunFolder, values: dict[str, int], moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write environment.json and stop before (even) or after (odd) its first or second rename."""
    real, count = os.replace, iter(range(10))

    def replace(source: str, target: Path) -> None:
        number = next(count)
        if number == moment // 2 and moment % 2 == 0:
            raise Killed
        real(source, target)
        if number == moment // 2:
            raise Killed

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        patched.setattr(os, "replace", replace)
        run.write_environment(values)


@pytest.mark.parametrize("second", range(4))
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("there_before", [False, True])
def test_two_killed_writes_leave_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool, first: int, second: int
) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    if there_before:
        run.write_environment({"write": 0})
    killed_write(run, {"write": 1}, first, monkeypatch)
    killed_write(run, {"write": 2}, second, monkeypatch)
    assert not run.damaged()
    if run.environment.exists():
        assert run.read_environment()["write"] == (2 if second == 3 else 1 if first == 3 else 0)
    run.write_audit({})  # another file: what was announced before it is settled
    assert not run.damaged()
    run.write_environment({"write": 3})
    assert run.read_environment() == {"write": 3}


def test_an_earlier_version_is_not_taken_for_the_last_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    row = EpochRow("head", 1, 0.1, 1.5, 0.5, 1.25, 0.625, 3.5)
    run.write_history([row])
    one = run.history.read_bytes()
    run.write_history([row, row])
    run.write_audit({})
    run.history.write_bytes(one)
    with pytest.raises(RunError, match=r"history\.jsonl is damaged \(.* bytes instead of"):
        run.read_history()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"sha256": 1}', '{"files": 3, "sha256": ""}', "\0" * 50]
)
def test_a_damaged_manifest_is_said_and_not_believed(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    run.note_command(("saccade", "train", "my photos"))
    run.write_environment({"command": ["saccade", "train", "my photos"]})
    run.manifest.write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json is damaged (?s:.*)run: saccade train 'my photos'"):
        run.read_environment()


def test_a_manifest_that_reads_like_another_is_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_audit({})
    text = run.manifest.read_text()
    run.manifest.write_text(text.replace('"size": 3', '"size": 4'))
    assert run.manifest.read_text() != text
    with pytest.raises(RunError, match="its SHA-256 does not match"):
        run.read_audit()


def test_files_that_were_never_written_down_are_not_believed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    run.metrics("test").parent.mkdir()
    run.metrics("test").write_text("{}")
    with pytest.raises(RunError, match=r"it is not in the manifest(?s:.*)run: saccade evaluate"):
        run.read_metrics("test")
