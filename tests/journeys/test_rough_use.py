"""What people do by mistake: wrong names, wrong kinds of files, data that moved, a run that is none."""

from __future__ import annotations

import copy
import io
import pickle
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saccade as package
from saccade import pipeline
from saccade.cli import main
from saccade.errors import RecipeError
from saccade.pipeline.ahead import check_model
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage
from saccade.terminal import Terminal

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")
Saccade = Callable[..., Any]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo_writer: Callable[..., Path]) -> Path:
    return photo_writer(tmp_path_factory.mktemp("data") / "photos", images=20)


@pytest.fixture(scope="module")
def run(photos: Path) -> RunFolder:
    """A finished run that the tests of this module only look at, or add to."""
    out = photos.parent / "run"
    assert main(["train", str(photos), "--out", str(out), *SMALL]) == 0
    return RunFolder(out)


# -- names that cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["audit", ""], "the data path is empty"),
        (["split", "PHOTOS", "--out", "split.parquet"], "ends in .csv"),
        (["split", "PHOTOS", "--out", "."], "ends in .csv"),
        (["augment", "PHOTOS", "--out", "preview.jpg"], "ends in .png"),
        (["augment", "PHOTOS", "--out", "preview.png", "--images", "0"], "at least 1, got 0 and 7"),
        (["augment", "PHOTOS", "--out", "preview.png", "--draws", "-1"], "at least 1, got 6 and -1"),
        (["summary", "small_cnn", "--classes", "0"], "at least 1"),
        (["train", "PHOTOS", "--out", "x", "--backbone", "mobilnetv2_100"], "did you mean mobilenetv2_100"),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "resnet18", "--weights", "no.safetensors"],
            "no.safe",
        ),
        (["train", "PHOTOS", "--out", "x", "--unfreeze", "foo"], "train.unfreeze names no layers: 'foo'"),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "resnet18", "--model.options", "pad_tpye=same"],
            "did you mean pad_type",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "small_cnn", "--weights", "WEIGHTS"],
            "small_cnn has no pretrained weights",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "small_cnn", "--model.options", "depth=3"],
            "cannot be built with {'depth': 3}",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "fast_cnn", "--image-size", "224"],
            "64 pixels and less (usual are 28, 32, 40, 48, 56, 64)",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "resnet18", "--optimizer", "muon"],
            "destroys the pretrained ones of backbone resnet18",
        ),
        (
            [*("train", "PHOTOS", "--out", "x", "--optimizer", "muon"), "--backbone", "auto"],
            "destroys the pretrained ones of backbone auto",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "resnet18", "--weights", "PHOTOS"],
            "hint: give one .safetensors file, or choose among those in it with --backbone auto",
        ),
        (
            ["train", "PHOTOS", "--out", "x", "--backbone", "resnet18", "--weights", "FOLDER"],
            "holds weights of test_efficientnet, but the backbone is timm/resnet18",
        ),
        (["train", "PHOTOS", "--out", "x", "--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["train", "PHOTOS", "--out", "x", "--split.validation", "0"], "there is no validation part"),
        (["train", "FEW", "--out", "x"], "in each of train, validation, test: class 'rare' has 2 images"),
        (["train", "PHOTOS", "--out", "x", "--method", "head", "--epochs", "2"], "would have no effect"),
        (["augment", "PHOTOS", "--out", "preview.png", "--backbone", "auto"], "name a backbone"),
        (["summary", "auto"], "name a backbone"),
        (["evaluate", "PHOTOS"], "is not a run folder"),
        (["compare", "PHOTOS", "PHOTOS"], "has no predictions"),
        (["train"], "saccade train needs DATA, or --resume RUN"),
    ],
)
def test_a_mistake_is_named_before_any_image_is_read(
    saccade: Saccade,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_weights: Path,
    words: Sequence[str],
    wanted: str,
) -> None:
    def scanned(*_: object, **__: object) -> None:
        raise AssertionError("images were read first")

    few = tmp_path.with_name(f"{tmp_path.name}-few")
    for n, path in enumerate(sorted(photos.rglob("*.png"))[:8]):
        target = few / ("rare" if n < 2 else "usual") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    places = {
        "FEW": str(few),
        "PHOTOS": str(photos),
        "WEIGHTS": str(tiny_weights),
        "FOLDER": str(tiny_weights.parent),
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline.prepare, "scan", scanned)
    answer = saccade(*(places.get(word, word) for word in words))
    assert answer.code == 2
    assert wanted in answer.err
    assert [line.partition(":")[0] for line in answer.err.splitlines()] in (["error"], ["error", "hint"])
    assert list(tmp_path.iterdir()) == []


def test_a_split_of_an_archive_is_refused_because_no_list_can_name_its_images(
    saccade: Saccade, photos: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in photos.rglob("*.*"):
            target.write(path, path.relative_to(photos))
    answer = saccade("split", archive, "--out", tmp_path / "split.csv")
    assert answer.code == 2
    assert "unpack it" in answer.err
    assert not (tmp_path / "split.csv").exists()


def test_more_unfrozen_than_there_is_leaves_no_half_begun_run(
    saccade: Saccade, photos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    flags = ("--backbone", "test_efficientnet", "--weights", tiny_weights, "--image-size", "32")
    answer = saccade("train", photos, "--out", tmp_path / "r", *flags, "--unfreeze", "layers:-1000")
    assert answer.code == 2
    assert "train.unfreeze" in answer.err
    assert not (tmp_path / "r").exists()


def test_muon_from_scratch_and_the_sizes_of_fast_cnn_are_taken() -> None:
    for side in (9, 36, 64):
        check_model(Recipe.from_mapping({"model.backbone": "fast_cnn", "data.image_size": side}))
    check_model(Recipe.from_mapping({"model.backbone": "small_cnn", "train.optimizer": "muon"}))
    scratch = {"model.backbone": "test_efficientnet", "model.pretrained": False, "train.optimizer": "muon"}
    check_model(Recipe.from_mapping(scratch))


def test_one_of_a_kind_is_said_in_the_singular() -> None:
    one = Dataset(Path("."), (ImageRecord("a/1.png", "a"),), ("a",), storage=FolderStorage(Path(".")))
    said = io.StringIO()
    pipeline.words.say_data(one, Terminal(stream=said))
    assert said.getvalue() == "Data      1 image in 1 class (a 1)\n"


def test_a_batch_of_one_is_refused_where_batch_norm_needs_two(
    saccade: Saccade, photos: Path, tmp_path: Path
) -> None:
    flags = ("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "1")
    answer = saccade("train", photos, "--out", tmp_path / "r", *flags)
    assert answer.code == 2
    assert "use 2 or more" in answer.err
    assert not (tmp_path / "r").exists()


def test_an_export_needs_the_name_of_an_onnx_file(saccade: Saccade, run: RunFolder, tmp_path: Path) -> None:
    for name in ("model.txt", "folder/"):
        answer = saccade("export", run.root, "--out", f"{tmp_path}/{name}")
        assert answer.code == 2
        assert "end it in .onnx" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_inputs_may_stand_on_both_sides_of_a_flag(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    answer = saccade("predict", run.root, photos / "bar", "--out", tmp_path / "p.csv", photos / "disc")
    assert answer.code == 0
    assert "40 predictions" in answer.out


def test_a_name_cannot_write_to_the_terminal(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "a\x1b[2Jb\n.png"
    shutil.copy(photos / "bar" / "bar_000.png", odd)
    answer = saccade("predict", run.root, odd, tmp_path / "c\x1b[2J.png")
    assert answer.code == 1
    assert "\x1b" not in answer.out + answer.err
    assert len(answer.out.splitlines()) == 1


# -- stopped, refused by the system --------------------------------------------------------------


def test_ctrl_c_at_any_time_says_how_to_go_on(saccade: Saccade, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train", interrupted)
    answer = saccade("train", "photos", "--out", "run")
    assert answer.code == 130
    assert "to start again: saccade train photos --out run" in answer.err


CTRL_C_WHILE_TRACING = """
import os, signal, sys
from torch.onnx._internal.torchscript_exporter import utils
def interrupted(*values, **named):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
    return translate(*values, **named)
translate, utils._run_symbolic_function = utils._run_symbolic_function, interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has it ignored
from saccade.__main__ import main
sys.exit(main())
"""


def test_ctrl_c_twice_while_exporting_says_stopped_and_nothing_else(run: RunFolder, tmp_path: Path) -> None:
    words = ("export", str(run.root), "--out", str(tmp_path / "model.onnx"))
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_WHILE_TRACING, *words], capture_output=True, text=True, timeout=120
    )
    again = f"stopped: received SIGINT\nhint: to start again: saccade {shlex.join(words)}\n"
    said = f"Writing   {tmp_path / 'model.onnx'}\n"
    assert (done.returncode, done.stderr, done.stdout) == (130, again, said)
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_is_no_defect_of_ours(
    saccade: Saccade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SACCADE_TRACEBACK")
    (tmp_path / "taken-digits").write_text("a file where the demo's folder should be")
    answer = saccade("demo", "--out", tmp_path / "taken")
    assert answer.code == 2
    assert "taken-digits" in answer.err
    assert "check the path, its permissions" in answer.err
    assert "defect" not in answer.err


# -- evaluations ---------------------------------------------------------------------------------


def test_the_name_of_an_evaluation_leads_nowhere_else(saccade: Saccade, run: RunFolder, photos: Path) -> None:
    answer = saccade("evaluate", run.root, photos, "--name", "../../elsewhere")
    assert answer.code == 2
    assert "is not a plain name" in answer.err
    assert not (run.root.parent / "elsewhere").exists()


def test_an_evaluation_forgets_parts_that_its_data_no_longer_have(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split.csv"
    assert saccade("split", photos, "--out", split).code == 0
    assert saccade("evaluate", run.root, split, "--name", "twice").code == 0
    place = run.evaluation("twice")
    assert place.has(place.metrics("train"))
    assert saccade("evaluate", run.root, photos, "--name", "twice").code == 0
    assert place.has(place.metrics("test"))
    assert not place.has(place.metrics("train"))
    assert not place.has(place.predictions("validation"))


def test_an_evaluation_for_other_shares_forgets_the_new_data_of_its_name(
    saccade: Saccade, run: RunFolder, photos: Path
) -> None:
    assert saccade("evaluate", run.root, photos, "--name", "shares").code == 0
    place = run.evaluation("shares")
    assert place.has(place.audit)
    even = ",".join(f"{name}=1" for name in run.read_model()["classes"])
    answer = saccade("evaluate", run.root, "--priors", even, "--name", "shares")
    assert answer.code == 0, answer.err
    assert not place.audit.exists()
    assert not place.audit_page.exists()


def test_a_leak_is_said_of_the_part_that_has_it(
    saccade: Saccade, run: RunFolder, photos: Path, tmp_path: Path
) -> None:
    split = tmp_path / "split.csv"
    assert saccade("split", photos, "--out", split).code == 0  # the same division as the run's own
    answer = saccade("evaluate", run.root, split, "--name", "own")
    assert "the figures of train are too good" in answer.out
    assert "the figures of test flatter" not in answer.out


def test_evaluations_of_two_runs_can_be_compared(saccade: Saccade, run: RunFolder, photos: Path) -> None:
    assert saccade("evaluate", run.root, photos, "--name", "common").code == 0
    place = run.evaluation("common").root
    assert saccade("compare", place, place).code == 0
    answer = saccade("compare", run.root, run.root, "--part", "tset")
    assert answer.code == 2
    assert "no predictions of a part 'tset'\nhint: choose from: validation, test, train" in answer.err


def test_moved_images_are_said_where_they_are_missed(saccade: Saccade, photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    assert saccade("train", data, "--out", tmp_path / "r", *SMALL).code == 0
    data.rename(tmp_path / "elsewhere")
    answer = saccade("evaluate", tmp_path / "r")
    assert answer.code == 0
    assert f"no longer at {data}: this report has no pictures" in answer.out
    answer = saccade("export", tmp_path / "r")
    assert answer.code == 2
    assert "say where they are now with --data" in answer.err
    place = tmp_path / "elsewhere"
    answer = saccade("evaluate", tmp_path / "r", "--data", place)
    assert answer.code == 0
    assert "no pictures" not in answer.out
    model = tmp_path / "r" / "export" / "model.onnx"
    for words in (("export", tmp_path / "r"), ("certify", model, "--against", tmp_path / "r")):
        answer = saccade(*words, "--data", place)
        assert answer.code == 0, answer.err
        assert "certified" in answer.out


def test_other_images_are_not_taken_for_those_that_moved(
    saccade: Saccade, photos: Path, run: RunFolder, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    judged = [record.path for record in run.read_dataset() if record.part == "test"]
    (other / judged[0]).write_bytes((other / judged[1]).read_bytes())
    answer = saccade("export", run.root, "--data", other)
    assert answer.code == 2
    assert f"1 of {2 * len(judged)} are missing or have changed ({judged[0]})" in answer.err
    answer = saccade("evaluate", run.root, photos, "--data", other)
    assert "give one of them" in answer.err


def test_a_run_is_summarised_as_it_was_trained(saccade: Saccade, run: RunFolder) -> None:
    trained = saccade("summary", run.root)
    named = saccade("summary", "small_cnn", "--classes", "3", "--image-size", "16")
    assert trained.code == 0
    assert trained.out == named.out


def test_a_failed_certificate_says_what_to_do(run: RunFolder) -> None:
    values = {"images": 9, "top1_agreement": 0.5, "accuracy_change": -0.2, "tolerance": 0.01}
    values |= {"kind": "int8", "passed": False, "max_probability_difference": 0.4}
    said = pipeline.result.certificate_line(values, run.int8)
    assert "FAILED" in said
    for words in ("Ship the float file", "--export.calibration_images", "--export.max_drop"):
        assert words in said
    assert "Do not ship" in pipeline.result.certificate_line({**values, "kind": "float"}, run.onnx)
    assert "ship" not in pipeline.result.certificate_line({**values, "passed": True}, run.onnx).lower()


# -- Python --------------------------------------------------------------------------------------


def test_parameters_are_kept_as_they_are_and_refused_by_fit(photos: Path, tmp_path: Path) -> None:
    model = package.ImageClassifier(backbone="small_cnn", unfreeze=3, nonsense=2)
    model.set_params(out=str(tmp_path / "x"))
    assert (model.unfreeze, model.get_params()["nonsense"]) == (3, 2)
    with pytest.raises(RecipeError, match="unknown key 'nonsense'"):
        model.fit(photos)
    assert not (tmp_path / "x").exists()


def test_unfreeze_may_be_a_number() -> None:
    assert package.ImageClassifier(unfreeze=3)._recipe().train.unfreeze == "3"


def test_a_fitted_classifier_is_copied_pickled_and_cleans_up(photos: Path) -> None:
    model = package.ImageClassifier(backbone="small_cnn", image_size=16, epochs=1).fit(photos)
    picture = np.zeros((20, 20, 3), np.uint8)
    wanted = model.predict_proba([picture])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.predict_proba([picture]), wanted)
    first = model.run_.root
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(photos)
        assert not first.exists()
        second = model.run_.root
        del model
    assert not second.exists()


def test_data_with_parts_but_no_test_answer_with_validation(
    run: RunFolder, photo_writer: Callable[..., Path], tmp_path: Path
) -> None:
    for part, images in (("train", 4), ("val", 2)):
        photo_writer(tmp_path / "new" / part, images=images, seed=images)
    model = package.ImageClassifier()
    model.run_ = run
    classes = len(run.read_environment()["classes"])
    assert model.evaluate(tmp_path / "new").images == 2 * classes


def test_python_warns_where_new_data_were_trained_on(run: RunFolder, photos: Path) -> None:
    model = package.ImageClassifier()
    model.run_ = run
    with pytest.warns(UserWarning, match="leak: .* were in the training or validation part") as caught:
        model.evaluate(photos)
    assert Path(caught[0].filename) == Path(__file__), "it points at the line that evaluates"
