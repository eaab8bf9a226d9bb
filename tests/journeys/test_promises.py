"""Each promise's line comes from something measured: with that taken away or spoilt, the line turns."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import main
from saccade.errors import Interrupted
from saccade.pipeline.evidence import WatchedStorage, keep
from saccade.pipeline.promises import promises
from saccade.report import promises as in_report
from saccade.report import write_report
from saccade.run_folder import RunFolder, json_bytes, write_bytes

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> RunFolder:
    root = tmp_path_factory.mktemp("promises")
    photos = photo_writer(root / "photos", images=20)
    assert main(["train", str(photos), "--out", str(root / "run"), *SMALL]) == 0
    return RunFolder(root / "run")


@pytest.fixture
def run(finished: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def states(run: RunFolder) -> dict[int, str]:
    return {int(number): verdict["state"] for number, verdict in promises(run).items()}


def environment(run: RunFolder, change: Callable[[dict[str, Any]], object]) -> None:
    values = run.read_environment()
    change(values)
    run.write_environment(values)


def model(run: RunFolder, **training: Any) -> None:
    values = run.read_model()
    values["training"] |= training
    run.write(run.model_json, json_bytes(values))


def without(run: RunFolder, number: int) -> None:
    environment(run, lambda values: values["evidence"].pop(str(number)))


def test_a_sound_run_keeps_its_promises(finished: RunFolder) -> None:
    found = states(finished)
    assert {number for number, state in found.items() if state == "kept"} == {1, 2, 3, 6, 7, 8, 9, 10}
    assert {number for number, state in found.items() if state == "not applicable"} == {4, 5}
    assert {n: verdict["state"] for n, verdict in finished.read_environment()["promises"].items()} == {
        str(number): state for number, state in found.items()
    }


def one_image_moved(run: RunFolder) -> None:
    lines = run.dataset.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    train, test = (next(row for row in rows if row[2] == part) for part in ("train", "test"))
    test[4] = train[4]  # the same SHA-256
    run.write(run.dataset, ("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n").encode())


def one_group_apart(run: RunFolder) -> None:
    lines = run.dataset.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[3] = "one"
    run.write(run.dataset, ("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n").encode())


def one_cluster_apart(run: RunFolder) -> None:
    records = [record for record in run.read_dataset() if record.used]
    pair = [next(r.path for r in records if r.part == part) for part in ("train", "test")]
    run.write_audit({**run.read_audit(), "clusters": {"1": pair}})


def checkpoint_spoilt(run: RunFolder) -> None:
    path = max(run.checkpoints.glob("last-*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


BROKEN: dict[str, tuple[int, Callable[[RunFolder], object]]] = {
    "an identical copy in two parts": (1, one_image_moved),
    "a group in two parts": (1, one_group_apart),
    "a cluster in two parts": (1, one_cluster_apart),
    "inputs that differ": (2, lambda run: keep(run, 2, {"differing": 1})),
    "inputs unlike the preprocessing": (2, lambda run: keep(run, 2, {"from_preprocessing": 0.1})),
    "other probabilities": (2, lambda run: keep(run, 2, {"probability_difference": 0.1})),
    "another input in model.onnx": (3, lambda run: keep(run, 3, {"input_difference": 0.5})),
    "no diagnosis": (6, lambda run: environment(run, lambda values: values.pop("diagnosis"))),
    "another diagnosis": (6, lambda run: keep(run, 6, {"findings": ["fine"]})),
    "an epoch that was not read": (6, lambda run: keep(run, 6, {"epochs": 0})),
    "a test image looked at": (7, lambda run: keep(run, 7, {"looked_at": 1, "examples": ["a.png"]})),
    "test predictions by another bundle": (7, lambda run: keep(run, 7, {"measured_by": ["0" * 64]})),
    "measured before the last choice too": (
        7,
        lambda run: keep(
            run, 7, {"measured_by": ["0" * 64, run.read_environment()["evidence"]["7"]["bundle"]]}
        ),
    ),
    "other test predictions": (
        7,
        lambda run: run.predictions("test").write_text(run.predictions("test").read_text() + "\n"),
    ),
    "a model that changed since": (7, lambda run: model(run, notes=["changed"])),
    "a certificate that claims too much": (
        8,
        lambda run: run.write_certificate({**run.read_certificate(), "max_probability_difference": 0.2}),
    ),
    "a checkpoint with other bytes": (9, checkpoint_spoilt),
    "a checkpoint that is gone": (9, lambda run: max(run.checkpoints.glob("best-*")).unlink()),
    "a state with other bytes": (
        9,
        lambda run: max(run.checkpoints.glob("last-*.json")).write_text("{}"),
    ),
    "a history that goes on": (
        9,
        lambda run: run.write_history([*run.read_history(), *run.read_history()]),
    ),
    "another optimizer": (9, lambda run: model(run, continued=[{"epoch": 1, "exact": False}])),
    "a pickle": (10, lambda run: (run.root / "more.pkl").write_bytes(b"")),
    "a pickle called JSON": (10, lambda run: (run.root / "more.json").write_bytes(b"\x80\x04K\x01.")),
    "torch's zip called safetensors": (
        10,
        lambda run: (run.root / "w.safetensors").write_bytes(b"PK\x03\x04"),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_spoilt_turns_its_line(run: RunFolder, what: str) -> None:
    number, spoil = BROKEN[what]
    spoil(run)
    assert states(run)[number] == "broken"


NOT_CHECKED: dict[str, tuple[int, Callable[[RunFolder], object]]] = {
    "near-duplicates not searched": (
        1,
        lambda run: environment(run, lambda v: v["split"].update(verified={})),
    ),
    "evaluation not repeated": (2, lambda run: without(run, 2)),
    "other validation predictions": (2, lambda run: keep(run, 2, {"predictions": "0" * 64})),
    "the graph not run": (3, lambda run: without(run, 3)),
    "another file exported since": (3, lambda run: keep(run, 3, {"sha256": "0" * 64})),
    "no diagnosis by this run": (6, lambda run: without(run, 6)),
    "nobody watched": (7, lambda run: without(run, 7)),
    "the bundle is gone": (7, lambda run: (run.bundle / "weights.safetensors").unlink()),
    "a certificate of another file": (
        8,
        lambda run: run.write_certificate({**run.read_certificate(), "sha256": "0" * 64}),
    ),
    "an export that is no ONNX file": (3, lambda run: run.onnx.write_bytes(b"x")),
    "a damaged model.json": (9, lambda run: run.model_json.write_text("{")),
    "checkpoints removed": (9, lambda run: shutil.rmtree(run.checkpoints)),
}


@pytest.mark.parametrize("what", NOT_CHECKED)
def test_what_was_not_measured_is_not_called_kept(run: RunFolder, what: str) -> None:
    number, take_away = NOT_CHECKED[what]
    take_away(run)
    assert states(run)[number] == "not checked"
    environment(run, lambda values: values.update(promises=promises(run)))
    assert in_report(run.read_record().promises)[number - 1].state == "not checked"


def test_gentle_is_what_the_steps_had(run: RunFolder) -> None:
    environment(run, lambda values: values["resolved"].update({"model.pretrained": True, "train.lr": 0.01}))
    row = run.read_history()[0]
    for rate, state in ((0.001, "kept"), (0.0011, "broken")):
        run.write_history([replace(row, phase="finetune", lr=rate)])
        assert states(run)[5] == state
    run.write_history([replace(row, phase="head", lr=0.01)])
    assert states(run)[5] == "not applicable"


@pytest.mark.parametrize(
    ("before", "after", "bundled", "state"),
    [("a", "a", "a", "kept"), ("a", "b", "b", "broken"), ("a", "a", "b", "broken"), ("a", "a", "", "kept")],
)
def test_frozen_is_frozen_in_the_bundle_too(
    run: RunFolder, before: str, after: str, bundled: str, state: str
) -> None:
    environment(run, lambda values: values["resolved"].update({"model.pretrained": True}))
    model(run, frozen=[{"phase": "head", "before": before, "after": after}], frozen_in_bundle=bundled)
    assert states(run)[4] == state
    model(run, frozen=[])
    assert states(run)[4] == "not checked"


def test_a_run_without_the_search_says_so_on_its_report(
    saccade: Saccade, make_photos: Saccade, tmp_path: Path
) -> None:
    photos = make_photos(images=12)
    words = ("train", photos, "--out", tmp_path / "run", *SMALL, "--no-export.onnx")
    answer = saccade(*words, "--no-split.near_duplicates")
    assert answer.code == 0, answer.err
    assert "promise 1 was not checked: groups and identical copies of 36 images were checked" in answer.out
    run = RunFolder(tmp_path / "run")
    assert states(run)[1] == "not checked"
    assert "near-duplicates were not searched" in run.report.read_text("utf-8")
    assert run.read_environment()["promises"]["1"]["kept"] is None
    assert run.read_audit()["near_duplicates_searched"] is False


def test_test_images_that_are_read_are_noted() -> None:
    class Bytes:
        def read(self, path: str) -> bytes:
            return path.encode()

    watched = WatchedStorage.of(Bytes(), ["a", "b"])
    assert watched.read("c") == b"c"
    assert watched.looked_at == ()
    assert watched.read("b") == b"b"
    assert watched.looked_at == ("b",)


def test_a_run_from_before_states_were_written_is_read(run: RunFolder) -> None:
    old = {"1": {"kept": True, "evidence": "e"}, "2": {"kept": None, "evidence": "e"}}
    environment(run, lambda values: values.update(promises=old))
    assert [promise.state for promise in in_report(run.read_record().promises)][:3] == [
        "kept",
        "not applicable",
        "not shown",
    ]
    write_report(run)
    write_bytes(run.root / "x.json", b"{}")
    assert states(run)[10] == "kept"


@pytest.mark.parametrize("instant", ["before the file", "after the file"])
def test_a_run_killed_around_its_test_predictions_keeps_promise_7(
    saccade: Saccade,
    make_photos: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instant: str,
) -> None:
    """The hash of the predictions is noted and their file is put in place: one of the two comes first."""
    words = ("train", make_photos(images=20), "--out", tmp_path / "run", *SMALL, "--no-export.onnx")
    real = RunFolder.write_predictions

    def killed(run: RunFolder, part: str, answered: Any) -> None:
        if part != "test" or instant == "after the file":
            real(run, part, answered)
        if part == "test":
            raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_predictions", killed)
        assert saccade(*words).code == 143
    assert saccade(*words).code == 0
    assert states(RunFolder(tmp_path / "run"))[7] == "kept"
