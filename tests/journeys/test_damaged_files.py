"""Each file of a finished run, damaged: no command uses it, and the command that is named mends it."""

from __future__ import annotations

import random
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import main
from saccade.errors import RunError
from saccade.pipeline.evidence import keep
from saccade.run_folder import RunFolder

Saccade = Callable[..., Any]
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "8")
TRAIN, EVALUATE, EXPORT, INT8 = "saccade train", "saccade evaluate", "saccade export", "--int8"
MENDED_BY = {
    "recipe.toml": TRAIN,
    "environment.json": TRAIN,
    "dataset.csv": TRAIN,
    "audit.json": TRAIN,
    "history.jsonl": TRAIN,
    "manifest.json": TRAIN,
    "bundle/model.json": TRAIN,
    "bundle/weights.safetensors": TRAIN,
    "predictions/train.csv": TRAIN,
    "predictions/validation.csv": TRAIN,
    "predictions/test.csv": TRAIN,
    "metrics/train.json": EVALUATE,
    "metrics/validation.json": EVALUATE,
    "metrics/test.json": EVALUATE,
    "report/report.html": EVALUATE,
    "report/audit.html": EVALUATE,
    "report/model_card.md": EVALUATE,
    "report/bom.json": EVALUATE,
    "export/model.onnx": EXPORT,
    "export/certificate.json": EXPORT,
    "export/classes.json": TRAIN,
    "export/model.int8.onnx": INT8,
    "export/model.int8.onnx.certificate.json": INT8,
}
NOT_THE_SAME = (
    "environment.json",
    "manifest.json",
    *(name for name in MENDED_BY if name.startswith("report/")),
)
SAME_AGAIN = [name for name in MENDED_BY if name not in NOT_THE_SAME]
KINDS = ("delete", "cut", "flip")


def damage(path: Path, kind: str, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
    elif kind == "cut":
        lines = data.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) if len(lines) > 1 else data[: rng.randrange(len(data))])
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=8, side=16)


@pytest.fixture(scope="module")
def finished(photos: Path) -> Path:
    out = photos.parent / "run"
    assert main(["train", str(photos), "--out", str(out), *SMALL]) == 0
    assert main(["export", str(out), "--int8"]) in (0, 1)
    return Path(shutil.copytree(out, photos.parent / "kept"))


@pytest.fixture
def run(finished: Path, photos: Path) -> RunFolder:
    """The finished run where it was made, whole again for each test."""
    out = photos.parent / "run"
    shutil.rmtree(out)
    shutil.copytree(finished, out)
    return RunFolder(out)


def analysed(run: RunFolder) -> None:
    """As after a full report that found little."""
    slices = {"part": "test", "images": 3, "tried": 0, "fewest": 10, "false_rate": 0.05, "slices": []}
    run.write_insight("slices", slices)
    row = {"path": run.read_dataset()[0].path, "label": "bar", "suggested": "disc", "others": ["disc"]}
    figures = {"part": "train", "score": 0.9, "self_confidence": 0.1, "distance_ratio": 1.5}
    weights = {"self_confidence": 1.0, "distance": 1.0}
    counts = {"images": 24, "listed": 24, "doubted": 1, "pretrained": False}
    run.write_insight("label_errors", {**counts, "weights": weights, "shown": [{**row, **figures}]})
    run.write(run.label_errors, b"path,label\n")
    run.write(run.decide_page, b"<!doctype html>")


def test_the_manifest_lists_every_file_but_the_checkpoints(run: RunFolder) -> None:
    names = {path.relative_to(run.root).as_posix() for path in run.root.rglob("*") if path.is_file()}
    listed = {name for name in names if run.knows(run.root / name)}
    assert {name for name in names if not name.startswith(("checkpoints/", "."))} - listed == {
        "manifest.json"
    }
    assert not run.damaged()


@pytest.mark.parametrize("name", [name for name in MENDED_BY if name != "manifest.json"])
def test_no_damage_at_any_place_passes(name: str, run: RunFolder) -> None:
    """17 of each file: together more than 300."""
    path, rng = run.root / name, random.Random(name)
    whole = path.read_bytes()
    for _ in range(17):
        damage(path, rng.choice(KINDS), rng)
        with pytest.raises(RunError, match=r"is damaged \(|is missing\nhint: "):
            run.read(path)
        assert list(run.damaged()) == [path] or name.endswith("int8.onnx.certificate.json")
        path.write_bytes(whole)
    assert run.read(path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", MENDED_BY)
def test_a_damaged_file_is_named_and_mended_by_the_command_that_is_named(
    name: str, run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    rng = random.Random(name)
    kind = KINDS[list(MENDED_BY).index(name) % 3]
    before = {same: (run.root / same).read_bytes() for same in SAME_AGAIN}
    image = next(photos.rglob("*.png"))
    commands = {
        "evaluate": ("evaluate", run.root),
        "certify": ("certify", run.onnx, "--against", run.root),
        "predict": ("predict", run.root, image),
    }
    remedy = ""
    for word, command in commands.items():
        damage(run.root / name, kind, rng)
        answer = saccade(*command)
        if answer.code == 0:  # it did not need the file, or writes it anew
            assert word != "evaluate" or name not in ("predictions/test.csv", "dataset.csv", "history.jsonl")
        else:
            assert answer.code == 2
            assert re.fullmatch(r"error: .*\n(hint: .*\n)?", answer.err)
            assert str(run.root / name) in answer.err
            remedy = re.search(r"run: (.*)$", answer.err.strip())[1]
        shutil.rmtree(run.root)
        shutil.copytree(photos.parent / "kept", run.root)
    damage(run.root / name, kind, rng)
    named = shlex.split(remedy) if remedy else shlex.split(run._command_for(run.root / name))
    assert MENDED_BY[name] in shlex.join(named)
    mended = saccade(*named[1:])
    assert mended.code == 0 or INT8 in named
    assert saccade("evaluate", run.root).code == 0
    assert not run.damaged()
    assert [same for same in SAME_AGAIN if (run.root / same).read_bytes() != before[same]] == []
    assert "Damaged" not in saccade("train", photos, "--out", run.root, *SMALL).out


def test_other_settings_do_not_replace_a_damaged_recipe(
    run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    run.recipe.write_text(run.recipe.read_text().replace("epochs", "epoch"))
    answer = saccade("train", photos, "--out", run.root, *SMALL, "--lr", "0.5")
    assert answer.code == 2
    assert "settings given now are not those of the run" in answer.err
    assert f"saccade train {photos}" in answer.err


def test_a_damaged_beginning_is_not_made_again_from_other_images(
    run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    run.dataset.unlink()
    image = next(photos.rglob("*.png"))
    moved = image.rename(photos.parent / "moved.png")
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    moved.rename(image)
    assert answer.code == 2
    assert "no longer those with which it began" in answer.err


def test_without_checkpoints_a_lost_manifest_takes_the_files_as_they_are(
    run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    analysed(run)
    found = run.of_full_report()
    shutil.rmtree(run.checkpoints)
    run.manifest.unlink()
    before = run.weights.read_bytes()
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0
    assert "taken as they are" in answer.out
    assert run.weights.read_bytes() == before
    assert saccade("evaluate", run.root).code == 0
    assert run.of_full_report() == found


@pytest.mark.parametrize(
    "name",
    [
        "bundle/weights.safetensors",
        "manifest.json",
        pytest.param("predictions/test.csv", marks=pytest.mark.slow),
    ],
)
def test_what_a_full_report_found_goes_with_what_it_rests_on(
    name: str, run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    analysed(run)
    assert len(run.of_full_report()) == 4
    (run.root / name).unlink()
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0, answer.err
    assert f"removed with it; to make it again, run: saccade report {run.root} --full" in answer.out
    assert run.of_full_report() == ()
    assert not run.damaged()
    assert 'id="slices"' not in run.report.read_text()


def test_a_damaged_analysis_is_left_out_and_its_command_named(
    run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    analysed(run)
    damage(run.insight("label_errors"), "cut", random.Random(0))
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0, answer.err
    assert f"which is left out: {run.insight('label_errors')}" in answer.out
    assert f"saccade report {run.root} --full" in answer.out
    assert "making it again" not in answer.out
    assert run.of_full_report() == (run.insight("slices"), run.label_errors)
    assert 'id="slices"' in run.report.read_text()
    assert not run.damaged()


def test_a_damaged_evaluation_names_the_command_that_made_it(
    run: RunFolder, photos: Path, make_photos: Callable[..., Path], saccade: Saccade
) -> None:
    other = make_photos("other", images=2, side=16, seed=5)
    assert saccade("evaluate", run.root, other).code == 0
    place = run.evaluation("other")
    damage(place.predictions("test"), "cut", random.Random(0))
    answer = saccade("compare", place.root, run.root, "--part", "test")
    assert answer.code == 2
    words = shlex.split(re.search(r"run: (.*)$", answer.err.strip())[1])
    assert words[:4] == ["saccade", "evaluate", str(run.root), str(other)]
    assert saccade(*words[1:]).code == 0
    assert not place.damaged()


def test_a_copied_run_without_manifest_still_predicts(run: RunFolder, photos: Path, saccade: Saccade) -> None:
    run.manifest.unlink()
    assert saccade("predict", run.root, next(photos.rglob("*.png"))).code == 0
    assert saccade("evaluate", run.root).code == 2


def test_what_is_mended_is_measured_again(run: RunFolder, photos: Path, saccade: Saccade) -> None:
    """Promise 2 is about the bundle that is there now; promise 7 says that nobody watched all the time."""
    for path in (run.environment, run.weights):
        path.unlink()
    assert saccade("train", photos, "--out", run.root, *SMALL).code == 0
    promises = run.read_environment()["promises"]
    assert "since the run was last continued" in promises["7"]["evidence"]
    keep(run, 2, {"bundle": "that before", "from_preprocessing": 0.5})
    run.report.unlink()
    assert saccade("train", photos, "--out", run.root, *SMALL).code == 0
    assert run.read_environment()["promises"]["2"]["kept"] is True


def test_an_export_by_somebody_s_wish_is_not_promised_again(
    run: RunFolder, photos: Path, saccade: Saccade
) -> None:
    mine = run.root / "export" / "mine.onnx"
    assert saccade("export", run.root, "--out", mine).code == 0
    mine.unlink()
    answer = saccade("train", photos, "--out", run.root, *SMALL)
    assert answer.code == 0
    assert "is finished" in answer.out
    assert f"saccade export {run.root} --out {mine}" in answer.out + answer.err
    assert "made again" not in answer.out
    assert saccade("export", run.root, "--out", mine).code == 0
    assert not run.damaged()


def test_somebody_elses_manifest_is_left_alone(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    """Other programs have a manifest.json, too."""
    out = tmp_path / "web"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "page"}')
    answer = saccade("train", make_photos(), "--out", out, *SMALL)
    assert answer.code == 2
    assert "is not a run folder" in answer.err
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
