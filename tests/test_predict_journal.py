"""A prediction that is killed and typed again: no row lost, none repeated, none mixed with others."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.deciding import Deciding
from saccade.errors import DataError, RunError
from saccade.predict import Predictor, predictor
from saccade.predict.command import predict_command
from saccade.predict.journal import Journal, open_journal
from saccade.predict.predictor import Answer, pieces
from saccade.predict.tables import write_answers
from saccade.terminal import Terminal

COUNT = 120
CLASSES = ("a", "b", "c")
IDENTITY = {"another model": "f00", "other inputs": 1}


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes, so that batches are mixed; every tenth is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        size = (16, 12, 3) if number % 3 else (9, 20, 3)
        place = folder / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(place)
        if number % 10 == 7:
            place.write_bytes(place.read_bytes()[:50])
    return folder


def run(model: Path, *inputs: object, **options: object) -> tuple[int, str]:
    stream = io.StringIO()
    code = predict_command(str(model), [str(i) for i in inputs], Terminal(stream=stream), **options)  # type: ignore[arg-type]
    return code, stream.getvalue()


def whole(model: Path, photos: Path, out: Path) -> tuple[bytes, bytes]:
    assert run(model, photos, out=str(out))[0] == 1
    return out.read_bytes(), Path(f"{out}.failed.csv").read_bytes()


# ── killed ───────────────────────────────────────────────────────────────────────────────────────────

EACH_PIECE = """
import sys
from saccade import cli
from saccade.predict import journal

journal.FLUSH_SECONDS = 0
sys.exit(cli.main())
"""


def start(model: Path, photos: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", EACH_PIECE, "predict", str(model), str(photos), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when_it_has(journal: Path, size: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether the process was killed while it worked."""
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size >= size:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_killed_and_continued_is_as_never_killed(model: Path, photos: Path, tmp_path: Path) -> None:
    expected = whole(model, photos, tmp_path / "whole.csv")
    out, journal = tmp_path / "o.csv", tmp_path / "o.csv.unfinished"
    assert kill_when_it_has(journal, 3000, start(model, photos, out))
    assert journal.exists()
    assert not out.exists(), "an output appears whole or not at all"
    process = start(model, photos, out)
    assert process.communicate()[1].count(b"/007.png") == 1
    assert process.returncode == 1
    assert (out.read_bytes(), Path(f"{out}.failed.csv").read_bytes()) == expected
    assert sorted(os.listdir(tmp_path)) == [
        *("o.csv", "o.csv.failed.csv", "whole.csv", "whole.csv.failed.csv")
    ]


def test_a_process_killed_while_it_writes_the_output_leaves_nothing(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    expected = whole(model, photos, tmp_path / "whole.csv")
    out = tmp_path / "o.csv"
    (tmp_path / ".o.csv.abc.part").write_bytes(b"left behind by a kill")
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(RunError, match="cannot be written"):
            run(model, photos, out=str(out))
    code, said = run(model, photos, out=str(out))
    assert code == 1
    assert said.startswith(f"going on after {COUNT} of {COUNT}: their answers are in {out}.unfinished\n")
    assert (out.read_bytes(), Path(f"{out}.failed.csv").read_bytes()) == expected
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".") or "unfinished" in name]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_continues(
    ending: str, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    sizes: list[int] = []
    add = Journal.add
    monkeypatch.setattr(Journal, "add", lambda self, piece: (sizes.append(len(piece)), add(self, piece)))
    expected = whole(model, photos, tmp_path / f"whole.{ending}")
    undisturbed = list(sizes)
    sizes.clear()
    monkeypatch.setattr("saccade.predict.journal.FLUSH_SECONDS", 0)
    out = tmp_path / f"o.{ending}"
    seen = 0

    def stop_in_the_middle(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("saccade.predict.command._Work._progress", lambda _: Stopping(stop_in_the_middle))
        with pytest.raises(KeyboardInterrupt):
            run(model, photos, out=str(out))
    assert "going on after 46 of 120" in run(model, photos, out=str(out))[1]
    assert sizes == undisturbed, "the same images run in one batch, so that their answers are the same bits"
    assert (out.read_bytes(), Path(f"{out}.failed.csv").read_bytes()) == expected


class Stopping:
    """A progress that calls a function."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __enter__(self) -> Callable[..., None]:
        return self.call

    def __exit__(self, *_: object) -> None:
        pass


def test_the_contact_sheet_of_a_continued_prediction_shows_all(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(model, photos, contact_sheet=str(tmp_path / "whole.html"))
    monkeypatch.setattr("saccade.predict.journal.FLUSH_SECONDS", 0)
    calls = iter([None] * 8)
    with monkeypatch.context() as patched:
        patched.setattr("saccade.predict.command._Work._progress", lambda _: Stopping(lambda *_: next(calls)))
        with pytest.raises(StopIteration):
            run(model, photos, out=str(tmp_path / "o.csv"), contact_sheet=str(tmp_path / "o.html"))
    assert run(model, photos, out=str(tmp_path / "o.csv"), contact_sheet=str(tmp_path / "o.html"))[0] == 1
    assert (tmp_path / "o.html").read_bytes() == (tmp_path / "whole.html").read_bytes()


# ── what must not be mixed ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def begun(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """The same command again, after one that was stopped; arguments change it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:03d}.png").write_bytes((photos / f"{number:03d}.png").read_bytes())
    monkeypatch.setattr("saccade.predict.journal.FLUSH_SECONDS", 0)
    out = tmp_path / "o.csv"
    calls = iter([None] * 4)
    with monkeypatch.context() as patched:
        patched.setattr("saccade.predict.command._Work._progress", lambda _: Stopping(lambda *_: next(calls)))
        with pytest.raises(StopIteration):
            run(model, folder, out=str(out))

    def again(used: Path = model, *inputs: object, **options: object) -> tuple[int, str]:
        return run(used, *(inputs or [folder]), out=str(out), **options)

    return again


def test_another_model_is_refused(
    begun: Callable[..., tuple[int, str]], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_model(tmp_path / "other.onnx", temperature=0.2)
    with pytest.raises(RunError, match=r"o\.csv\.unfinished holds .* with another model\n") as caught:
        begun(other)
    assert "rm " in caught.value.hint
    (tmp_path / "o.csv.unfinished").unlink()
    assert begun(other)[1].startswith("27 predictions written")


def test_other_inputs_are_refused(begun: Callable[..., tuple[int, str]], model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="other inputs"):
        begun(model, tmp_path / "mine", tmp_path / "mine")
    (tmp_path / "mine" / "000.png").unlink()
    with pytest.raises(DataError, match=r"number 1 is .*001\.png now, and was .*000\.png") as caught:
        begun()
    assert "begin anew" in caught.value.hint


def test_the_inputs_that_are_left_may_be_other_ones(
    begun: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Photos that were added behind those that have an answer are simply answered."""
    (tmp_path / "mine" / "zzz.png").write_bytes((tmp_path / "mine" / "000.png").read_bytes())
    code, said = begun(top_k=2)
    assert code == 1
    assert "28 predictions written" in said


def test_two_processes_do_not_write_one_output(begun: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    journal = (tmp_path / "o.csv.unfinished").open("rb")
    import fcntl

    fcntl.flock(journal, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="is being written by another saccade"):
        begun()
    journal.close()
    assert begun()[0] == 1


def test_after_the_end_the_same_command_begins_anew(
    begun: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    begun()
    first = (tmp_path / "o.csv").read_bytes()
    for name in ("007.png", "017.png", "027.png"):
        (tmp_path / "mine" / name).unlink()
    code, said = begun()
    assert (code, "going on" in said) == (0, False)
    assert (tmp_path / "o.csv").read_bytes() == first
    assert not (tmp_path / "o.csv.failed.csv").exists(), "it would speak of inputs that do not fail"


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────


def answers(first: int, count: int) -> list[Answer]:
    rng = np.random.default_rng(first)
    return [
        Answer(f"odd \udcff\n{i}.jpg", CLASSES, np.zeros(3), "why\nnot")
        if i % 5 == 3
        else Answer(f"é{i}.jpg", CLASSES, rng.random(3).astype(np.float32).astype(np.float64))
        for i in range(first, first + count)
    ]


def known(journal: Journal) -> list[tuple[str, str, tuple[float, ...]]]:
    return [(a.path, a.error, tuple(a.probabilities.tolist())) for a in journal]


def written(out: Path, blocks: int = 5) -> list[tuple[str, str, tuple[float, ...]]]:
    journal = open_journal(out, IDENTITY, CLASSES)
    for block in range(blocks):
        journal.add(answers(4 * block, 4))
        journal.flush()
    rows = known(journal)
    journal.close(finished=False)
    return rows


def test_a_journal_keeps_how_unfamiliar_images_are(tmp_path: Path) -> None:
    deciding = Deciding(least=(0.5, 0.5, 0.5))
    scores = [0.25, float("nan")]
    journal = open_journal(tmp_path / "o.csv", IDENTITY, CLASSES, deciding=deciding)
    journal.add([Answer("a", CLASSES, np.array([0.25, 0.5, 0.25]), unfamiliarity=score) for score in scores])
    journal.flush()
    found = list(journal)
    journal.close(finished=True)
    np.testing.assert_array_equal([answer.unfamiliarity for answer in found], scores)
    assert [answer.deciding for answer in found] == [deciding] * 2


def test_a_journal_gives_back_what_it_was_given(tmp_path: Path) -> None:
    rows = written(tmp_path / "o.csv")
    assert rows == [
        (a.path, a.error, tuple(a.probabilities.tolist())) for b in range(5) for a in answers(4 * b, 4)
    ]
    again = open_journal(tmp_path / "o.csv", IDENTITY, CLASSES)
    assert (again.rows, known(again)) == (20, rows)
    again.close(finished=True)
    assert os.listdir(tmp_path) == []


def test_a_journal_cut_anywhere_holds_its_whole_blocks(tmp_path: Path) -> None:
    """What a kill or a loss of power leaves: any length, zeros behind, or a block with a wrong bit."""
    out, place = tmp_path / "o.csv", tmp_path / "o.csv.unfinished"
    rows = written(out)
    data = place.read_bytes()
    rng = random.Random(0)
    wrong = bytearray(data)
    wrong[-7] ^= 1
    middle = bytearray(data)
    middle[len(data) // 2] ^= 1  # a whole block stands behind it
    damaged = [bytes(wrong), bytes(middle), data + bytes(100), data + data[:30]]
    damaged += [data + b"\x93SACBLK\n" + bytes(12)]
    damaged += [data[: rng.randrange(len(data) + 1)] for _ in range(150)]
    damaged += [data[: rng.randrange(len(data))] + bytes(40) for _ in range(50)]
    counts = set()
    for content in damaged:
        place.write_bytes(content)
        journal = open_journal(out, IDENTITY, CLASSES)
        assert journal.rows % 4 == 0
        assert known(journal) == rows[: journal.rows]
        counts.add(journal.rows)
        journal.add(answers(journal.rows, 4))
        journal.flush()
        expected = known(journal)
        assert len(expected) == journal.rows
        journal.close(finished=False)
        journal = open_journal(out, IDENTITY, CLASSES)
        assert known(journal) == expected
        journal.close(finished=False)
    assert counts == {0, 4, 8, 12, 16, 20}


def test_another_file_of_that_name_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "o.csv.unfinished").write_text("notes of mine")
    with pytest.raises(RunError, match="is no journal"):
        open_journal(tmp_path / "o.csv", IDENTITY, CLASSES)
    assert (tmp_path / "o.csv.unfinished").read_text() == "notes of mine"


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────


def test_pieces_depend_on_their_place_alone() -> None:
    inputs = [(f"{i}", f"{i}") for i in range(300)]
    every = list(pieces(inputs))
    assert [name for _, piece in every for name, _ in piece] == [name for name, _ in inputs]
    for first, _ in every:
        assert list(pieces(inputs[first:], first)) == [piece for piece in every if piece[0] >= first]


def test_pieces_of_images_in_memory_stay_small() -> None:
    inputs = [("x", bytes(predictor.PIECE_BYTES // 3))] * 40
    assert max(len(piece) for _, piece in pieces(inputs)) == 4


def test_answers_are_the_same_bits_with_any_number_of_threads(model: Path, photos: Path) -> None:
    one, four = (
        np.array([answer.probabilities for answer in Predictor(model, threads=n).answers(photos)])
        for n in (1, 4)
    )
    assert one.shape == (COUNT, 3)
    np.testing.assert_array_equal(one, four)


def test_rows_keep_the_order_of_the_inputs(model: Path, photos: Path, tmp_path: Path) -> None:
    names = [str(photos / name) for name in sorted(os.listdir(photos))]
    random.Random(1).shuffle(names)
    run(model, *names, out=str(tmp_path / "o.csv"))
    with (tmp_path / "o.csv").open() as file:
        rows = [row["path"] for row in csv.DictReader(file)]
    assert rows == [name for name in names if not name.endswith("7.png")]


class Name(str):
    """A path that is counted for as long as it is held."""

    alive = most = 0

    def __new__(cls, text: str) -> Name:
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        return super().__new__(cls, text)

    def __del__(self) -> None:
        Name.alive -= 1


class Many:
    """Five thousand answers, made anew each time they are asked for."""

    def __iter__(self) -> Iterator[Answer]:
        return (Answer(Name(f"{i}.jpg"), CLASSES, np.full(3, i % 7 / 7)) for i in range(5000))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_no_table_is_held_as_a_whole(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("saccade.spreadsheet._VALUES_A_BLOCK", 700)
    Name.alive = Name.most = 0
    write_answers(tmp_path / f"o.{ending}", Many())
    assert 0 < Name.most < 500
