"""The files of onnxruntime-web: from a folder, saccade's cache, or npm. They are never part of saccade."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from saccade.caches.store import cache_folder
from saccade.errors import ModelError
from saccade.files import read_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"  # the one that was tried
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
RUNTIME_VARIABLE = "SACCADE_WEB_RUNTIME"
NPM_SECONDS = 300


def web_runtime(folder: str = "") -> dict[str, bytes]:
    """Content of the files of onnxruntime-web by name, each with the SHA-256 that is written down here.

    From `folder` (or $SACCADE_WEB_RUNTIME): `dist` of the npm package, or a folder that holds it. Else from
    saccade's cache; else the package is fetched by the user's npm, which knows its registry, and kept there.
    Raises ModelError, which says what to do.
    """
    given = folder or os.environ.get(RUNTIME_VARIABLE, "")
    if given:
        return _given(Path(given))
    kept = cache_folder() / f"{PACKAGE}-{VERSION}"
    found = _read(kept)
    if found is None:
        _fetch(kept)
        found = _read(kept)
    if found is None:
        raise _unavailable(f"npm gave files of {PACKAGE} {VERSION} that are not the ones that were tried")
    return found


def _given(folder: Path) -> dict[str, bytes]:
    below = ("", "dist", f"{PACKAGE}/dist", f"node_modules/{PACKAGE}/dist")
    place = next(
        (folder / name for name in below if all((folder / name / file).is_file() for file in FILES)), None
    )
    if place is None:
        raise ModelError(f"{folder} does not hold {' and '.join(FILES)}", hint=_HINT)
    found = _read(place)
    if found is None:
        raise ModelError(
            f"{place} holds another version than {PACKAGE} {VERSION}, or was changed", hint=_HINT
        )
    return found


def _read(folder: Path) -> dict[str, bytes] | None:
    """The files of a folder; None where one is missing or another than was tried."""
    try:
        found = {name: read_file(folder / name) for name in FILES}
    except OSError:
        return None
    whole = all(hashlib.sha256(data).hexdigest() == FILES[name] for name, data in found.items())
    return found if whole else None


def _fetch(target: Path) -> None:
    """Let npm pack the package, and keep the files that are needed."""
    npm = shutil.which("npm")
    if npm is None:
        raise _unavailable("there is no npm to fetch it with")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--loglevel=error", "--pack-destination", folder]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired:
            raise _unavailable("npm did not fetch it in time") from None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            reason = " ".join(done.stderr.split())[:200]
            raise _unavailable(f"npm could not fetch it ({reason or 'no reason given'})")
        _unpack(archives[0], target)


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as content:
        for name in FILES:
            member = content.extractfile(f"package/dist/{name}")
            if member is not None:
                part = target / f".{name}.{os.getpid()}"
                part.write_bytes(member.read())
                part.replace(target / name)


_HINT = (
    f"run `npm pack {PACKAGE}@{VERSION}` where there is a network, unpack it, and name its folder dist "
    f"with --runtime or {RUNTIME_VARIABLE}"
)


def _unavailable(why: str) -> ModelError:
    return ModelError(f"the page needs {PACKAGE} {VERSION}, and {why}", hint=_HINT)
