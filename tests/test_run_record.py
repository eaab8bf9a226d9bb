"""`environment.json` as a value: what was not written is not invented, what is not known is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import RunError
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord

WHOLE: dict[str, Any] = {
    "data": "/photos",
    "root": "/photos",
    "command": ["saccade", "train", "/photos"],
    "began": "2026-11-30T18:21:00+01:00",
    "platform": "Linux",
    "versions": {"saccade": "0.1.0"},
    "device": "cpu",
    "device_name": "CPU, AVX2",
    "precision": "float32",
    "in_float32": [{"phase": "main", "epoch": 2, "step": 4}],
    "deterministic": False,
    "threads": 2,
    "ranks": 1,
    "torch": "2.11.0",
    "lightning_fabric": "2.6.6",
    "resolved": {"train.lr": 0.001},
    "callbacks": ["watchers.Curve"],
    "finished": True,
    "classes": ["cat", "dog"],
    "split": {"made_by_user": True, "crossing": []},
    "without_effect": {},
    "choice": {"backbone": "resnet18"},
    "series": {"count": 2, "images": 4},
    "held_out": {"accuracy": 0.9, "images": 40, "validation": 0.8},
    "folds": {"models": 3, "kind": "average"},
    "evidence": {"7": {"looked_at": 0}},
    "diagnosis": [],
    "promises": {"1": {"kept": None, "state": "not checked", "evidence": "none"}},
    "seconds": 12,
}


def test_every_field_comes_back_as_it_was_in_the_same_order() -> None:
    assert RunRecord.from_json(WHOLE).as_json() == WHOLE
    assert list(RunRecord.from_json(WHOLE).as_json()) == list(WHOLE)
    assert len(WHOLE) == len(RunRecord.__dataclass_fields__) - 1, "all but `other`"


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "finished"])
def test_a_field_that_was_not_written_is_not_invented(name: str) -> None:
    values = {key: value for key, value in WHOLE.items() if key != name}
    assert RunRecord.from_json(values).as_json() == values


def test_unknown_keys_survive_a_rewrite(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_environment({**WHOLE, "of_a_later_version": {"x": [1, None]}})
    assert run.update_record(threads=4).threads == 4
    assert json.loads(run.environment.read_text()) == {
        **WHOLE,
        "threads": 4,
        "of_a_later_version": {"x": [1, None]},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", 3),
        ("command", "saccade train"),
        ("versions", []),
        ("threads", True),
        ("threads", 1.5),
        ("deterministic", 1),
        ("finished", "yes"),
        ("seconds", "12"),
        ("classes", {"cat": 1}),
        ("diagnosis", None),
        ("split", None),
    ],
)
def test_a_value_of_the_wrong_type_is_named(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} has the wrong type: "):
        RunRecord.from_json({**WHOLE, name: value})
    run = RunFolder(tmp_path)
    run.write_recipe(Recipe())
    run.write_environment({**WHOLE, name: value})
    with pytest.raises(
        RunError, match=rf"environment\.json is damaged \({name} has the wrong type"
    ) as caught:
        run.read_record()
    assert "to make it again, run:" in caught.value.hint


def test_what_was_measured_about_a_promise_is_found_by_its_number() -> None:
    record = RunRecord.from_json(WHOLE)
    assert record.measured(7) == {"looked_at": 0}
    assert record.measured(2) == {}


def test_a_name_that_is_not_utf8_survives(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_record(RunRecord(data="/photos/\udcff"))
    assert run.read_record().data == "/photos/\udcff"
