"""Whether a change of the code changes a result: bundles of tiny runs by two checkouts, compared bit for bit.

    python benchmarks/bundles.py --against OTHER_CHECKOUT/src

Photos and weights are made on the spot; each run is a process of its own on one thread of a CPU. Compared are
the SHA-256 of the bundle's weights, the temperature, the predictions and the history without its seconds.
Exit 1 when one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from journeys import PREPARE, ROOT

TINY = ("--backbone", "test_efficientnet", "--image-size", "32", "--batch-size", "8", "--no-export.onnx")
OWN = ("--batch-size", "8", "--no-export.onnx")
RUNS = {
    "classic": (*TINY, "--method", "finetune", "--epochs", "3", "--head-epochs", "2"),
    "head": (*TINY, "--method", "head"),
    "tail": (*TINY, "--method", "tail"),
    "full": (*TINY, "--method", "full", "--epochs", "3"),
    "auto": (*TINY, "--method", "auto"),
    "small_cnn": (*OWN, "--backbone", "small_cnn", "--image-size", "32", "--epochs", "3"),
    "fast_cnn": (*OWN, "--backbone", "fast_cnn", "--epochs", "3"),
    "mixed": (
        *(*TINY, "--no-pretrained", "--epochs", "3", "--optimizer", "sgd", "--schedule", "plateau"),
        *("--augment.mix_up", "0.2", "--augment.cutout", "0.5", "--train.ema_decay", "0.9"),
        *("--train.gradient_clip", "1", "--train.class_weights", "--augment", "strong"),
    ),
}


def outcome(source: Path, name: str, scratch: Path) -> dict[str, str]:
    """Hashes and figures of one run; raises SystemExit with its output where it fails."""
    flags = RUNS[name]
    weights = ("--weights", str(scratch / "tiny.safetensors"))
    out = scratch / f"{hashlib.sha256(str(source).encode()).hexdigest()[:8]}-{name}"
    command = ["-m", "saccade.cli", "train", str(scratch / "photos"), "--out", str(out), *flags]
    if "test_efficientnet" in flags and "--no-pretrained" not in flags:
        command += weights
    environment = {"PYTHONPATH": str(source), "SACCADE_CACHE": str(out) + "-cache", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={**os.environ, **environment}
    )
    if done.returncode:
        raise SystemExit(f"bundles: {name} by {source}\n{done.stdout}\n{done.stderr}")
    model = json.loads((out / "bundle/model.json").read_text())
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    history = json.dumps([{key: row[key] for key in sorted(row) if key != "seconds"} for row in rows])
    return {
        "weights": hashlib.sha256((out / "bundle/weights.safetensors").read_bytes()).hexdigest(),
        "temperature": repr(model.get("temperature", model.get("answer"))),
        "predictions": hashlib.sha256((out / "predictions/validation.csv").read_bytes()).hexdigest(),
        "history": hashlib.sha256(history.encode()).hexdigest(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, required=True, help="the other checkout's src folder")
    parser.add_argument("--only", default=",".join(RUNS), help=f"of: {', '.join(RUNS)}")
    asked = parser.parse_args()
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made = [str(scratch / "tiny.safetensors"), str(scratch)]
        subprocess.run([sys.executable, "-c", PREPARE, *made], check=True)
        for name in asked.only.split(","):
            here, there = (
                outcome(source, name, scratch) for source in (ROOT / "src", asked.against.resolve())
            )
            differs = [key for key in here if here[key] != there[key]]
            print(f"{name:<12} {'bit-identical' if not differs else 'differs in ' + ', '.join(differs)}")
            worst |= bool(differs)
    return worst


if __name__ == "__main__":
    sys.exit(main())
