"""`--engine ray`: the results of one machine, file by file; a crash costs one image, a kill only time."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from saccade import ray_engine
from saccade.cli import main
from saccade.errors import EngineError, RecipeError
from saccade.features.by_cluster import features_by
from saccade.features.compute import Images, compute_features
from saccade.features.engines import feature_engines
from saccade.images.decoder import Limits
from saccade.models import build_model
from saccade.part_files import Job, map_chunks
from saccade.pipeline import audit_data
from saccade.pipeline.evidence import WatchedStorage
from saccade.predict.command import predict_command
from saccade.preprocess import Preprocess
from saccade.ray_engine import RayCluster
from saccade.recipe import Recipe
from saccade.runtime import Runtime
from saccade.sources import load_source
from saccade.terminal import Terminal

MOST_BYTES_AN_IMAGE = 2000
# Found by Ray's workers and their children through PYTHONPATH, which this test's own module is not
DEADLY = """
import os, pathlib, signal

def work(folder):
    import functools
    return functools.partial(sum_up, folder)

def sum_up(folder, chunk):
    mark = pathlib.Path(folder, "killed")
    if 13 in chunk:
        os._exit(3)
    if 40 in chunk and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(chunk)

def pack(found):
    return found, b""

def unpack(values, data):
    return values

def crashed(number):
    return -number

def key(chunk):
    return list(chunk)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[RayCluster]:
    """Ray on this machine, once; its workers have the cache's folder from the environment."""
    pytest.importorskip("ray")
    (folder / "deadly.py").write_text(DEADLY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        patch.setenv("SACCADE_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(folder))
        cluster = RayCluster(workers=2)
        yield cluster
        cluster.close()


@pytest.fixture(scope="module")
def photos(folder: Path, photo_writer: Callable[..., Path]) -> Path:
    root = photo_writer(folder / "photos", images=20)
    damaged = root / "bar" / "bar_007.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return root


def bytes_an_image(cluster: RayCluster, before: int, images: int) -> float:
    return (cluster.carried_bytes - before) / images


def test_an_audit_is_that_of_one_machine(
    cluster: RayCluster, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.audit.shared.CHUNK_IMAGES", 16)
    before = cluster.carried_bytes
    quiet = Terminal(quiet=True)
    audit_data(str(photos), Recipe(), quiet, out=str(tmp_path / "here"), cache=False)
    audit_data(str(photos), Recipe(), quiet, out=str(tmp_path / "ray"), cluster=cluster)
    for name in ("audit.json", "audit.html"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert 0 < bytes_an_image(cluster, before, 60) <= MOST_BYTES_AN_IMAGE
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # Ray's own handler is gone


def predicted(model: Path, *inputs: object, **options: Any) -> int:
    terminal = Terminal(stream=io.StringIO())
    return predict_command(str(model), [str(word) for word in inputs], terminal, **options)


def test_answers_are_those_of_one_machine(
    cluster: RayCluster,
    photos: Path,
    tmp_path: Path,
    make_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saccade.predict.shared.CHUNK_IMAGES", 16)
    model = make_model(tmp_path / "model.onnx")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", photos)
    before = cluster.carried_bytes
    for name, more in (("here", {}), ("ray", {"cluster": cluster})):
        assert predicted(model, photos, archive, out=str(tmp_path / f"{name}.csv"), **more) == 1
    for ending in (".csv", ".csv.failed.csv"):
        assert (tmp_path / f"ray{ending}").read_bytes() == (tmp_path / f"here{ending}").read_bytes()
    assert 0 < bytes_an_image(cluster, before, 120) <= MOST_BYTES_AN_IMAGE
    with pytest.raises(RecipeError, match="--contact-sheet shows images"):
        predicted(model, photos, contact_sheet="page.html", cluster=cluster)


@pytest.mark.parametrize("mirror", [False, True])
def test_features_are_those_of_one_machine(cluster: RayCluster, photos: Path, mirror: bool) -> None:
    backbone = build_model("test_efficientnet", 3, pretrained=False, image_size=32).module.backbone.eval()
    engines = feature_engines(backbone, Runtime.create("cpu"), 32)
    dataset = load_source(str(photos))
    good = tuple(record for record in dataset.records if "bar_007" not in record.path)
    watched = WatchedStorage.of(dataset.storage, [good[0].path, "another.png"])
    images = Images(watched, good, Preprocess(32), Limits(), exact=True)
    here = compute_features(images, engines.exact, mirror=mirror)
    watched.looked[0] = 0
    there = features_by(cluster, images, engines.network, quick=False, mirror=mirror)
    assert here.numpy().tobytes() == there.numpy().tobytes()
    assert watched.looked_at == (good[0].path,)  # a worker's reading is noted here


def test_a_crash_costs_one_item_and_a_kill_only_time(cluster: RayCluster, tmp_path: Path) -> None:
    import deadly  # type: ignore[import-not-found]

    job: Job[int, int] = Job(
        partial(deadly.work, str(tmp_path)), deadly.pack, deadly.unpack, deadly.crashed, deadly.key
    )
    found = list(map_chunks(cluster, job, [[1, 2], [12, 13], [40, 41], [5]]))
    assert found == [([1, 2], 3), ([12], 12), ([13], -13), ([40, 41], 81), ([5], 5)]
    assert (tmp_path / "killed").exists()


# -- words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("spark", ["--engine spark: there is no such engine", "local, ray, ray://ADDRESS"]),
        ("ray://127.0.0.1:1", ["no Ray cluster answers at ray://127.0.0.1:1", "ray start --head"]),
        ("ray://127.0.0.1:no", ["no Ray cluster answers"]),
    ],
)
def test_what_cannot_be_is_said(
    engine: str, words: Sequence[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    assert main(["audit", str(photos), "--engine", engine]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert time.monotonic() - began < 20


def test_a_cluster_is_not_given_a_login(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SACCADE_ADDRESS_SECRETS", "{}")
    words = ["audit", "https://me:geheim@127.0.0.1:9/photos.tar", "--engine", "ray://127.0.0.1:1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "cannot read https://127.0.0.1:9/photos.tar: its login or query is passed on to nobody" in said
    assert "geheim" not in said


def test_a_worker_of_another_version_is_refused(cluster: RayCluster, tmp_path: Path) -> None:
    import deadly  # type: ignore[import-not-found]

    job: Job[int, int] = Job(
        partial(deadly.work, str(tmp_path)), deadly.pack, deadly.unpack, deadly.crashed, deadly.key
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "__version__", "0.0.1")
        with pytest.raises(EngineError, match=r"has saccade .*, and the command 0\.0\.1"):
            list(map_chunks(cluster, job, [[7, 8]]))


def test_without_ray_the_extra_is_named(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["audit", str(photos), "--engine", "ray"]) == 2
    assert "pip install 'saccade[ray]'" in capsys.readouterr().err
