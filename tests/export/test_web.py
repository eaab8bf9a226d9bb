"""The page for browsers: what is in it, and where the files of its runtime come from."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from saccade.errors import ModelError
from saccade.export import web, web_runtime
from saccade.export.probes import probes, swapped_profile
from saccade.images.decoder import Limits, decode

HOSTILE = ("</script><img src=x onerror=alert(1)>", "\x1b[31mred", "a\u202eb")
LIBRARY = {name: f"content of {name}".encode() for name in web_runtime.FILES}


@pytest.fixture
def library(web_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(web_runtime.RUNTIME_VARIABLE)
    return web_library


# -- what is written ---------------------------------------------------------------------------------------


@pytest.fixture
def written(make_model: Callable[..., Path], library: Path, tmp_path: Path) -> Path:
    pytest.importorskip("onnx")
    metadata = {"saccade.background": "[10, 20, 30]", "saccade.gray_maximum": "4095"}
    model = make_model(tmp_path / "model.onnx", classes=HOSTILE, metadata=metadata)
    web.write_web(None, tmp_path / "web", float_onnx=model, runtime=str(library))
    return tmp_path / "web"


def test_one_file_holds_all_parts_byte_for_byte(written: Path, tmp_path: Path) -> None:
    page = (written / "index.html").read_text("utf-8")
    found = re.findall(r'<script type="application/octet-stream" data-part="(.+?)">(.+?)</script>', page)
    parts = {name: gzip.decompress(base64.b64decode(packed)) for name, packed in found}
    assert parts.keys() == {"about.json", "probes.json", "model.onnx", *web_runtime.FILES}
    assert parts["model.onnx"] == (tmp_path / "model.onnx").read_bytes()
    assert {name: parts[name] for name in LIBRARY} == LIBRARY
    about = json.loads(parts["about.json"])
    assert about["classes"] == list(HOSTILE)
    assert about["decoding"]["background"] == [10, 20, 30]
    assert about["decoding"]["gray_maximum"] == 4095
    assert "<img src=x" not in page


def test_the_page_asks_for_photos_and_nobody_else(written: Path) -> None:
    page = (written / "index.html").read_text("utf-8")
    assert 'type="file"' in page
    assert "connect-src &#x27;none&#x27;" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_the_site_has_every_file_that_its_service_worker_keeps(written: Path) -> None:
    site = written / "site"
    kept = json.loads(re.search(r"FILES = (\[.*?\])", (site / "sw.js").read_text())[1])  # type: ignore[index]
    assert {path.name for path in site.iterdir()} - {"sw.js", "_headers"} == {*kept} - {"./"}
    assert json.loads((site / "manifest.webmanifest").read_text())["start_url"] == "./"
    assert "Cross-Origin-Opener-Policy: same-origin" in (site / "_headers").read_text()
    for script in site.glob("*.js"):
        assert "{{" not in script.read_text()
        for imported in re.findall(r'^import .* from "\./(.+?)"', script.read_text(), re.MULTILINE):
            assert (site / imported).is_file()


def test_the_model_of_the_page_answers(written: Path) -> None:
    answer = web.load_web(written)([np.full((5, 6, 3), 200, np.uint8)])
    assert answer.shape == (1, 3)
    assert answer.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("limit", "words"), [("MOST_MODEL_BYTES", "a page can hold"), ("SENSIBLE_MODEL_BYTES", "slow on phones")]
)
def test_a_large_model_gets_a_word(
    limit: str,
    words: str,
    make_model: Callable[..., Path],
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr(web, limit, 100)
    model = make_model(tmp_path / "model.onnx")
    try:
        web.write_web(None, tmp_path / "web", float_onnx=model, runtime=str(library))
        said = capsys.readouterr().out
    except ModelError as error:
        said = str(error)
    assert words in said


# -- the two pictures of the self-test ---------------------------------------------------------------------


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 90)])
def test_the_probes_hold_what_our_decoder_makes_of_them(background: tuple[int, int, int]) -> None:
    found = probes(background)
    assert [probe.name for probe in found] == ["JPEG", "PNG"]
    for probe in found:
        assert probe.pixels == decode(probe.file, limits=Limits(background=background)).pixels.tobytes()
        assert len(probe.pixels) == 64 * 64 * 3


def test_a_decoder_that_applies_the_profile_or_leaves_the_photo_lying_cannot_pass() -> None:
    jpeg = probes((255, 255, 255))[0]
    with Image.open(io.BytesIO(jpeg.file)) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile()))
        shown = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    expected = np.frombuffer(jpeg.pixels, np.uint8).reshape(64, 64, 3).astype(int)
    upright = np.rot90(np.asarray(shown), -1).astype(int)
    assert np.abs(upright - expected).mean() > 20
    assert np.abs(np.rot90(expected) - expected).mean() > 20


# -- where the runtime comes from --------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "..", "../.."])
def test_a_folder_may_be_dist_or_hold_the_package(library: Path, place: str) -> None:
    assert web_runtime.web_runtime(str(library / place)) == LIBRARY


def test_the_environment_names_a_folder_too(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(web_runtime.RUNTIME_VARIABLE, str(library))
    assert web_runtime.web_runtime() == LIBRARY


def test_another_version_is_refused(library: Path) -> None:
    (library / "ort.wasm.bundle.min.mjs").write_bytes(b"newer")
    with pytest.raises(ModelError, match=r"another version than onnxruntime-web 1\.30\.0"):
        web_runtime.web_runtime(str(library))


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not hold"):
        web_runtime.web_runtime(str(tmp_path))


def test_without_npm_the_error_says_what_to_do(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match="there is no npm") as caught:
        web_runtime.web_runtime()
    assert "npm pack onnxruntime-web@1.30.0" in str(caught.value.hint)
    assert "--runtime" in str(caught.value.hint)


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called npm that does what `script` says, first on the PATH."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_npm_packs_is_kept_for_the_next_time(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as archive:
        archive.add(library, "package/dist")
    said = tmp_path / "said.txt"
    _npm(tmp_path / "bin", f'echo "$@" > {said}; cp {tmp_path}/packed.tgz "$5/p.tgz"', monkeypatch)
    assert web_runtime.web_runtime() == LIBRARY
    assert said.read_text().startswith("pack onnxruntime-web@1.30.0 ")
    shutil.rmtree(tmp_path / "bin")
    assert web_runtime.web_runtime() == LIBRARY


def test_files_that_are_not_the_ones_that_were_tried_are_refused(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library / "ort.wasm.bundle.min.mjs").write_bytes(b"changed on the way")
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as archive:
        archive.add(library, "package/dist")
    _npm(tmp_path / "bin", f'cp {tmp_path}/packed.tgz "$5/p.tgz"', monkeypatch)
    with pytest.raises(ModelError, match="not the ones that were tried"):
        web_runtime.web_runtime()


def test_without_a_network_the_words_of_npm_are_shown(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _npm(tmp_path / "bin", "echo 'npm error: no network' >&2; exit 1", monkeypatch)
    with pytest.raises(ModelError, match=r"npm could not fetch it \(npm error: no network\)"):
        web_runtime.web_runtime()
