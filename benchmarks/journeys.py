"""How far it is from the command to the first training step: files and functions entered, and stack depth.

    python benchmarks/journeys.py [--files]

A tiny run of each kind in a process of its own, on photos and weights made on the spot. Counted is what is
entered in saccade's own package, in any thread, until the first `train_step` begins: functions (no bodies of
modules or classes, no comprehensions or lambdas), the files they stand in, and saccade's own frames on the
stack at that moment.
`--files` also lists the functions entered in each file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GIVEN = "classic, split given"  # near-duplicates are then searched after training
RUNS = {
    "classic (--method finetune)": ("--method", "finetune", "--backbone", "test_efficientnet"),
    GIVEN: ("--method", "finetune", "--backbone", "test_efficientnet"),
    "from scratch (small_cnn)": ("--backbone", "small_cnn"),
    "last layers (--method tail)": ("--method", "tail", "--backbone", "test_efficientnet"),
}
SMALL = ("--image-size", "32", "--batch-size", "8", "--no-export.onnx")

PREPARE = """
import sys, numpy as np, timm, torch
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file

torch.manual_seed(0)
state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
save_file(state, sys.argv[1], metadata={"arch": "test_efficientnet"})
random = np.random.default_rng(0)
for label in ("blue", "green", "red"):
    for number in range(12):
        coarse = Image.fromarray(random.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        for place in ("photos", "given/" + ("val" if number < 3 else "train")):
            file = Path(sys.argv[2]) / place / label / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((48, 48), Image.Resampling.BICUBIC).save(file, quality=90)
"""

COUNT = """
import json, os, sys, threading
from inspect import CO_OPTIMIZED

package = os.path.join(os.path.realpath(sys.argv[1]), "saccade") + os.sep
entered, ours = set(), {}

def own(code):
    if code not in ours:
        name = os.path.realpath(code.co_filename)
        ours[code] = name.removeprefix(package) if name.startswith(package) else ""
    return ours[code]

def watch(frame, event, argument):
    code = frame.f_code
    if event != "call" or not code.co_flags & CO_OPTIMIZED or code.co_name[0] == "<" or not own(code):
        return  # the bodies of modules and classes, and comprehensions, are no functions
    entered.add((own(frame.f_code), frame.f_code.co_qualname))
    if frame.f_code.co_name == "train_step":
        sys.setprofile(None)
        depth, at = 0, frame
        while at is not None:
            depth += bool(own(at.f_code))
            at = at.f_back
        functions = {}
        for file, name in entered:
            functions.setdefault(file, []).append(name)
        print("JOURNEY" + json.dumps({"depth": depth, "functions": functions}), flush=True)
        os._exit(0)

from saccade.cli import main

threading.setprofile(watch)
sys.setprofile(watch)
main(sys.argv[2:])
"""


def journey(name: str, scratch: Path, source: Path) -> dict[str, object]:
    """What a run enters; raises SystemExit when it ends before a training step."""
    flags = RUNS[name]
    weights = ("--weights", str(scratch / "tiny.safetensors")) if "test_efficientnet" in flags else ()
    photos = scratch / ("given" if name == GIVEN else "photos")
    command = ["train", str(photos), "--out", str(scratch / f"run {name}")]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(source), *command, *flags, *weights, *SMALL],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(source), "SACCADE_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("JOURNEY")]
    if not found:
        raise SystemExit(f"journeys: no training step\n{done.stdout}\n{done.stderr}")
    counted: dict[str, object] = json.loads(found[0].removeprefix("JOURNEY"))
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", action="store_true", help="list the functions entered in each file")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="default: this checkout's")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made = [str(scratch / "tiny.safetensors"), str(scratch)]
        subprocess.run([sys.executable, "-c", PREPARE, *made], check=True)
        print(f"{'until the first train_step':<30} {'files':>6} {'functions':>10} {'own frames':>11}")
        for name in RUNS:
            counted = journey(name, scratch, asked.source.resolve())
            functions = counted["functions"]
            assert isinstance(functions, dict)
            total = sum(map(len, functions.values()))
            print(f"{name:<30} {len(functions):>6} {total:>10} {counted['depth']:>11}")
            if asked.files:
                for file in sorted(functions):
                    print(f"  {file:<44} {len(functions[file]):>4}  {' '.join(sorted(functions[file]))}")


if __name__ == "__main__":
    main()
