"""A run without a name, and one that is continued or finished by its folder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.errors import Interrupted
from saccade.run_folder import RunFolder
from saccade.testing.tiny import timeless
from saccade.training import TerminalProgress

Saccade = Callable[..., Any]
SMALL = (
    *("--backbone", "small_cnn", "--image-size", "16", "--epochs", "3", "--batch-size", "16"),
    "--no-export.onnx",
)
ONE = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--no-export.onnx")


@pytest.fixture
def photos(make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_photos("my photos", images=16)


@pytest.fixture
def stopped(saccade: Saccade, photos: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that a signal stopped after its second epoch."""
    real = TerminalProgress.on_epoch_end

    def stop(self: TerminalProgress, state: Any, row: Any) -> None:
        real(self, state, row)
        if row.epoch == 2:
            raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setattr(TerminalProgress, "on_epoch_end", stop)
        answer = saccade("train", photos, *SMALL)
    assert answer.code == 143
    assert answer.err.rstrip().endswith("--resume runs/my-photos-1"), (
        "what is said continues this run, not another"
    )
    return RunFolder(Path("runs/my-photos-1"))


def test_a_run_without_a_name_gets_the_next_free_one(saccade: Saccade, photos: Path) -> None:
    for number in (1, 2):
        assert saccade("train", photos, *ONE).code == 0
        run = RunFolder(Path(f"runs/my-photos-{number}"))
        assert run.read_record().finished
        assert run.read_record().command[-2:] == ("--out", f"runs/my-photos-{number}")
    Path("runs/my-photos-7").mkdir()
    assert saccade("train", photos, *ONE).code == 0
    assert RunFolder(Path("runs/my-photos-8")).read_record().finished


def test_resume_ends_with_the_bits_of_a_run_that_was_not_stopped(
    saccade: Saccade, photos: Path, stopped: RunFolder
) -> None:
    assert saccade("train", photos, *SMALL, "--out", "whole").code == 0
    means = ("--checkpoint-every", "5m", "--train.workers", "0")  # they may be others
    answer = saccade("train", "--resume", stopped.root, *means)
    assert answer.code == 0, answer.err
    whole = RunFolder(Path("whole"))
    assert [timeless(row) for row in stopped.read_history()] == [
        timeless(row) for row in whole.read_history()
    ]
    assert stopped.weights.read_bytes() == whole.weights.read_bytes()


def test_every_command_says_how_a_stopped_run_goes_on(
    saccade: Saccade, photos: Path, stopped: RunFolder
) -> None:
    commands = [
        ("predict", stopped.root, photos),
        ("evaluate", stopped.root, photos),
        ("serve", stopped.root),
    ]
    commands += [(name, stopped.root) for name in ("export", "evaluate", "bench")]
    commands += [
        ("compare", stopped.root, stopped.root),
        ("certify", "model.onnx", "--against", stopped.root),
    ]
    for command in commands:
        answer = saccade(*command)
        assert answer.code == 2
        assert "runs/my-photos-1 is not trained to the end" in answer.err, command
        assert "saccade train --resume runs/my-photos-1`" in answer.err, command
        assert "saccade train --resume runs/my-photos-1 --finish" in answer.err, command


def test_a_new_run_names_the_stopped_one_of_the_same_data(
    saccade: Saccade, photos: Path, stopped: RunFolder
) -> None:
    line = "runs/my-photos-1, a run of the same data, was stopped before its end; to go on there: "
    with stopped.locked():
        assert line not in saccade("train", photos, *ONE).out, "it is running"
    told = saccade("train", photos, *ONE)
    assert told.code == 0
    assert f"{line}saccade train --resume runs/my-photos-1\n" in told.out
    assert saccade("train", "--resume", stopped.root, "--finish").code == 0
    assert line not in saccade("train", photos, *ONE).out, "it is finished"


def test_finish_makes_the_model_of_the_best_epoch_so_far(saccade: Saccade, stopped: RunFolder) -> None:
    before = stopped.history.read_bytes()
    answer = saccade("train", "--resume", stopped.root, "--finish")
    assert answer.code == 0, answer.err
    assert stopped.history.read_bytes() == before
    assert stopped.read_model()["training"]["stopped"] == "finished early"
    assert "finished early after epoch 2 of 3" in answer.out
    assert stopped.read_record().finished
    assert stopped.has(stopped.report)
    assert "is finished" in saccade("train", "--resume", stopped.root).out


def test_a_refused_first_run_leaves_no_folder(saccade: Saccade, photos: Path) -> None:
    answer = saccade("train", photos, "--backbone", "no_such_network")
    assert answer.code == 2
    assert "no_such_network" in answer.err
    assert not Path("runs").exists()
    Path("runs").mkdir()
    assert saccade("train", photos, "--backbone", "no_such_network").code == 2
    assert Path("runs").is_dir(), "somebody's own"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resume", "nowhere"), "nowhere"),
        (("--resume", "nowhere", "--epochs", "9"), "also given: train.epochs"),
        ((), "needs DATA, or --resume RUN"),
        (("my photos", "--finish"), "no run to finish in runs/my-photos-1"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    saccade: Saccade, photos: Path, words: tuple[str, ...], said: str
) -> None:
    answer = saccade("train", *words)
    assert answer.code == 2
    assert said in answer.err
    assert not Path("runs").exists()


def test_without_an_epoch_there_is_nothing_to_finish(
    saccade: Saccade, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: TerminalProgress, progress: Any) -> None:
        raise Interrupted(15)

    with monkeypatch.context() as patched:
        patched.setattr(TerminalProgress, "on_step", stop)
        assert saccade("train", photos, *SMALL).code == 143
    answer = saccade("train", "--resume", "runs/my-photos-1", "--finish")
    assert answer.code == 2
    assert "no epoch of runs/my-photos-1 has ended yet" in answer.err


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--imgsz", "16"), "data.image_size", 16),
        (("--batch=4",), "train.batch_size", 4),
        (("--learning-rate", "0.01"), "train.lr", 0.01),
        (("--opt", "sgd"), "train.optimizer", "sgd"),
        (("--sched", "linear"), "train.schedule", "linear"),
        (("--mixup", "0.2"), "augment.mix_up", 0.2),
        (("--cutmix", "0.5"), "augment.cut_mix", 0.5),
        (("--workers", "0"), "train.workers", 0),
        (("--patience", "4"), "train.early_stopping", 4),
    ],
)
def test_flags_by_the_names_of_other_tools(
    saccade: Saccade, photos: Path, words: tuple[str, ...], field: str, value: object
) -> None:
    plain = ("--no-pretrained", "--split.validation", "0", "-o", "other")  # refused before it trains
    answer = saccade("train", photos, *plain, *words, "--recipe", "absent.toml")
    assert answer.code == 2
    assert "cannot be read: absent.toml" in answer.err
    flag = words[0].partition("=")[0]
    assert f"note: {flag} is --" in answer.err

    from saccade.cli.flags import chosen_recipe
    from saccade.cli.parsing import parsed

    given = parsed(["train", str(photos), *plain, *words])[1].arguments
    recipe, _ = chosen_recipe("train", given["flags"] if "flags" in given else _fields(given), "")
    assert recipe.flat()[field] == value
    assert given["out"] == "other"


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    own = {"data", "out", "resume", "finish", "recipe"}
    return {name: text for name, text in given.items() if name not in own}
