"""Images and weights that are replaced behind saccade's back are named; nothing learns from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.caches.store import entry_key
from saccade.cli import main
from saccade.errors import Interrupted
from saccade.methods import METHODS, Method
from saccade.pipeline import prepare
from saccade.run_folder import RunFolder
from saccade.training import FitResult

Saccade = Callable[..., Any]
SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")
LARGER = ("--backbone", "small_cnn", "--image-size", "72", "--epochs", "1")
FAST = ("--backbone", "fast_cnn", "--image-size", "28", "--epochs", "1")
WAYS: dict[str, tuple[str, ...]] = {
    "channel statistics": SMALL,
    "in memory": (*SMALL, "--data.mean", "0.5,0.5,0.5", "--data.std", "0.5,0.5,0.5"),
    "batch by batch": (*LARGER, "--data.mean", "0.5,0.5,0.5", "--data.std", "0.5,0.5,0.5"),
    "worker processes": (
        *(*LARGER, "--train.workers", "1", "--data.mean", "0.5,0.5,0.5", "--data.std", "0.5,0.5,0.5"),
    ),
    "whitening": (*FAST, "--data.mean", "0.5,0.5,0.5", "--data.std", "0.5,0.5,0.5"),
    "features": ("pretrained", "--train.method", "head"),
    "fine-tuning": ("pretrained", "--train.method", "finetune", "--epochs", "1"),
}


def tiny_flags(weights: Path) -> tuple[str, ...]:
    return ("--backbone", "test_efficientnet", "--weights", str(weights), "--image-size", "32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos")


def inverted(path: Path) -> bytes:
    """Other pixels of the same size under the same name; returns the bytes that stood there."""
    before = path.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    return before


def after_the_scan(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    read = prepare.read_images

    def read_and_act(*args: Any, **named: Any) -> Any:
        found = read(*args, **named)
        act()
        return found

    monkeypatch.setattr(prepare, "read_images", read_and_act)


@pytest.mark.parametrize("way", WAYS)
def test_images_replaced_after_the_scan_are_not_trained_on(
    way: str,
    make_photos: Callable[..., Path],
    tmp_path: Path,
    saccade: Saccade,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos, flags = make_photos(), WAYS[way]
    if flags[0] == "pretrained":
        flags = (*tiny_flags(tiny_weights), *flags[1:])
    command = ("train", photos, "--out", tmp_path / "run", *flags)
    files = sorted(photos.rglob("*.png"))
    before: dict[Path, bytes] = {}
    with monkeypatch.context() as patched:
        after_the_scan(patched, lambda: before.update((path, inverted(path)) for path in files))
        stopped = saccade(*command)
    assert stopped.code == 2
    named = [path for path in files if path.relative_to(photos).as_posix() in stopped.err]
    assert named, stopped.err
    assert "put it back" in stopped.err
    if way == "features":  # the pixel cache must not have kept what was read
        for path, data in before.items():
            path.write_bytes(data)
        assert saccade(*command).code == 0
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty cache"))
        assert saccade("train", photos, "--out", tmp_path / "clean", *flags).code == 0
        one, other = (RunFolder(tmp_path / name) for name in ("run", "clean"))
        assert one.predictions("test").read_bytes() == other.predictions("test").read_bytes()


def test_the_same_command_names_what_changed(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos()
    command = ("train", photos, "--out", tmp_path / "run", *WAYS["in memory"])
    with monkeypatch.context() as patched:
        after_the_scan(patched, lambda: [inverted(path) for path in photos.rglob("bar_00*.png")][:0])
        assert saccade(*command).code == 2
    again = saccade(*command)
    assert again.code == 2
    assert "bar/bar_000.png has other bytes" in again.err
    assert "put them back, or train the new data in a new folder" in again.err


def test_pixels_kept_under_an_unchecked_hash_are_not_used() -> None:
    import hashlib

    unchecked = hashlib.blake2b(b"a;b", digest_size=16).digest()  # how the first version filed them
    assert entry_key("a", "b") != unchecked


# -- a finished run whose images changed -----------------------------------------------------------


@pytest.fixture(scope="module")
def finished(photos: Path) -> Path:
    out = photos.parent / "run"
    assert main(["train", str(photos), "--out", str(out), *SMALL]) == 0
    return out


COMMANDS: dict[str, tuple[str, ...]] = {
    "export": ("export", "RUN"),
    "export int8": ("export", "RUN", "--int8"),
    "export elsewhere": ("export", "RUN", "--out", "OUT/model.onnx"),
    "certify": ("certify", "RUN/export/model.onnx", "--against", "RUN"),
    "evaluate": ("evaluate", "RUN"),
}


@pytest.mark.parametrize("which", ["one", "all"])
@pytest.mark.parametrize("command", COMMANDS)
def test_changed_images_are_named_and_the_model_is_not_blamed(
    command: str, which: str, finished: Path, photos: Path, tmp_path: Path, saccade: Saccade
) -> None:
    judged = [r for r in RunFolder(finished).read_dataset() if r.used and r.part in ("validation", "test")]
    changed = [photos / record.path for record in (judged[-1:] if which == "one" else judged)]
    held = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    before = {path: inverted(path) for path in changed}
    words = [w.replace("RUN", str(finished)).replace("OUT", str(tmp_path)) for w in COMMANDS[command]]
    try:
        answer = saccade(*words)
    finally:
        for path, data in before.items():
            path.write_bytes(data)
    assert answer.code == 2
    assert f"{len(changed)} of the {len(judged)} images" in answer.err
    assert changed[0].relative_to(photos).as_posix() in answer.err
    assert "Do not ship" not in answer.out + answer.err
    assert held == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert not list(tmp_path.iterdir())


def test_images_that_are_gone_do_not_stop_new_figures(
    finished: Path, photos: Path, tmp_path: Path, saccade: Saccade
) -> None:
    shutil.move(photos, tmp_path / "photos")
    try:
        answer = saccade("evaluate", finished)
    finally:
        shutil.move(tmp_path / "photos", photos)
    assert answer.code == 0
    assert "this report has no pictures" in answer.out


# -- weights ---------------------------------------------------------------------------------------


def other_weights(path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {
        name: value + 1 if value.dtype == torch.float32 else value for name, value in load_file(path).items()
    }
    save_file(tensors, path, metadata={"arch": "test_efficientnet"})


def test_weights_replaced_before_the_first_epoch_are_noticed(
    make_photos: Callable[..., Path],
    tmp_path: Path,
    saccade: Saccade,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = Path(shutil.copy(tiny_weights, tmp_path / "mine.safetensors"))
    command = (
        "train",
        make_photos(),
        "--out",
        tmp_path / "run",
        *tiny_flags(weights),
        "--train.method",
        "head",
    )

    def interrupted(*values: object) -> FitResult:
        raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setitem(METHODS, "head", Method(METHODS["head"].phases, interrupted))
        assert saccade(*command).code == 143
    other_weights(weights)
    answer = saccade(*command)
    assert answer.code == 2
    assert "mine.safetensors holds other bytes" in answer.err
    shutil.copy(tiny_weights, weights)
    assert saccade(*command).code == 0


def test_weights_replaced_during_the_scan_are_the_ones_recorded(
    make_photos: Callable[..., Path],
    tmp_path: Path,
    saccade: Saccade,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Read again in one run (the audit left other classes than listed), the file must still be the same."""
    import hashlib

    weights = Path(shutil.copy(tiny_weights, tmp_path / "mine.safetensors"))
    photos = make_photos()
    after_the_scan(monkeypatch, lambda: other_weights(weights))
    command = ("train", photos, "--out", tmp_path / "run", *tiny_flags(weights), "--train.method", "head")
    assert saccade(*command).code == 0
    recorded = RunFolder(tmp_path / "run").read_environment()["resolved"]["model.weights_sha256"]
    began, now = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (tiny_weights, weights))
    assert recorded in (began, now)


def test_of_a_finished_run_images_that_came_later_are_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, data)
    command = ["train", str(data), "--out", str(out), *SMALL]
    assert main(command) == 0
    image = next(data.rglob("*.png"))
    shutil.copy(image, image.with_name("later.png"))
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"warning: the images changed since {out} was made" in said
    assert f"{image.parent.name}/later.png is new" in said
    data.rename(tmp_path / "elsewhere")
    assert main(command) == 0
    assert "warning" not in capsys.readouterr().out, "the run stands by itself"
