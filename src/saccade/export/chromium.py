"""A page opened in Chromium without a window and without a network, and asked things.

The browser is driven through its own pipe (Chrome DevTools Protocol, `--remote-debugging-pipe`), so neither a
port nor a package is needed. https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import ModelError
from saccade.export.runtimes import Probabilities, Runtime

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM_VARIABLE = "SACCADE_CHROMIUM"  # another program than those on the PATH
ANSWER_SECONDS = 120.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# DevTools talks on the descriptors 3 and 4, which only the new process itself can arrange
_WITH_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str:
    """The program, or "" where there is none."""
    names = (os.environ.get(CHROMIUM_VARIABLE, ""), *PROGRAMS)
    found = (shutil.which(name) for name in names if name)
    return next((path for path in found if path), "")


@dataclass(eq=False)
class Page:
    """One tab. `errors` are what its console complained of, `requests` the addresses that it asked for,
    `choosers` how often it wanted to open a dialogue for files.
    """

    to_browser: int
    from_browser: int
    version: str = ""
    session: str = ""
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loads: int = 0
    choosers: int = 0
    _sent: int = 0
    _rest: bytes = b""

    def call(self, method: str, *, seconds: float = ANSWER_SECONDS, **params: Any) -> dict[str, Any]:
        """The result of one command; raises ModelError where the browser refuses it or is silent."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self.to_browser, data) :]
        until = time.monotonic() + seconds
        while True:
            answer = self._next(until, method)
            if answer.get("id") == self._sent:
                break
        if "error" in answer:
            raise ModelError(
                f"Chromium refused {method}: {answer['error'].get('message')}", hint="update Chromium"
            )
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        """Load a page and wait until it and its scripts are there."""
        loads = self.loads
        self.call("Page.navigate", url=url)
        until = time.monotonic() + ANSWER_SECONDS
        while self.loads == loads:
            self._next(until, url)

    def evaluate(self, expression: str, *, seconds: float = ANSWER_SECONDS) -> Any:
        """The JSON value of a JavaScript expression, awaited; raises ModelError with the page's own error."""
        answer = self.call(
            "Runtime.evaluate",
            seconds=seconds,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise ModelError(
                f"in Chromium: {_words(answer['exceptionDetails'])}", hint="export the model again"
            )
        return answer["result"].get("value")

    def _next(self, until: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.from_browser], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self.from_browser, 1 << 20) if ready else b""
            if not more:
                what = "ended" if ready else "did not answer in time"
                raise ModelError(
                    f"Chromium {what} ({waiting_for[:60]})", hint="try again, or close other programs"
                )
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self.loads += 1
        elif event == "Page.fileChooserOpened":
            self.choosers += 1
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(_words(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(part.get("value", "")) for part in params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


def _words(details: dict[str, Any]) -> str:
    text = details.get("exception", {}).get("description") or details.get("text", "an error")
    return " ".join(str(text).split())[:300]


@contextlib.contextmanager
def chromium_page(program: str = "", *, offline: bool = True) -> Iterator[Page]:
    """A new tab in a browser of its own, with an empty profile; both are gone afterwards."""
    program = program or find_chromium()
    if not program:
        raise ModelError("there is no Chromium", hint=f"install one, or name it in {CHROMIUM_VARIABLE}")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        _running(program, profile) as page,
    ):
        page.version = page.call("Browser.getVersion")["product"].rpartition("/")[2]
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            page.call(f"{domain}.enable")
        if offline:
            page.call(
                "Network.emulateNetworkConditions",
                offline=True,
                latency=0,
                downloadThroughput=-1,
                uploadThroughput=-1,
            )
        yield page


def _high_pipe() -> tuple[int, int]:
    """A pipe whose descriptors are not 3 or 4."""
    import fcntl

    low = os.pipe()
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in low]
    for number in low:
        os.close(number)
    return high[0], high[1]


@contextlib.contextmanager
def _running(program: str, profile: str) -> Iterator[Page]:
    (browser_reads, we_write), (we_read, browser_writes) = _high_pipe(), _high_pipe()
    # root, as in a container, has no sandbox to offer
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    arranging = [sys.executable, "-ISc", _WITH_PIPES, str(browser_reads), str(browser_writes)]
    process = subprocess.Popen(
        [*arranging, program, *_FLAGS, *sandbox, f"--user-data-dir={Path(profile).resolve()}"],
        pass_fds=(browser_reads, browser_writes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(browser_reads)
    os.close(browser_writes)
    try:
        yield Page(we_write, we_read)
    finally:
        os.close(we_write)  # the browser ends with its pipe
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(we_read)


# -- as a runtime of the certificate ------------------------------------------------------------------------


MOST_IMAGES = 100  # a page takes several times as long as ONNX Runtime
_ASK = """(async (content) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  try { return await saccade.classify(new Blob([bytes]), { top_k: 0 }); }
  catch (error) { return { refused: error.message }; }
})"""


class PageModel:
    """A page of `saccade export --format web`, opened and asked; its browser ends with it."""

    def __init__(self, file: Path) -> None:
        stack = contextlib.ExitStack()
        self.close = weakref.finalize(self, stack.close)
        self.page = stack.enter_context(chromium_page())
        self.page.open(file.absolute().as_uri())
        self.page.evaluate("saccade.ready().then(() => true)")
        self.classes = self.page.evaluate("saccade.about().then(({ classes }) => classes)")

    def classify(self, content: bytes) -> dict[str, float] | str:
        """Probability by class for one image file, or the page's words where it does not read it."""
        encoded = base64.b64encode(content).decode("ascii")
        answer = self.page.evaluate(f"{_ASK}({json.dumps(encoded)})")
        if isinstance(answer, dict):
            return str(answer["refused"])
        return {entry["label"]: entry["score"] for entry in answer}

    def probabilities(self, contents: Sequence[bytes]) -> Probabilities:
        """(images, classes) of image files; a row of NaN for one that the page does not read."""
        rows = np.full((len(contents), len(self.classes)), np.nan)
        for row, content in zip(rows, contents, strict=True):
            answer = self.classify(content)
            if not isinstance(answer, str):
                row[:] = [answer[label] for label in self.classes]
        return rows


def chromium_runtime(file: Path) -> Runtime:
    """The page as a runtime; raises ModelError where there is no Chromium or it does not start."""
    model = PageModel(file)
    return Runtime(
        "Chromium", model.page.version, model.probabilities, reads_files=True, most_images=MOST_IMAGES
    )
