"""The page for people at `/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


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
