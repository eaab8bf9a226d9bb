"""The page in one piece: scripts that do not get in each other's way, and a policy that fits them."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from saccade.export.web import MODULES
from saccade.pages.assemble import one_script, source, whole_page

BUNDLES = {"web": MODULES, "server": ("page.js", "main-server.js")}
_DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style", "title"):
            self.inside.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.mark.parametrize("names", BUNDLES.values(), ids=BUNDLES)
def test_modules_in_one_script_declare_different_names(names: tuple[str, ...]) -> None:
    declared = [name for module in names for name in _DECLARED.findall(source(module))]
    assert len(declared) > 15
    assert len(declared) == len(set(declared))


@pytest.mark.parametrize("names", BUNDLES.values(), ids=BUNDLES)
def test_one_script_imports_and_exports_nothing(names: tuple[str, ...]) -> None:
    script = one_script(*names)
    assert not re.search(r"^(import|export)\b(?!\()", script, re.MULTILINE)
    assert "</script" not in script
    assert "innerHTML" not in script


def test_the_policy_allows_the_style_and_the_script_of_the_page_and_no_other() -> None:
    page, security = whole_page("colours", one_script(*BUNDLES["server"]), policy={"connect-src": "'self'"})
    *_, style, script = [part for part in Elements(page).inside if part.strip()]
    rules = dict(rule.split(" ", 1) for rule in security.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_a_title_is_text() -> None:
    page, _ = whole_page("</title><img src=x onerror=alert(1)>", "", policy={})
    elements = Elements(page)
    assert [attributes for tag, attributes in elements.tags if tag == "img"] == [{"alt": ""}]  # of a photo
    assert elements.inside[0] == "</title><img src=x onerror=alert(1)>"


def test_the_page_names_no_address_elsewhere() -> None:
    for names in BUNDLES.values():
        page, _ = whole_page("colours", one_script(*names), policy={})
        assert not re.search(r"https?://", page)
