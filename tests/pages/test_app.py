"""`app.js` in Node, with stand-ins for decoder and engine: what it says of an image, and how many classes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from saccade import pages

CODE = Path(pages.__file__).parent / "files" / "app.js"
PROBABILITIES = (0.2, 0.18, 0.16, 0.14, 0.12, 0.1, 0.06, 0.04)
STAND_INS = {
    "decode.js": "export const decode = async () => ({ data: new Uint8Array(3), width: 1, height: 1 });",
    "ort.wasm.bundle.min.mjs": f"""
        export const env = {{ wasm: {{}} }};
        export class Tensor {{}}
        const outputs = {{ probabilities: {{ data: {list(PROBABILITIES)} }}, unfamiliar: {{ data: [0.7] }} }};
        export const InferenceSession = {{ create: async () => ({{ run: async () => outputs }}) }};""",
    "package.json": '{"type": "module"}',
    "main.js": """
        import { readFile } from "node:fs/promises";
        globalThis.navigator ??= { userAgent: "" };
        globalThis.fetch = async (url) => {
          const bytes = await readFile(url).catch(() => Buffer.from(""));
          return { ok: true, arrayBuffer: async () => bytes };
        };
        const { classify } = await import("./app.js");
        const options = process.argv[2] ? [JSON.parse(process.argv[2])] : [];
        console.log(JSON.stringify(await classify(new Blob(), ...options)));""",
}


def classified(folder: Path, about: dict[str, Any], options: str = "") -> list[dict[str, Any]]:
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node")
    shutil.copy(CODE, folder)
    known = {"classes": [f"c{place}" for place in range(len(PROBABILITIES))], "decoding": {}}
    for name, text in {**STAND_INS, "about.json": json.dumps(known | about)}.items():
        (folder / name).write_text(text, "utf-8")
    done = subprocess.run([node, "main.js", options], cwd=folder, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("limit", "options", "count"),
    [(0.15, "", 5), (0.05, "", 7), (0.05, '{"top_k": 2}', 2), (0.05, '{"top_k": 0}', 8)],
)
def test_without_top_k_there_are_at_least_all_of_the_set(
    tmp_path: Path, limit: float, options: str, count: int
) -> None:
    found = classified(tmp_path, {"label_sets": {"limits": [limit]}}, options)
    assert [answer["label"] for answer in found] == [f"c{place}" for place in range(count)]
    assert [answer["in_set"] for answer in found] == [p >= limit for p in PROBABILITIES[:count]]


@pytest.mark.parametrize(("threshold", "abstained"), [(None, False), (0.2, False), (0.3, True), (2.0, True)])
def test_it_abstains_below_the_threshold(tmp_path: Path, threshold: float | None, abstained: bool) -> None:
    found = classified(tmp_path, {"asking": {"threshold": threshold, "by_class": {}}})
    assert [answer["abstained"] for answer in found] == [abstained] * 5
    assert (found[0]["unfamiliar"], found[0]["unfamiliarity"]) == (False, 0.7)
