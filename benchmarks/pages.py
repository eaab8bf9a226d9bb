"""Reports in headless Chromium: wide and narrow, light and dark, printed; what is wrong, and how it looks.

    PYTHONPATH=. python benchmarks/pages.py [RUN...] --out DIR [--axe FILE] [--only NAME;...]

Without runs, reports of made-up runs are written: 2, 10 and 200 classes, 10,000 test images, and classes
whose names try to break the page. Each is opened from disk without a network. Counted are errors of the
console, requests, pixels of horizontal overflow, serious violations that axe-core finds (all details open),
pages on paper and bytes; the first contentful paint is that of a load with a warm file cache. Screenshots
and PDFs go to DIR. Exit 1 where something is wrong.

axe-core: `npm install` in tests/pages, or --axe names its axe.min.js.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "report"))  # for run_example

from run_example import HOSTILE, ExampleRun, picture  # noqa: E402

from saccade.export.chromium import Page, chromium_page  # noqa: E402
from saccade.records import ImageRecord  # noqa: E402
from saccade.report import write_report  # noqa: E402

AXE = ROOT / "tests" / "pages" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS, SCHEMES = (1400, 390), ("light", "dark")
SLICE = 2000  # pixels of height of a screenshot
PAINT_SECONDS, MOST_BYTES = 1.0, 10_000_000
NAMES = (
    HOSTILE,
    "quotes \" ' ` and </style>",
    "x" * 255,
    "emoji \U0001f98a\U0001f469\u200d\U0001f52c",
    "right \u202eto left \u05d0\u05d1\u05d2",
    "{{ 7 * 7 }} ${1}",
    "=cmd|'/c calc'!A1",
)
MADE: dict[str, dict[str, Any]] = {
    "2 classes": {"classes": ("bees", "ants"), "per_part": 200},
    "10 classes": {"classes": tuple(f"species {i}" for i in range(10)), "per_part": 600},
    "200 classes": {"classes": tuple(f"a class with number {i:03d}" for i in range(200)), "per_part": 2000},
    "10,000 images": {"classes": tuple(f"species {i}" for i in range(10)), "per_part": 10_000},
    "hostile": {"classes": NAMES, "per_part": 140},
}
LOOK = """(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  const root = document.documentElement;
  const wide = [...document.querySelectorAll("main *")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.right > root.clientWidth + 1 && !e.closest(".scroll, pre, .tree") && box.width > 0;
  });
  return {
    paint: paint ? paint.startTime / 1000 : null, overflow: root.scrollWidth - root.clientWidth,
    height: root.scrollHeight, injected: document.querySelectorAll('img[src="x"]').length,
    wide: wide.slice(0, 3).map((e) => e.tagName + "." + e.className),
  };
})()"""
OPEN = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
AXE_RUN = """axe.run({ resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => `${id} x${nodes.length}: ${nodes[0].html.slice(0, 160)}`))"""


class Made(ExampleRun):
    """An example run whose pictures are drawn when they are read, and not before."""

    def _write_dataset(self) -> None:
        records = [
            ImageRecord(
                self.path(part, i),
                self.classes[i % len(self.classes)],
                part,
                sha256=f"{zlib.crc32(self.path(part, i).encode()):064x}",
                width=128,
                height=96,
                mode="RGB",
            )
            for part in ("train", "validation", "test")
            for i in range(self.per_part)
        ]
        self.run.write_dataset(records)


@dataclass
class Seen:
    """What one view of a page showed."""

    page: str
    width: int
    scheme: str
    paint: float
    overflow: int
    wrong: list[str]


def made_reports(folder: Path, only: set[str]) -> Iterator[tuple[str, Path]]:
    for name, options in MADE.items():
        if not only or name in only:
            run = Made(folder / name.replace(" ", "-").replace(",", ""), **options).write()
            yield name, write_report(run, read_image=lambda path: picture(zlib.crc32(path.encode()) % 300))


def looked_at(page: Page, name: str, file: Path, out: Path, axe: str) -> Iterator[Seen]:
    """Every view of one page, with its screenshots."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            page.call("Emulation.setDeviceMetricsOverride", **size)
            feature = {"name": "prefers-color-scheme", "value": scheme}
            page.call("Emulation.setEmulatedMedia", features=[feature])
            page.errors.clear()
            page.requests.clear()
            page.open(file.resolve().as_uri())
            first = page.evaluate(LOOK)
            shoot(page, out / f"{name}-{width}-{scheme}", width, first["height"])
            page.evaluate(OPEN)
            opened = page.evaluate(LOOK)
            wrong = [*page.errors, *violations(page, axe)]
            wrong += [f"asks for {url}" for url in page.requests if not url.startswith(("file:", "data:"))]
            wrong += ["an image was injected"] * first["injected"]
            wrong += [f"wider than the page: {', '.join(opened['wide'])}"] * bool(opened["wide"])
            overflow = max(first["overflow"], opened["overflow"])
            yield Seen(
                name, width, scheme, opened["paint"] or 0.0, overflow, wrong
            )  # there after a screenshot


def violations(page: Page, axe: str) -> list[str]:
    if not axe:
        return []
    page.evaluate(axe + ";0")
    return [f"axe: {found}" for found in page.evaluate(AXE_RUN)]


def shoot(page: Page, stem: Path, width: int, height: int) -> None:
    """The page from top to bottom, in slices."""
    for number, top in enumerate(range(0, height, SLICE)):
        clip = {"x": 0, "y": top, "width": width, "height": min(SLICE, height - top), "scale": 1}
        shot = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        stem.with_name(f"{stem.name}-{number}.png").write_bytes(base64.b64decode(shot["data"]))


def printed(page: Page, name: str, file: Path, out: Path) -> int:
    """Pages on A4."""
    page.call("Emulation.clearDeviceMetricsOverride")
    page.call("Emulation.setEmulatedMedia", features=[])
    page.open(file.resolve().as_uri())
    made = page.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
    content = base64.b64decode(made["data"])
    (out / f"{name}.pdf").write_bytes(content)
    return len(re.findall(rb"/Type\s*/Page\b", content))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--axe", type=Path, default=AXE)
    parser.add_argument("--only", default="", help="names of made-up runs, with semicolons between")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    axe = chosen.axe.read_text("utf-8") if chosen.axe.is_file() else ""
    print("axe-core is not there: no violations are looked for" if not axe else "axe-core is there")
    only = {name.strip() for name in chosen.only.split(";")} - {""}
    given = [(run.name, run / "report" / "report.html") for run in chosen.runs]
    bad = 0
    with chromium_page() as page:
        for name, file in given or made_reports(chosen.out / "runs", only):
            plain = re.sub(r"\W+", "-", name)
            seen = list(looked_at(page, plain, file, chosen.out, axe))
            sheets, size = printed(page, plain, file, chosen.out), file.stat().st_size
            slow = max(view.paint for view in seen)
            wrong = sorted({words for view in seen for words in view.wrong})
            overflow = max(view.overflow for view in seen)
            bad += bool(wrong) + (overflow > 0) + (slow > PAINT_SECONDS) + (size > MOST_BYTES)
            print(
                json.dumps(
                    {
                        "page": name,
                        "first paint (s)": [round(view.paint, 2) for view in seen],
                        "overflow (px)": overflow,
                        "pages of A4": sheets,
                        "MB": round(size / 1e6, 2),
                        "wrong": wrong,
                    }
                ),
                flush=True,
            )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
