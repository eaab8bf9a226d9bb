"""Work whose results are files: continued, never half read, errors told to whoever waits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from saccade import part_files
from saccade.errors import EngineError, ImageError, ModelError
from saccade.part_files import Job, PartWriter, Row, map_chunks

CHUNKS = [[1, 2], [3, 4], [5]]


def summing(log: Path) -> Any:
    return partial(summed, log)


def summed(log: Path, chunk: Sequence[int]) -> int:
    with log.open("a") as file:
        file.write(f"{list(chunk)}\n")
    if 13 in chunk:
        raise ModelError("13 is no number", hint="leave it out")
    if 14 in chunk:
        raise ImageError("14 is no number", "Leave it out")
    return sum(chunk)


def packed(found: int) -> tuple[Any, bytes]:
    return None, str(found).encode()


def unpacked(values: None, data: bytes) -> int:
    return int(data)


def crashed(number: int) -> int:
    return -number


class Here:
    """An engine that does all work at once, in this process, up to `most` rows."""

    def __init__(self, most: int = 10) -> None:
        self.most, self.writes = most, True

    def start(self, job: Job[Any, Any], rows: Sequence[Row], folder: Path) -> Here:
        writer = PartWriter(job, folder)
        for row in rows[: self.most]:
            writer.write(row.name, row.chunk)
        return self

    def wait(self, seconds: float) -> bool:
        return True

    def finish(self) -> None:
        pass


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(part_files, "LATE_SECONDS", 0.05)


@pytest.fixture
def job(tmp_path: Path) -> Job[int, int]:
    return Job(partial(summing, tmp_path / "log"), packed, unpacked, crashed, list)


def computed(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_results_come_in_order_and_leave_nothing(job: Job[int, int], tmp_path: Path) -> None:
    assert list(map_chunks(Here(), job, CHUNKS)) == [([1, 2], 3), ([3, 4], 7), ([5], 5)]
    assert not list((tmp_path / "cache" / "ray").iterdir())


def test_what_was_computed_is_not_computed_again(job: Job[int, int], tmp_path: Path) -> None:
    stopped = map_chunks(Here(most=2), job, CHUNKS)
    assert next(stopped) == ([1, 2], 3)
    stopped.close()
    assert [found for _, found in map_chunks(Here(), job, CHUNKS)] == [3, 7, 5]
    assert computed(tmp_path) == ["[1, 2]", "[3, 4]", "[5]"]


def test_a_damaged_part_is_made_again(job: Job[int, int], tmp_path: Path) -> None:
    map_chunks(Here(), job, CHUNKS).send(None)
    part = sorted((tmp_path / "cache" / "ray").glob("*.part"))[0]
    part.write_bytes(part.read_bytes()[:-1] + b"9")
    assert [found for _, found in map_chunks(Here(), job, CHUNKS)] == [3, 7, 5]
    assert len(computed(tmp_path)) == 4


def test_a_part_that_another_command_removed_is_computed_again(job: Job[int, int], tmp_path: Path) -> None:
    slow = map_chunks(Here(), job, CHUNKS)
    assert next(slow) == ([1, 2], 3)
    assert len(list(map_chunks(Here(), job, CHUNKS))) == 3  # takes all parts, and removes them
    assert [found for _, found in slow] == [7, 5]


def test_a_chunk_during_which_a_process_died_gets_one_of_its_own(
    job: Job[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(function: Any, chunk: Sequence[int], on_crash: Any) -> Any:
        yield chunk[:1], on_crash(chunk[0])
        yield chunk[1:], function(chunk[1:])

    monkeypatch.setattr(part_files, "carefully", alone)
    folder = tmp_path / "cache" / "ray"
    folder.mkdir(parents=True)
    (folder / f"{job.name([1, 2])}.begun").touch()
    found = list(map_chunks(Here(), job, CHUNKS))
    assert found == [([1], -1), ([2], 2), ([3, 4], 7), ([5], 5)]
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [(13, ModelError, "leave it out"), (14, ImageError, "Left out. Leave it out")],
)
def test_an_error_of_a_worker_reaches_who_waits(
    number: int, kind: type[Exception], words: str, job: Job[int, int], tmp_path: Path
) -> None:
    found = map_chunks(Here(), job, [[1], [number]])
    assert next(found) == ([1], 1)
    with pytest.raises(kind, match=f"{number} is no number") as error:
        next(found)
    assert words in str(error.value)
    with pytest.raises(kind):  # and is not kept: the next command tries again
        list(map_chunks(Here(), job, [[number]]))
    assert computed(tmp_path).count(f"[{number}]") == 2


def test_a_folder_that_is_not_shared_is_named(job: Job[int, int], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"its results are not in .*cache") as error:
        list(map_chunks(Here(most=0), job, CHUNKS))
    assert "SACCADE_CACHE must name a folder that all machines of the cluster share" in error.value.hint
