"""The rivals' own virtual environments, made with uv; saccade never depends on any of this."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.tools import BACKBONE, HERE, WEIGHTS, interpreter

SAME_VERSION = ("torch", "torchvision", "timm", "scikit-learn")  # as saccade's own environment has them
PACKAGES = {
    "torch": (*SAME_VERSION, "fastai"),
    "keras": ("tensorflow-cpu", "keras", "safetensors"),
}
SHOWN = ("torch", "torchvision", "timm", "scikit-learn", "fastai", "tensorflow-cpu", "keras")
AGREEMENT = 1e-4  # largest difference between the features of timm and of Keras


def set_up(folder: Path) -> None:
    """Make the environments below `folder`, byte code compiled; raises SystemExit when uv fails."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise SystemExit("benchmarks: uv is missing; do: pip install uv")
    for name, packages in PACKAGES.items():
        place = folder / name
        wanted = [_pinned(package) for package in packages]
        print(f"{place}: {' '.join(wanted)}", flush=True)
        if not interpreter(place).exists():
            _run(uv, "venv", "--quiet", "--python", sys.executable, str(place))
        _run(
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            str(interpreter(place)),
            *wanted,
        )
    write_weights(folder / WEIGHTS)


def write_weights(target: Path) -> None:
    """The weights of saccade's default backbone under timm's names, for the rivals."""
    from safetensors.torch import save_file

    from saccade.models.pretrained import published_weights

    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(published_weights("timm", BACKBONE), target)
    print(target)


def _pinned(package: str) -> str:
    return (
        f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
        if package in SAME_VERSION
        else package
    )


def _run(*command: str) -> None:
    if subprocess.run(command).returncode:
        raise SystemExit(f"benchmarks: this failed: {' '.join(command)}")


def versions(folder: Path) -> str:
    """'name version' of what is compared, from each environment that is there."""
    ask = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    found: dict[str, None] = {}
    for python in (Path(sys.executable), *(interpreter(folder / name) for name in PACKAGES)):
        if python.exists():
            asked = subprocess.run([python, "-c", ask, "saccade", *SHOWN], capture_output=True, text=True)
            found |= dict.fromkeys(asked.stdout.splitlines())
    return ", ".join(found)


def check_same_features(folder: Path, photos: list[Path], weights: Path) -> float:
    """Largest difference between timm's and Keras' features of some photos; raises SystemExit above 1e-4."""
    import numpy as np
    from PIL import Image

    made = []
    with tempfile.TemporaryDirectory() as scratch:
        pixels = [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in photos]
        np.save(f"{scratch}/pixels.npy", np.stack(pixels).astype(np.float32) / 127.5 - 1)
        for by, name in (("timm", "torch"), ("keras", "keras")):
            script, files = HERE / "rivals/same_features.py", (f"{scratch}/pixels.npy", f"{scratch}/{by}.npy")
            _run(str(interpreter(folder / name)), str(script), by, str(weights), *files)
            made.append(np.load(files[1]))
    difference = float(abs(made[0] - made[1]).max())
    if not difference <= AGREEMENT:
        raise SystemExit(
            f"benchmarks: Keras' {BACKBONE} differs from timm's by {difference:.2g} in its features"
        )
    return difference
