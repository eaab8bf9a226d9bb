"""A network of the user's own, as a function: given in Python, or named on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade import ImageClassifier, extensions
from saccade.errors import ModelError, SaccadeError
from saccade.models import build_model
from saccade.run_folder import RunFolder

Saccade = Callable[..., "tuple[int, str, str]"]

MODULE = """
from torch import nn

def build(classes, image_size=16):
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))

def broken(classes):
    return 1 / 0

def words(classes):
    return "no network"

number = 3
"""
FLAGS = ("--epochs", "1", "--batch-size", "8")


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module in the folder in which commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(extensions, "_named_by_user", set())
    monkeypatch.setitem(extensions._registered, "backbones", {})
    (tmp_path / "own_nets.py").write_text(MODULE)
    yield
    sys.modules.pop("own_nets", None)


def in_another_process() -> None:
    """What another command knows: nothing of what was named before."""
    extensions._named_by_user.clear()
    sys.modules.pop("own_nets", None)


def build(classes: int, *, weights: str) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def test_a_function_is_trained_exported_and_certified(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos("photos", images=12, side=24)
    model = ImageClassifier(build, image_size=16, epochs=1, out=str(tmp_path / "run")).fit(photos)
    assert model.run_.read_certificate()["passed"]
    assert model.run_.read_recipe().model.backbone == f"{__name__}:build"
    assert not model.run_.read_recipe().model.pretrained
    assert len(model.predict(photos)) == 36
    loaded = ImageClassifier.load(tmp_path / "run")
    assert loaded.predict(photos).tolist() == model.predict(photos).tolist()


def test_a_function_may_bring_its_own_weights(make_photos: Callable[..., Path]) -> None:
    photos = make_photos("photos", images=12, side=24)
    model = ImageClassifier(build, pretrained=True, method="head", image_size=16).fit(photos)
    assert {row.phase for row in model.run_.read_history()} == {"head"}
    assert model.run_.read_record().resolved["model.pretrained"]


def test_a_last_layer_of_another_size_is_replaced_and_said() -> None:
    name = extensions.register_function(lambda classes: build(7, weights=""))
    told = "gives 7 outputs for 3 classes: a new last layer is used"
    assert any(told in note for note in build_model(name, 3, pretrained=False).notes)
    assert not any("outputs" in note for note in build_model(name, 7, pretrained=False).notes)


def test_a_named_function_trains_and_runs_for_nobody_who_did_not_name_it(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = make_photos("photos", images=12, side=24), RunFolder(tmp_path / "run")
    code, _, err = saccade("train", photos, "--out", run.root, "--backbone", "own_nets:build", *FLAGS)
    assert (code, err) == (0, "")
    assert run.read_record().resolved["data.preprocess"]["size"] == 16, "as the function's own default says"
    in_another_process()
    assert saccade("predict", run.root, photos)[0] == 0
    for command in (("evaluate", run.root, photos), ("export", run.root), ("summary", run.root)):
        code, _, err = saccade(*command)
        assert code == 2
        assert "own_nets:build is code, and no code runs because a file names it" in err
        assert "SACCADE_BACKBONES=own_nets:build" in err
    recipe = tmp_path / "r.toml"
    recipe.write_text('[model]\nbackbone = "own_nets:build"\n')
    assert saccade("train", photos, "--out", tmp_path / "x", "--recipe", recipe)[0] == 2
    assert "own_nets" not in sys.modules
    monkeypatch.setenv("SACCADE_BACKBONES", "other:net,own_nets:build")
    assert saccade("export", run.root)[0] == 0
    assert saccade("train", "--resume", run.root)[0] == 0


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("no_nets:build", "there is no module 'no_nets'", "give module:function"),
        ("own_nets:biuld", "the module 'own_nets' has no 'biuld'", "give module:function"),
        (
            "own_nets.py:build",
            "there is no module 'own_nets.py'",
            "name the module, not the file: own_nets:build",
        ),
        ("own_nets:number", "is a int, not a function", "build(classes"),
        ("own_nets:broken", "failed: ZeroDivisionError: division by zero", "check_backbone"),
        ("own_nets:words", "gave a str, not a torch.nn.Module", "return the network"),
        ("__main__:build", "is a function of the script or notebook", "put it into a module"),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_images_are_read(
    make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade, name: str, problem: str, remedy: str
) -> None:
    photos = make_photos("photos", images=3)
    code, out, err = saccade("train", photos, "--out", tmp_path / "run", "--backbone", name, *FLAGS)
    assert (code, out) == (2, "")
    assert problem in err
    assert remedy in err
    assert not (tmp_path / "run").exists()


def test_weights_for_a_function_that_takes_none_are_refused(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises((ModelError, SaccadeError), match="takes no weights"):
        ImageClassifier("own_nets:build", weights=str(tmp_path / "w.safetensors")).fit(make_photos("photos"))


def test_a_model_that_names_code_runs_none(tmp_path: Path) -> None:
    from saccade.models import rebuild

    (tmp_path / "evil_nets.py").write_text("raise SystemExit('it ran')")
    architecture = {"library": "extension", "backbone": "evil_nets:build", "options": {}, "head": "linear"}
    architecture = json.loads(json.dumps({**architecture, "classes": 3, "dropout": 0.0, "image_size": 16}))
    for name in ("evil_nets:build", "os:abort", "subprocess:run"):
        with pytest.raises(SaccadeError, match="no code runs because a file names it"):
            rebuild({**architecture, "backbone": name})
    assert "evil_nets" not in sys.modules
