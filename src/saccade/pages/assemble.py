"""HTML, style and scripts of the page put together, in one file or in several.

The scripts are small modules that import each other. In one file they follow each other instead, so their
names must differ; tests/pages holds them to that.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib.resources import files

_LOCAL_IMPORT = re.compile(r'^import .* from "\./[\w.-]+";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def source(name: str) -> str:
    """The text of one of our files."""
    return (files("saccade.pages") / "files" / name).read_text("utf-8")


def filled(name: str, **values: str) -> str:
    """The text of one of our files, with `{{place}}` replaced."""
    return _PLACE.sub(lambda place: values[place[1]], source(name))


def one_script(*names: str) -> str:
    """Modules, each behind those that it imports, as one script."""
    return "\n".join(_EXPORT.sub("", _LOCAL_IMPORT.sub("", source(name))) for name in names)


def icon() -> str:
    """The line that names the page's icon; it lies in the line itself."""
    encoded = base64.b64encode(source("icon.svg").encode()).decode("ascii")
    return f'<link rel="icon" href="data:image/svg+xml;base64,{encoded}">'


def page(title: str, *, head: str, body: str) -> str:
    """The page; `title` is any text, `head` and `body` are HTML."""
    return filled("page.html", title=html.escape(title), head=head, body=body)


def whole_page(title: str, script: str, *, policy: Mapping[str, str], body: str = "") -> tuple[str, str]:
    """The page with style and script inside, and its Content-Security-Policy, which allows just these two.

    `policy` says what else is allowed; it is also written into the page, for where no server sends a header.
    """
    style = source("style.css")
    rules = {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "blob: data:",
        "style-src": _hash(style),
        **policy,
        "script-src": " ".join([_hash(script), *policy.get("script-src", "").split()]),
    }
    security = "; ".join(f"{name} {value}" for name, value in rules.items())
    head = [
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(security)}">',
        icon(),
        f"<style>{style}</style>",
    ]
    scripts = f'{body}\n<script type="module">{script}</script>'
    return page(title, head="\n".join(head), body=scripts), security


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
