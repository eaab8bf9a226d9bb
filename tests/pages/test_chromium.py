"""The page in a real Chromium: a photo in, the right answer out, the decoder's pixels.

Needs a Chromium, and onnxruntime-web by npm or at SACCADE_WEB_RUNTIME; axe-core by `npm install` in
tests/pages.
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.browser import PIXELS, compared, expectations
from benchmarks.odd_photos import kind_of, write_odd_photos
from PIL import Image

from saccade.artefact import Artefact
from saccade.errors import ModelError
from saccade.export.chromium import Page, PageModel, chromium_page, find_chromium
from saccade.export.web import HEADERS, write_web
from saccade.export.web_runtime import web_runtime

pytestmark = pytest.mark.examples
HOSTILE = "<img src=x onerror=document.title='broken'>"
CLASSES = ("blue", "green", HOSTILE)  # the strongest channel of the photo is its class
NOT_READ_HERE = {"heic", "ppm", "tiff"}
WAIT_SECONDS = 40
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def library() -> str:
    if not find_chromium():
        pytest.skip("needs a Chromium on the PATH")
    try:
        web_runtime()
    except ModelError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")
    return ""


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    metadata = {"saccade.background": "[10, 200, 90]"}
    return make_model(tmp_path_factory.mktemp("model") / "colours.onnx", classes=CLASSES, metadata=metadata)


@pytest.fixture(scope="module")
def web(model: Path, library: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "web"
    write_web(None, folder, float_onnx=model, runtime=library)
    return folder


@pytest.fixture(scope="module")
def page(web: Path) -> Iterator[PageModel]:
    """The page opened from disk, without a network, in a browser of its own."""
    opened = PageModel(web / "index.html")
    yield opened
    opened.close()


@pytest.fixture
def red(tmp_path: Path) -> Path:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def until(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression holds."""
    end = time.monotonic() + WAIT_SECONDS
    while not page.evaluate(condition):
        assert time.monotonic() < end, (
            f"{condition}: {page.evaluate('document.body.innerText')} {page.errors}"
        )
        time.sleep(0.05)


def give(page: Page, *photos: Path) -> None:
    """Choose files, as the browser's own dialogue does it."""
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=document, selector="input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=field, files=[str(photo) for photo in photos])


def drop(page: Page, photo: Path) -> None:
    data = {"items": [], "files": [str(photo)], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=step, x=200, y=300, data=data)


def key(page: Page, name: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
        page.call(
            "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text
        )


def no_serious_violation(page: Page) -> None:
    if not AXE.is_file():
        pytest.skip("needs `npm install` in tests/pages")
    page.evaluate(AXE.read_text("utf-8") + ";0")
    words = "axe.run().then(({ violations }) => violations.map(({ id, impact }) => `${impact}: ${id}`))"
    assert page.evaluate(words) == []


def test_odd_photos_have_the_same_pixels_and_answers(page: PageModel, model: Path, tmp_path: Path) -> None:
    files = write_odd_photos(tmp_path / "odd", photos=1, found=False)
    assert len({kind_of(file) for file in files}) > 20
    outcomes: dict[str, list[str]] = {}
    for file, expected in expectations(Artefact.open(model), files):
        content = base64.b64encode(file.read_bytes()).decode("ascii")
        outcome, difference = compared(expected, page.page.evaluate(f'{PIXELS}("{content}")'))
        outcomes.setdefault(outcome, []).append(file.name)
        assert difference <= 1e-5, file.name
    assert outcomes.keys() == {"the same", "refused by both", "refused by the other alone"}
    assert {name.partition("--")[0] for name in outcomes["refused by the other alone"]} == NOT_READ_HERE
    assert len(outcomes["the same"]) > 100


def test_a_photo_is_dropped_and_its_class_shown_as_text(page: PageModel, red: Path) -> None:
    tab = page.page
    until(tab, "document.body.dataset.state === 'ready'")
    assert tab.evaluate("document.body.dataset.decodes") == "alike"
    drop(tab, red)
    until(tab, "document.querySelector('article[data-state=answered]') !== null")
    assert HOSTILE in tab.evaluate("document.querySelector('article h3').textContent")
    assert HOSTILE in tab.evaluate("document.querySelector('#classes').textContent")
    assert tab.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert tab.evaluate("document.title") == "colours"
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("file:", "blob:"))] == []


def test_the_dialogue_is_opened_by_keyboard(page: PageModel) -> None:
    tab = page.page
    tab.call("Page.setInterceptFileChooserDialog", enabled=True)
    tab.evaluate("document.activeElement.blur()")
    for _ in range(3):
        key(tab, "Tab", 9)
        if tab.evaluate("document.activeElement.id") == "file":
            break
    assert tab.evaluate("document.activeElement.id") == "file"
    key(tab, "Enter", 13)
    tab.evaluate("new Promise((go) => setTimeout(go, 300))")
    assert tab.choosers == 1
    tab.call("Page.setInterceptFileChooserDialog", enabled=False)


def test_what_is_no_image_is_said_in_words(page: PageModel) -> None:
    assert "TIFF" in str(page.classify(b"II*\0" + bytes(100)))
    assert "not an image" in str(page.classify(b"hello"))
    assert "empty" in str(page.classify(b""))
    assert "20 times" in str(page.classify(_png((3, 100))))


def _png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return file.getvalue()


def test_the_page_has_no_serious_violation_with_an_answer(page: PageModel, red: Path) -> None:
    give(page.page, red)
    until(page.page, "document.querySelector('article[data-state=answered]') !== null")
    no_serious_violation(page.page)


def test_a_browser_that_decodes_otherwise_is_told(web: Path, tmp_path: Path) -> None:
    """Of the site: one level of one channel of the expected pixels is changed."""
    probes = json.loads((web / "site" / "probes.json").read_text())
    pixels = bytearray(base64.b64decode(probes[0]["pixels"]))
    pixels[3000] ^= 1
    probes[0]["pixels"] = base64.b64encode(pixels).decode()
    replaced = {"/probes.json": json.dumps(probes).encode()}
    with hosted(web / "site", replaced) as url, chromium_page(offline=False) as tab:
        tab.open(url)
        until(tab, "document.body.dataset.decodes !== undefined")
        assert tab.evaluate("document.body.dataset.decodes") == "differently"
        words = tab.evaluate("document.querySelector('[role=alert]').innerText")
    assert "decodes images differently" in words
    assert "JPEG: 0.0 % of the pixels, by up to 1 of 255 levels" in words


def test_the_site_answers_other_pages_with_threads_and_works_offline_later(web: Path, red: Path) -> None:
    script = "import { classify } from './app.js'; globalThis.classify = classify;"
    other = f"<!doctype html><link rel=icon href='data:,'><script type=module>{script}</script>"
    blob = f"new Blob([Uint8Array.from([{','.join(map(str, red.read_bytes()))}])])"
    with chromium_page(offline=False) as tab:
        with hosted(web / "site", {"/other.html": other.encode()}) as url:
            tab.open(url + "other.html")
            until(tab, "Boolean(globalThis.classify)")
            assert tab.evaluate("crossOriginIsolated") is True
            answer = tab.evaluate(f"classify({blob}, {{ top_k: 2 }})")
            assert (answer[0]["label"], len(answer)) == (HOSTILE, 2)
            tab.open(url)
            until(tab, "document.body.dataset.state === 'ready'")
            tab.evaluate("navigator.serviceWorker.ready.then(() => true)")
        tab.open(url)  # the server is gone: what the service worker kept is shown
        until(tab, "document.body.dataset.state === 'ready'")
        assert tab.evaluate(f"saccade.classify({blob})")[0] == answer[0]
        assert tab.errors == []


def test_the_one_file_may_be_hosted_too_and_the_site_says_what_it_is_for(web: Path) -> None:
    with hosted(web, {}) as url, chromium_page(offline=False) as tab:
        tab.open(url)
        until(tab, "document.body.dataset.state === 'ready'")
        assert tab.errors == []
        assert {address for address in tab.requests if not address.startswith(("blob:", "data:"))} == {url}
        tab.open((web / "site" / "index.html").as_uri())
        assert "Open ../index.html" in tab.evaluate("document.body.innerText")


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder with the headers of `_headers`, some of them replaced."""

    def __init__(self, *args: Any, replaced: dict[str, bytes], **kwargs: Any) -> None:
        self.replaced = replaced
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        content = self.replaced.get(self.path)
        if content is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith("html") else "application/json")
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in re.findall(r"^  ([\w-]+): (.+)$", HEADERS, re.MULTILINE):
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class hosted:
    """The folder on a port of this machine while the block runs."""

    def __init__(self, folder: Path, replaced: dict[str, bytes]) -> None:
        handler = functools.partial(_Handler, directory=str(folder), replaced=replaced)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
