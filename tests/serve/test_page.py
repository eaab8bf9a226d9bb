"""The page for people at `/`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saccade.export.chromium import chromium_page, find_chromium


def test_the_page_is_one_file_that_may_ask_only_this_server(served: Any) -> None:
    answer = served.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert 'type="file"' in answer.text
    assert "{{" not in answer.text


def test_the_page_comes_without_a_token_and_a_name_is_text(
    model_path: Path, serving: Callable[..., Any]
) -> None:
    with serving(model_path, token=b"x" * 32, name="flowers") as running:
        assert running.client.get("/about").status_code == 401
        page = running.client.get("/")
    assert page.status_code == 200
    assert "<title>flowers</title>" in page.text


@pytest.mark.examples
def test_a_person_gives_the_token_and_a_photo_and_sees_the_answer(
    model_path: Path, serving: Callable[..., Any], photo: Callable[..., bytes], tmp_path: Path
) -> None:
    if not find_chromium():
        pytest.skip("needs a Chromium on the PATH")
    (tmp_path / "red.png").write_bytes(photo("red"))
    with serving(model_path, token=b"x" * 32) as running, chromium_page(offline=False) as tab:
        given = "window.asked = 0; window.prompt = () => { window.asked++; return 'x'.repeat(32); };"
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=given)
        tab.open(running.url + "/")
        end = time.monotonic() + 30
        while tab.evaluate("document.body.dataset.state") != "ready" and time.monotonic() < end:
            time.sleep(0.05)
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        field = tab.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        tab.call("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "red.png")])
        while not tab.evaluate("document.querySelector('article[data-state]')") and time.monotonic() < end:
            time.sleep(0.05)
        assert tab.evaluate("document.querySelector('article h3').textContent").startswith("red ")
        assert tab.evaluate("window.asked") == 1
        assert {url.partition("?")[0] for url in tab.requests if not url.startswith(("blob:", "data:"))} == {
            running.url + path for path in ("/", "/about", "/predict")
        }
        assert all("401" in words for words in tab.errors)  # the one that asked for the token
