"""What export and report took is kept between commands, and a bad file is as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.caches import endings


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))


def test_the_last_measurement_of_a_device_counts() -> None:
    assert endings.rest_seconds("cpu", 15.0) == 15.0
    endings.keep_rest_seconds("cpu", 9.0)
    endings.keep_rest_seconds("cuda", 5.0)
    endings.keep_rest_seconds("cpu", 7.0)
    assert (endings.rest_seconds("cpu", 15.0), endings.rest_seconds("cuda", 15.0)) == (7.0, 5.0)


@pytest.mark.parametrize(("seconds", "kept"), [(-4.0, 3.0), (0.5, 3.0), (900.0, 60.0)])
def test_what_cannot_be_is_bounded(seconds: float, kept: float) -> None:
    endings.keep_rest_seconds("cpu", seconds)
    assert endings.rest_seconds("cpu", 15.0) == kept


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"cpu": "soon"}', '{"cpu": null}', '{"cpu": NaN}'])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cache" / endings.FILE
    path.parent.mkdir()
    path.write_text(content)
    assert endings.rest_seconds("cpu", 15.0) == 15.0
    endings.keep_rest_seconds("cpu", 7.0)
    assert endings.rest_seconds("cpu", 15.0) == 7.0


def test_where_nothing_can_be_written_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    endings.keep_rest_seconds("cpu", 7.0)
    assert endings.rest_seconds("cpu", 15.0) == 15.0
