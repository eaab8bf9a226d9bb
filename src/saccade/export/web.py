"""A page that classifies photos in the browser: one file to double-click, and a folder to host.

The page holds model, runtime and decoder, and asks nobody. Pixels are those of our own decoder; when it is
opened it tests that on two pictures and says so where its browser differs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.artefact import Artefact
from saccade.errors import ModelError
from saccade.export.chromium import chromium_runtime
from saccade.export.probes import probes
from saccade.export.runtimes import Answer, Runtimes, runtimes
from saccade.export.web_runtime import web_runtime
from saccade.images.decoder import DEFAULT_MAX_PIXELS, EXTREME_ASPECT
from saccade.pages.about import describe, read_certificate
from saccade.pages.assemble import filled, icon, one_script, page, source, whole_page
from saccade.preprocess import PixelFormat
from saccade.terminal import Terminal

ONE_FILE = "index.html"
SITE = "site"  # the folder to host
MODEL = "model.onnx"
MODULES = ("decode.js", "app.js", "page.js", "main-local.js")
ONE_FILE_POLICY = {"connect-src": "'none'", "script-src": "blob: 'wasm-unsafe-eval'"}
SENSIBLE_MODEL_BYTES = 60_000_000
MOST_MODEL_BYTES = 350_000_000  # as base64 it must fit into one string, of which V8's have at most 512 MB
# Threads need a page that is isolated from others; hosts that know this file send the headers.
HEADERS = """/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  X-Content-Type-Options: nosniff
"""


# Browsers load no modules from disk, so that nothing else would happen.
FROM_DISK = """<script>
if (location.protocol === "file:")
  document.getElementById("status").textContent = "This is for a web server. Open ../index.html instead.";
</script>"""


def write_web(bundle: Any, path: Path, *, float_onnx: Path, runtime: str = "") -> None:
    """Write PATH/index.html, which needs nothing beside it, and PATH/site/ with the same to host.

    `float_onnx` is the model, `runtime` a folder with the files of onnxruntime-web. Raises ModelError where
    those are not to be had.
    """
    _check_size(float_onnx)
    artefact = Artefact.open(float_onnx)
    _check_colours(artefact.preprocess.pixels)
    library = web_runtime(runtime)
    about = _about(float_onnx, artefact)
    parts = {
        "about.json": _json(about),
        "probes.json": _json([probe.as_json() for probe in probes(artefact.background)]),
        **library,
        MODEL: float_onnx.read_bytes(),
    }
    path.mkdir(parents=True)
    (path / ONE_FILE).write_text(_one_file(about["name"], parts), "utf-8")
    _write_site(path / SITE, about["name"], parts)


def _check_colours(pixels: PixelFormat) -> None:
    """Raise ModelError for images that no browser decodes as they are: it has nothing but RGB of 8 bits."""
    if not pixels.is_colour:
        raise ModelError(
            f"the model takes images of {pixels}, and browsers decode RGB of 8 bits only",
            hint="use `saccade serve`, or run model.onnx in a program that reads such files",
        )


def _check_size(model: Path) -> None:
    """Raise ModelError for a model that no browser takes from a page; warn of one that makes people wait."""
    size = model.stat().st_size
    if size > MOST_MODEL_BYTES:
        raise ModelError(
            f"{model} has {size / 1e6:,.0f} MB, and a page can hold {MOST_MODEL_BYTES / 1e6:,.0f} MB",
            hint="train with a smaller backbone, or use `saccade serve`",
        )
    if size > SENSIBLE_MODEL_BYTES:
        Terminal().warn(
            f"the model has {size / 1e6:,.0f} MB: the page is large, and slow on phones",
            hint="a smaller backbone, such as the default one, makes a page of 22 MB",
        )


def _about(model: Path, artefact: Artefact) -> dict[str, Any]:
    decoding = {
        "background": artefact.background,
        "gray_maximum": artefact.gray_maximum,
        "max_pixels": DEFAULT_MAX_PIXELS,
        "max_aspect": EXTREME_ASPECT,
    }
    name = model.absolute().parent.parent.name if model.parent.name == "export" else model.stem
    return describe(name, model, artefact, read_certificate(model)) | {"decoding": decoding}


def _one_file(name: str, parts: Mapping[str, bytes]) -> str:
    inside = "\n".join(
        f'<script type="application/octet-stream" data-part="{part}">{_packed(data)}</script>'
        for part, data in parts.items()
    )
    return whole_page(name, one_script(*MODULES), policy=ONE_FILE_POLICY, body=inside)[0]


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")


def _write_site(folder: Path, name: str, parts: Mapping[str, bytes]) -> None:
    """The page and its parts as files, with what makes it an app that works without a network."""
    head = (
        '<link rel="manifest" href="manifest.webmanifest">\n<link rel="stylesheet" href="style.css">\n'
        + icon()
    )
    body = f'{FROM_DISK}\n<script type="module" src="main.js"></script>'
    content = {
        **parts,
        "index.html": page(name, head=head, body=body).encode(),
        "style.css": source("style.css").encode(),
        "icon.svg": source("icon.svg").encode(),
        "manifest.webmanifest": _json(_manifest(name)),
        "main.js": source("main-local.js").encode(),
        **{module: source(module).encode() for module in MODULES[:-1]},
    }
    folder.mkdir()
    for file, data in content.items():
        (folder / file).write_bytes(data)
    version = hashlib.sha256(b"".join(content[file] for file in sorted(content))).hexdigest()[:16]
    kept = json.dumps(["./", *sorted(content)])
    (folder / "sw.js").write_text(filled("sw.js", version=version, files=kept), "utf-8")
    (folder / "_headers").write_text(HEADERS, "utf-8")


def _manifest(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "short_name": name[:24],
        "start_url": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#1f5fa8",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml", "purpose": "any"}],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def load_web(path: Path) -> Answer:
    """The model inside, in ONNX Runtime."""
    return Artefact.open(path / SITE / MODEL, verify=False).probabilities


def engines(path: Path) -> Runtimes:
    """What runs the model inside, and the page itself in Chromium where there is one."""
    file = path / SITE / MODEL
    found, not_run = runtimes(Artefact.open(file, verify=False), file)
    try:
        return [*found, chromium_runtime(path / ONE_FILE)], not_run
    except (ModelError, OSError, ImportError) as error:  # the page is as good without a browser here
        return found, {**not_run, "Chromium": " ".join(str(error).split())[:200]}
