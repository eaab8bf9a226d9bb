"""An augmentation of the user's own, as module:function or in Python; it runs only where it was typed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saccade import ImageClassifier, extensions
from saccade.run_folder import RunFolder

Saccade = Callable[..., "tuple[int, str, str]"]

MODULE = """
def black(image, rng):
    return image * 0

def broken(image, rng):
    return 1 / 0
"""
NAME = "own_changes:black"
FLAGS = (
    *("--backbone", "small_cnn", "--image-size", "32", "--epochs", "1", "--batch-size", "8"),
    *("--augment", "none", "--no-export.onnx", "--no-split.near_duplicates"),
)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module in the folder in which commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(extensions, "_named_by_user", set())
    monkeypatch.setitem(extensions._registered, "augmentations", {})
    (tmp_path / "own_changes.py").write_text(MODULE)
    yield
    sys.modules.pop("own_changes", None)


@pytest.mark.slow
def test_a_named_function_changes_training(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    photos = make_photos("photos", images=12, side=24)
    losses = []
    for out, words in {
        "plain": (),
        "extra": ("--augment.extra", NAME),
        "listed": ("--augment.steps", f"rotation,{NAME}"),
    }.items():
        code, _, err = saccade("train", photos, "--out", tmp_path / out, *FLAGS, *words)
        assert (code, err) == (0, "")
        losses.append(RunFolder(tmp_path / out).read_history()[-1].train_loss)
    assert losses[0] != losses[1] == losses[2]
    assert RunFolder(tmp_path / "extra").read_recipe().augment.extra == (NAME,)
    extensions._named_by_user.clear()
    assert saccade("evaluate", tmp_path / "extra")[0] == 0  # which augments nothing


def test_a_function_that_is_named_runs_for_nobody_who_did_not_name_it(
    make_photos: Callable[..., Path], saccade: Saccade, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos("photos", images=3, side=24)
    look = ("augment", photos, "--out", "p.png", "--image-size", "32")
    assert saccade(*look, "--augment.extra", NAME)[0] == 0
    assert sys.modules["own_changes"]
    extensions._named_by_user.clear()
    sys.modules.pop("own_changes")
    for field in (f'extra = ["{NAME}"]', f'steps = ["rotation", "{NAME}"]'):
        Path("r.toml").write_text(f"[augment]\n{field}\n")
        code, _, err = saccade(*look, "--recipe", "r.toml")
        assert code == 2
        assert f"augmentation {NAME} is code, and no code runs because a file names it" in err
        assert f"SACCADE_AUGMENTATIONS={NAME}" in err
    assert "own_changes" not in sys.modules
    monkeypatch.setenv("SACCADE_AUGMENTATIONS", NAME)
    assert saccade(*look, "--recipe", "r.toml")[0] == 0


def test_a_name_allowed_as_a_backbone_is_not_allowed_as_an_augmentation(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    extensions.allow_function(NAME, "backbones")
    (tmp_path / "r.toml").write_text(f'[augment]\nextra = ["{NAME}"]\n')
    photos = make_photos("photos", images=3, side=24)
    code, _, err = saccade("augment", photos, "--out", "p.png", "--recipe", tmp_path / "r.toml")
    assert (code, "is code, and no code runs" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own_changes:blak", "augmentation own_changes:blak: the module 'own_changes' has no 'blak'"),
        ("no_changes:f", "augmentation no_changes:f: there is no module 'no_changes'"),
        ("own_changes:broken", "augmentation own_changes:broken failed: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_function_is_said(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade, name: str, words: str
) -> None:
    photos = make_photos("photos", images=3, side=24)
    code, _, err = saccade("augment", photos, "--out", "p.png", "--augment.extra", name)
    assert code == 2
    assert words in err
    assert "hint:" in err


@pytest.mark.slow
def test_in_python_it_is_given_itself(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    seen = []

    def watching(image, rng):  # type: ignore[no-untyped-def]
        seen.append(image.shape)
        return image

    settings = {"epochs": 1, "batch_size": 8, "image_size": 32, "export__onnx": False}
    out = str(tmp_path / "run")
    model = ImageClassifier("small_cnn", out=out, augment__extra=[watching], **settings)
    model.fit(make_photos("photos", images=12, side=24))
    assert set(seen) == {(3, 32, 32)}
    assert model.run_.read_recipe().augment.extra == (f"{__name__}:{watching.__qualname__}",)
