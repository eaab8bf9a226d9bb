"""`--contact-sheet`: one self-contained page of thumbnails, the least certain answer first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from html import escape
from pathlib import Path

from saccade.artefact import Image
from saccade.errors import RecipeError
from saccade.images.thumbnails import Thumbnail, thumbnail_of
from saccade.predict.predictor import Answer
from saccade.terminal import counted, printable

MOST_SHOWN = 500
MOST_FAILED = 1000
_ENDINGS = (".html", ".htm")
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Contact sheet</title>
<style>
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1b1f24; --soft: #5b6470; --line: #dfe3e8; --bar: #1f5fa8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ed; --soft: #9aa4b0; --line: #2c3238; --bar: #7fb2ea; }
}
body { margin: 1.5rem auto 3rem; max-width: 78rem; padding: 0 1.25rem;
  background: var(--paper); color: var(--ink); font-variant-numeric: tabular-nums;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.soft { color: var(--soft); }
ol { list-style: none; margin: 1.2rem 0 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); }
ol li { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; overflow-wrap: anywhere; }
figure { margin: 0 0 .5rem; height: 11rem; display: flex; align-items: center; justify-content: center; }
figure img { max-width: 100%; max-height: 100%; }
img.sharp { image-rendering: pixelated; width: 8rem; }
.bar { height: 5px; border-radius: 3px; background: var(--line); margin: .35rem 0; }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--bar); }
.path { font-size: .8rem; color: var(--soft); margin: .35rem 0 0; }
p { margin: .2rem 0; }
</style>
</head>
<body>
"""


def check_page(page: str) -> None:
    """Refuse a file name that is none of a page, before any work is done."""
    if Path(page).suffix.lower() not in _ENDINGS:
        raise RecipeError(f"--contact-sheet is no name of a page: {page}", hint="end it in .html")


class ContactSheet:
    """Keeps the thumbnails of the `most` least certain answers while images are predicted, by any thread."""

    def __init__(self, most: int = MOST_SHOWN) -> None:
        self.most = most
        self.seen = self.failed = 0
        self._failed: list[Answer] = []
        self._kept: list[tuple[float, int, Answer, Thumbnail]] = []  # a heap, the most certain one first
        self._lock = threading.Lock()

    def see(self, answer: Answer, pixels: Image, position: int) -> None:
        """Take one answer with its pixels, uint8 RGB (height, width, 3); of equals the first counts."""
        wanted = self.wants(answer, position)
        thumbnail = thumbnail_of(answer.path, pixels) if wanted else None
        with self._lock:
            self.seen += 1
            if thumbnail is None:
                return
            entry = (-answer.confidence, -position, answer, thumbnail)
            if len(self._kept) < self.most:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def wants(self, answer: Answer, position: int) -> bool:
        """Whether this answer is among the least certain so far."""
        with self._lock:
            return len(self._kept) < self.most or (-answer.confidence, -position) > self._kept[0][:2]

    def summary(self) -> str:
        """What the page shows, in words."""
        if len(self._kept) < self.seen:
            return f"the {len(self._kept):,} least certain of {self.seen:,} photos"
        return f"{counted(self.seen, 'photo')}, the least certain first"

    def take(self, answer: Answer) -> None:
        """One answer in the order of the inputs; those that failed are named at the page's end."""
        if answer.error:
            self.failed += 1
            if len(self._failed) < MOST_FAILED:
                self._failed.append(answer)

    def write(self, path: Path) -> None:
        """Write the page."""
        from saccade.run_folder import write_text

        write_text(path, self.page())

    def page(self) -> str:
        """The page as HTML: no script, nothing from elsewhere, every name escaped."""
        ordered = sorted(self._kept, key=lambda entry: (-entry[0], -entry[1]))
        cards = "".join(_card(answer, picture) for _, _, answer, picture in ordered)
        text = f'<h1>Contact sheet</h1>\n<p class="soft">{_text(self.summary())}</p>\n<ol>\n{cards}</ol>\n'
        return f"{_HEAD}{text}{_failed(self._failed, self.failed)}</body>\n</html>\n"


def _card(answer: Answer, picture: Thumbnail) -> str:
    (label, probability), *others = answer.top(2)
    if answer.thresholds is not None:
        label, probability = ", ".join(answer.labels) or "no label", answer.confidence
    sharp = ' class="sharp"' if picture.sharp else ""
    second = "".join(f"{_text(name)} {value:.1%}" for name, value in others)
    return (
        f'<li><figure><img{sharp} src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
        f'alt="{_text(label)}" loading="lazy"></figure>\n'
        f"<p><strong>{_text(label)}</strong> {probability:.1%}</p>"
        f'<div class="bar"><i style="width:{probability:.0%}"></i></div>'
        f'<p class="soft">{second}</p><p class="path">{_text(answer.path)}</p></li>\n'
    )


def _failed(failed: Sequence[Answer], count: int) -> str:
    if not failed:
        return ""
    rows = "".join(f"<li>{_text(answer.path)}: {_text(answer.error)}</li>\n" for answer in failed)
    more = f"<li>and {count - len(failed):,} more</li>\n" if count > len(failed) else ""
    return f"<h2>{count:,} could not be read</h2>\n<ul>\n{rows}{more}</ul>\n"


def _text(text: str) -> str:
    return escape(printable(text))
