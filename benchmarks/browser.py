"""The page of `saccade export --format web` in Chromium, and examples/node: pixels and answers as saccade's.

    python -m benchmarks.browser RUN WEB [--photos DIR] [--node]

RUN is a run folder, WEB what `saccade export RUN --format web --out WEB` wrote. Every photo of DIR (the
validation part of flowers5 by default, below SACCADE_DATA) and about 950 odd ones go through the page, opened
from disk without a network, and through our decoder and ONNX Runtime. What is not read is listed by kind.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.odd_photos import kind_of, write_odd_photos

from saccade.artefact import Artefact
from saccade.errors import ImageError
from saccade.export.chromium import PageModel
from saccade.images.decoder import Limits, decode

NODE = Path(__file__).parents[1] / "examples" / "node"
PIXELS = """(async (content) => {
  const blob = new Blob([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))]);
  const about = await saccade.about();
  try {
    const { data, width, height } = await saccade.decode(blob, about.decoding);
    let text = "";
    for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
    return { width, height, data: btoa(text), answer: await saccade.classify(blob, { top_k: 0 }) };
  } catch (error) { return { refused: error.message }; }
})"""
NODE_PROGRAM = """
const { classify } = await import(process.argv[1] + "/predict.mjs");
for (const file of process.argv.slice(2)) {
  const answer = await classify(file, 0).catch((error) => ({ refused: error.message }));
  console.log(JSON.stringify(answer));
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("web", type=Path)
    parser.add_argument("--photos", type=Path, default=Path(os.environ["SACCADE_DATA"], "data/flowers5/val"))
    parser.add_argument("--node", action="store_true", help="also ask examples/node")
    chosen = parser.parse_args()
    artefact = Artefact.open(chosen.run / "export" / "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        files = [*sorted(chosen.photos.rglob("*.jpg")), *write_odd_photos(Path(folder))]
        expected = dict(expectations(artefact, files))
        report("Chromium, file://, no network", expected, in_chromium(chosen.web, files))
        if chosen.node:
            report("Node", expected, in_node(chosen.run, files))


def expectations(artefact: Artefact, files: list[Path]) -> Iterator[tuple[Path, Any]]:
    """Pixels and probabilities by class, or None for a file that saccade refuses."""
    limits = Limits(background=artefact.background, gray_maximum=artefact.gray_maximum)
    for file in files:
        try:
            pixels = decode(file.read_bytes(), limits=limits).pixels
        except ImageError:
            yield file, None
            continue
        yield file, (pixels, dict(zip(artefact.classes, artefact.probabilities([pixels])[0], strict=True)))


def in_chromium(web: Path, files: list[Path]) -> Iterator[tuple[Path, Any]]:
    """(file, what the page says), with pixels; and once how long it took to start and to answer."""
    began = time.perf_counter()
    model = PageModel(web / "index.html")
    print(f"Chromium {model.page.version}: {(web / 'index.html').stat().st_size / 1e6:.1f} MB page")
    seconds = []
    for file in files:
        content = base64.b64encode(file.read_bytes()).decode("ascii")
        asked = time.perf_counter()
        if len(seconds) < 12:
            model.classify(file.read_bytes())
            seconds.append(time.perf_counter() - (asked if seconds else began))
        yield file, model.page.evaluate(f'{PIXELS}("{content}")')
    print(
        f"first answer {seconds[0]:.2f} s after the start of the browser, then {np.median(seconds[1:]):.3f} s"
    )
    local = [url for url in model.page.requests if not url.startswith(("file:", "blob:"))]
    print(
        f"self-test: {model.page.evaluate('saccade.selfTest()')}, console errors: {model.page.errors}, "
        f"requests elsewhere: {local}"
    )
    model.close()


def in_node(run: Path, files: list[Path]) -> Iterator[tuple[Path, Any]]:
    """(file, what examples/node/predict.mjs says)."""
    environment = {**os.environ, "SACCADE_EXPORT": str((run / "export").resolve())}
    command = ["node", "--input-type=module", "-e", NODE_PROGRAM, str(NODE), *map(str, files)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=NODE)
    for file, line in zip(files, said.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        yield file, answer if isinstance(answer, dict) else {"answer": answer}


def report(name: str, expected: Mapping[Path, Any], found: Iterator[tuple[Path, Any]]) -> None:
    """One line for all files, one for each kind that was not read by both."""
    outcomes: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    differences, worst = [0.0], ""
    for file, answer in found:
        outcome, difference = compared(expected[file], answer)
        outcomes[outcome] += 1
        if difference > max(differences):
            worst = file.name
        differences.append(difference)
        if outcome not in ("the same", "refused by both"):
            kinds[outcome][kind_of(file)] += 1
    print(f"{name}: {dict(outcomes)}; largest difference of a probability {max(differences):.2g} {worst}")
    for outcome, counts in kinds.items():
        print(f"  {outcome}: {dict(counts)}")


def compared(expected: Any, answer: Mapping[str, Any]) -> tuple[str, float]:
    """What became of one file, and its largest difference of a probability."""
    if expected is None or "refused" in answer:
        who = {(True, True): "both", (True, False): "saccade alone", (False, True): "the other alone"}
        return f"refused by {who[expected is None, 'refused' in answer]}", 0.0
    pixels, probabilities = expected
    scores = {entry["label"]: entry["score"] for entry in answer["answer"]}
    difference = max(abs(scores[label] - value) for label, value in probabilities.items())
    if "data" in answer:
        shown = np.frombuffer(base64.b64decode(answer["data"]), np.uint8)
        if (answer["height"], answer["width"]) != pixels.shape[:2] or (shown != pixels.ravel()).any():
            return "other pixels", difference
    if answer["answer"][0]["label"] != max(probabilities, key=lambda label: probabilities[label]):
        return "another first class", difference
    return "the same", difference


if __name__ == "__main__":
    main()
