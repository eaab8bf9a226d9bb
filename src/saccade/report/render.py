"""HTML pages out of templates: every value escaped, nothing loaded from elsewhere, no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
DASH, NBSP = "\u2013", "\u00a0"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
# bytes that were not UTF-8, C1 controls, and marks that turn the direction of the text around them
_UNPRINTABLE = re.compile(r"[\ud800-\udfff\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def render(template: str, **values: Any) -> str:
    """The page as text that UTF-8 can hold; every string in `values` is escaped.

    Raises MissingExtraError without Jinja2, and jinja2.UndefinedError for a value that was not given.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "train", "the report") from None
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        percent=percent,
        bounds=bounds,
        number=number,
        count=count,
        cut=cut,
        block=block,
        sentence=sentence,
        flags=flags,
    )
    return environment


def printable(text: str) -> str:
    """One visible line: control characters as their pictures, what has no sight or no UTF-8 as U+FFFD."""
    shown = _CONTROL.sub(lambda match: chr(0x2400 + min(ord(match[0]), 0x21)), text)
    return _UNPRINTABLE.sub("\ufffd", shown)


def block(text: str) -> Any:
    """Text of several lines, escaped, its line ends kept."""
    from markupsafe import Markup, escape

    return Markup("\n").join(escape(printable(line)) for line in text.splitlines())


def flags(text: str) -> Any:
    """The text, escaped, with `--flags` set as code that is not broken at a hyphen."""
    from markupsafe import Markup, escape

    return Markup(_FLAG.sub(r'<code class="flag">\g<0></code>', str(escape(printable(text)))))


def sentence(text: str) -> str:
    """The text with a full stop where it has no end yet."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def percent(share: float | None, digits: int = 1) -> str:
    """A share as people write it: 0.8765 -> 87.7 %; no figure is a dash."""
    return DASH if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def bounds(interval: Sequence[float] | None, *, scale: float = 100) -> str:
    """[low, high] of an interval: (0.829, 0.911) -> "82.9 - 91.1"; no interval is nothing."""
    if not interval:
        return ""
    low, high = (scale * end for end in interval)
    return f"{low:.1f} {DASH} {high:.1f}" if scale == 100 else f"{low:.3f} {DASH} {high:.3f}"


def number(value: float, digits: int = 3) -> str:
    """A figure with so many significant digits."""
    return f"{value:.{digits}g}"


def cut(text: str, characters: int) -> str:
    """The text in one visible line of at most so many characters; what is left out is in its middle.

    Names that begin alike often differ at their end.

    >>> cut("Bernhardshund 07", 12)
    'Bernhar\u2026d 07'
    """
    shown, end = printable(text), characters // 3
    return shown if len(shown) <= characters else f"{shown[: characters - end - 1]}\u2026{shown[-end:]}"


def count(value: int) -> str:
    """A whole number with thin groups of three."""
    return f"{value:,}".replace(",", "\u202f")


def _finalize(value: Any) -> Any:
    # Markup is a str too, but already escaped and meant as it is
    return printable(value) if type(value) is str else value
