"""Parts of an installed package, which saccade has never heard of, through the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saccade import extensions
from saccade.errors import SaccadeError
from saccade.run_folder import RunFolder

Saccade = Callable[..., "tuple[int, str, str]"]

GOOD = """
import shutil
from pathlib import Path
import numpy as np
from torch import nn
from saccade.records import Dataset, ImageRecord
from saccade.export.formats import Format
from saccade.training import Callback

epochs = []

class Counting(Callback):
    def on_epoch_end(self, state, row):
        epochs.append(row.epoch)

def net(classes, *, weights, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

def write(bundle, path, *, float_onnx):
    shutil.copyfile(float_onnx, path)

def load(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(path.read_bytes())
    return lambda images: np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])

def dotted(image, rng):
    changed = image.clone()
    changed[:, rng.integers(image.shape[1]), rng.integers(image.shape[2])] = 255
    augmented.append(image.numpy().tobytes())
    return changed

augmented = []

def wrong_shape(image, rng):
    return image[:, 1:]

class Files:
    def __init__(self, root):
        self.root = root

    def read(self, path):
        return (self.root / path).read_bytes()

def load_photos(place):
    root = Path(place)
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    records = tuple(ImageRecord(path, path.partition("/")[0]) for path in paths)
    return Dataset(root, records, tuple(sorted({record.label for record in records})), Files(root))

def write_folder(bundle, path, *, float_onnx):
    (path / "1").mkdir(parents=True)
    shutil.copyfile(float_onnx, path / "1" / "model.onnx")
    (path / "notes.txt").write_text(" ".join(bundle.classes))

acme = Format(write, load, "model.acme")
folder = Format(write_folder, lambda path: load(path / "1" / "model.onnx"), "acme", folder=True)
wrong = Format(write, lambda path: lambda images: load(path)(images)[:, ::-1], "model.wrong")
writes_nothing = Format(lambda bundle, path: None, load, "model.nothing")
no_format = 3
"""
GOOD_POINTS = """
[saccade.augmentations]
acme_dots = acme_saccade:dotted
acme_small = acme_saccade:wrong_shape
[saccade.sources]
acme_photos = acme_saccade:load_photos
[saccade.backbones]
acme_net = acme_saccade:net
[saccade.callbacks]
counting = acme_saccade:Counting
[saccade.formats]
acme = acme_saccade:acme
acme_folder = acme_saccade:folder
acme_wrong = acme_saccade:wrong
acme_nothing = acme_saccade:writes_nothing
acme_three = acme_saccade:no_format
"""
BROKEN_POINTS = """
[saccade.backbones]
broken_net = broken_saccade:net
absent_net = no_such_module:net
[saccade.formats]
broken = broken_saccade:format
"""


FLAGS = (
    "--backbone",
    "acme_net",
    "--no-pretrained",
    "--image-size",
    "16",
    "--epochs",
    "1",
    "--batch-size",
    "8",
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path, in which packages can be installed by `install`."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    _look_again()
    for name in ("acme_saccade", "broken_saccade"):
        sys.modules.pop(name, None)


def _look_again() -> None:
    extensions._points.cache_clear()
    extensions._loaded.cache_clear()


def install(site: Path, name: str, points: str, code: str) -> None:
    """What an installer would leave: a module, and metadata with entry points."""
    (site / f"{name}_saccade.py").write_text(code)
    metadata = site / f"{name}_saccade-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-saccade\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(points)
    _look_again()


@pytest.fixture
def acme(site: Path) -> Path:
    install(site, "acme", GOOD_POINTS, GOOD)
    return site


@pytest.fixture
def trained(acme: Path, make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade) -> RunFolder:
    """A run of the package's backbone, with weights that tell classes apart by chance only."""
    photos = make_photos("photos", images=12, side=24)
    code, _, err = saccade("train", photos, "--out", tmp_path / "run", *FLAGS)
    assert (code, err) == (0, "")
    return RunFolder(tmp_path / "run")


def test_a_backbone_trains_exports_and_predicts(trained: RunFolder, saccade: Saccade) -> None:
    assert trained.read_model()["architecture"]["library"] == "extension"
    image = next(Path(trained.read_record().data).rglob("*.png"))
    assert saccade("predict", trained.root, image)[0] == 0
    assert saccade("evaluate", trained.root)[0] == 0
    assert saccade("summary", "acme_net", "--classes", "3")[0] == 0
    assert "acme_net" in saccade("backbones", "acme*")[1]
    assert sys.modules["acme_saccade"].epochs == [1], "the callback of the package watches the training"


def test_network_augmentation_callback_and_source_of_one_package_make_a_certified_model(
    acme: Path, make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    photos = make_photos("photos", images=12, side=24)
    command = ("train", f"acme_photos:{photos}", "--out", tmp_path / "run", *FLAGS)
    code, _, err = saccade(*command, "--augment.extra", "acme_dots", "--train.workers", "0")
    assert (code, err) == (0, "")
    package = sys.modules["acme_saccade"]
    run = RunFolder(tmp_path / "run")
    record = run.read_record()
    assert record.data == f"acme_photos:{photos}"
    assert record.resolved["augment"]["extra"] == ["acme_dots"]
    assert record.callbacks == ("acme_saccade.Counting",)
    assert run.read_certificate()["passed"]
    assert "acme_dots" in run.report.read_text()
    counts = [
        len([r for r in run.read_dataset() if r.part == part]) for part in ("train", "validation", "test")
    ]
    assert len(set(package.augmented)) == counts[0] > 0, "training images alone are augmented, in one epoch"
    assert package.epochs == [1]
    assert saccade("predict", run.root, photos / "disc" / "disc_000.png")[0] == 0
    plain = saccade("train", f"acme_photos:{photos}", "--out", tmp_path / "plain", *FLAGS)
    assert plain[0] == 0
    assert run.read_model() != RunFolder(tmp_path / "plain").read_model(), "it changes what is learnt"


def test_augmentations_that_are_absent_or_wrong_are_named(
    acme: Path, make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    photos = make_photos("photos", images=4, side=24)
    command = ("train", photos, "--out", tmp_path / "run", *FLAGS, "--augment.extra")
    code, out, err = saccade(*command, "acme_dost")
    assert (code, out) == (2, "")
    assert "unknown augmentation 'acme_dost'" in err
    assert "known from outside: acme_dots, acme_small" in err
    code, _, err = saccade(*command, "acme_small")
    assert code == 2
    assert "augmentation 'acme_small' gave torch.uint8 (3, 15, 16), not a uint8 tensor (3, 16, 16)" in err


def test_a_format_is_written_certified_and_certified_again(trained: RunFolder, saccade: Saccade) -> None:
    assert saccade("export", trained.root, "--format", "acme")[0] == 0
    file = trained.root / "export" / "model.acme"
    assert file.read_bytes() == trained.onnx.read_bytes()
    certificate = trained.read_certificate(file)
    assert (certificate["format"], certificate["passed"], certificate["kind"]) == ("acme", True, "float")
    assert certificate["batch_difference"] < 1e-6
    assert saccade("certify", file, "--against", trained.root)[0] == 0
    file.write_bytes(b"others")
    code, _, err = saccade("certify", file, "--against", trained.root)
    assert (code, "model.acme is damaged" in err) == (2, True)
    assert f"saccade export {trained.root} --format acme" in err
    assert saccade("train", trained.read_record().data, "--out", trained.root, *FLAGS)[0] == 0
    assert saccade("export", trained.root, "--format", "acme")[0] == 0
    assert not trained.damaged()
    assert saccade("export", trained.root, "--format", "acme", "--out", "x.onnx")[0] == 2


def test_a_folder_is_written_whole_certified_and_certified_again(
    trained: RunFolder, saccade: Saccade, tmp_path: Path
) -> None:
    export = ("export", trained.root, "--format", "acme_folder")
    assert saccade(*export)[0] == 0
    folder = trained.root / "export" / "acme"
    names = ["1", "certificate.json", "notes.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    certificate = json.loads((folder / "certificate.json").read_text())
    assert (certificate["format"], certificate["passed"]) == ("acme_folder", True)
    assert sorted(certificate["files"]) == ["1/model.onnx", "notes.txt"]
    assert not trained.damaged()
    (folder / "notes.txt").write_text("other")
    assert list(trained.damaged()) == [folder / "notes.txt"]
    code, _, err = saccade("certify", folder, "--against", trained.root)
    assert (code, "notes.txt is damaged" in err) == (2, True)
    assert f"saccade export {trained.root} --format acme_folder" in err
    assert saccade(*export)[0] == 0
    assert not trained.damaged()
    assert saccade("certify", folder, "--against", trained.root)[0] == 0
    assert [path.name for path in (trained.root / "export").iterdir() if path.name.startswith(".")] == []


def test_a_folder_elsewhere_is_replaced_only_where_an_export_wrote_all_of_it(
    trained: RunFolder, saccade: Saccade, tmp_path: Path
) -> None:
    place = tmp_path / "deep" / "own.d"
    export = ("export", trained.root, "--format", "acme_folder", "--out", place)
    assert saccade(*export)[0] == 0
    assert saccade(*export)[0] == 0
    assert saccade("certify", place, "--against", trained.root)[0] == 0
    (place / "mine.txt").write_text("precious")
    code, _, err = saccade(*export)
    assert (code, "it holds mine.txt" in err) == (2, True)
    assert (place / "mine.txt").read_text() == "precious"
    (place / "certificate.json").unlink()
    assert "was not written by" in saccade(*export)[2]
    assert "has no certificate.json" in saccade("certify", place, "--against", trained.root)[2]
    assert [path.name for path in place.parent.iterdir()] == ["own.d"]


def test_a_format_whose_answers_differ_fails_its_certificate(trained: RunFolder, saccade: Saccade) -> None:
    assert saccade("export", trained.root, "--format", "acme_wrong")[0] == 1
    assert not trained.read_certificate(trained.root / "export" / "model.wrong")["passed"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("acme_nothing", "acme-saccade 1.2 failed: entry point acme_nothing"), ("acme_three", "is no saccade.")],
)
def test_a_format_that_does_not_work_is_named(
    trained: RunFolder, saccade: Saccade, name: str, words: str
) -> None:
    code, _, err = saccade("export", trained.root, "--format", name)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_backbone_from_outside_has_no_published_weights(
    acme: Path, make_photos: Callable[..., Path], tmp_path: Path, saccade: Saccade
) -> None:
    code, _, err = saccade(
        "train", make_photos("photos"), "--out", tmp_path / "run", "--backbone", "acme_net"
    )
    assert code == 2
    assert err.splitlines()[0] == "error: extension/acme_net has no published weights"
    assert "--no-pretrained" in err.splitlines()[1]
    assert not (tmp_path / "run").exists()


def test_callbacks_of_packages_come_before_registered_ones(
    acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extensions._registered, "callbacks", {})
    extensions.register_callback(list)
    first, second = extensions.callbacks()
    assert type(first()).__name__ == "Counting"
    assert second is list


def test_nothing_of_a_package_is_imported_before_its_name_is_asked_for(acme: Path, saccade: Saccade) -> None:
    assert saccade("summary", "small_cnn", "--classes", "3")[0] == 0
    assert saccade("backbones", "acme*")[0] == 0
    assert "acme_saccade" not in sys.modules


@pytest.mark.parametrize("code", ["raise RuntimeError", "import sys; sys.exit(3)", "net = 1 +"])
def test_a_broken_package_is_named(site: Path, saccade: Saccade, code: str) -> None:
    install(site, "broken", BROKEN_POINTS, code)
    assert "broken_net" in saccade("backbones", "broken*")[1]
    assert saccade("summary", "small_cnn", "--classes", "3")[0] == 0
    for name in ("broken_net", "extension/absent_net"):
        status, _, err = saccade("summary", name, "--classes", "3")
        assert status == 2
        first, second = err.splitlines()
        assert first.startswith(f"error: broken-saccade 1.2 failed: entry point {name.rpartition('/')[2]} = ")
        assert second == "hint: update broken-saccade, or remove it: pip uninstall broken-saccade"


def test_a_builder_that_fails_is_blamed_on_its_package(site: Path, saccade: Saccade) -> None:
    install(site, "broken", BROKEN_POINTS, "def net(classes, *, weights):\n    return 1 / 0\n")
    status, _, err = saccade("summary", "broken_net", "--classes", "3")
    assert status == 2
    assert "broken-saccade 1.2 failed" in err
    assert "ZeroDivisionError" in err


def test_a_name_that_two_packages_offer_is_refused(acme: Path) -> None:
    install(acme, "broken", "[saccade.backbones]\nacme_net = broken_saccade:net\n", "net = list")
    with pytest.raises(SaccadeError, match=r"two packages offer 'acme_net'.*acme-saccade 1\.2"):
        extensions.find("backbones", "acme_net")


def test_what_is_registered_in_python_comes_first_and_keeps_its_errors(
    acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(extensions._registered, "backbones", {})
    extensions.register_backbone("acme_net", list)
    extensions.register_backbone("mine", list)
    assert extensions.find("backbones", "acme_net") is list
    assert extensions.names("backbones") == ("acme_net", "mine")
    with pytest.raises(ZeroDivisionError), extensions.blaming("backbones", "mine"):
        raise ZeroDivisionError
    assert extensions.find("backbones", "nobody's") is None
