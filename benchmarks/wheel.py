"""The wheel as strangers get it: built from a clean checkout, installed into new environments, used.

    python -m benchmarks.wheel --python python3.11 python3.12 --photos photos/
    python -m benchmarks.wheel --resolve 3.12 3.13 3.14

For each interpreter: `saccade[train]` trains on the photos (`--method head`) and predicts; then the wheel
alone, without torch, predicts with that model.onnx and must give the same answers. `--resolve` needs no
interpreter: it asks whether all dependencies of `saccade[train]` have wheels for a version of Python.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_TORCH = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.wheel", description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="interpreters to try")
    parser.add_argument("--photos", type=Path, help="folder of class folders; without it, some digits")
    parser.add_argument("--resolve", nargs="*", default=[], help="versions of Python, such as 3.14")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saccade-wheel-") as temporary:
        work = Path(temporary)
        wheel = build(work)
        photos = asked.photos.resolve() if asked.photos else some_digits(work / "digits")
        for version in asked.resolve:
            resolve(wheel, version)
        for number, python in enumerate(asked.python if not asked.resolve else ()):
            use(wheel, python, photos, work / f"environment-{number}")


def build(work: Path) -> Path:
    """Wheel and sdist of the last commit; what is not committed is not in them."""
    run("git", "clone", "--quiet", str(ROOT), str(work / "checkout"))
    run(uv(), "build", "--quiet", "--out-dir", str(work / "dist"), str(work / "checkout"))
    (wheel,) = (work / "dist").glob("*.whl")
    (sdist,) = (work / "dist").glob("*.tar.gz")
    print(f"built {wheel.name} ({wheel.stat().st_size:,} bytes), {sdist.name} ({sdist.stat().st_size:,})")
    return wheel


def some_digits(folder: Path) -> Path:
    """60 handwritten digits of three classes."""
    from saccade.demo import write_digits

    write_digits(folder)
    for label in folder.iterdir():
        for path in sorted(label.iterdir())[20 if label.name in "012" else 0 :]:
            path.unlink()
        if label.name not in "012":
            label.rmdir()
    return folder


def use(wheel: Path, python: str, photos: Path, place: Path) -> None:
    """Train and predict in one new environment, predict in another that has no torch."""
    began = time.monotonic()
    full, light = place / "train", place / "light"
    install(python, full, f"{wheel}[train]")
    install(python, light, str(wheel))
    run(str(light / "bin" / "python"), "-c", NO_TORCH)
    out = place / "run"
    run(str(full / "bin" / "saccade"), "train", str(photos), "--method", "head", "--out", str(out), cwd=place)
    answers = [
        answered(environment, model, photos, place)
        for environment, model in ((full, out), (light, out / "export" / "model.onnx"))
    ]
    version = run(str(full / "bin" / "python"), "--version").strip()
    if answers[0] != answers[1]:
        raise SystemExit(f"{version}: with and without torch the answers differ")
    seconds = time.monotonic() - began
    print(f"{version}: trains and predicts; without torch {len(answers[1])} equal answers; {seconds:.0f} s")


def answered(environment: Path, model: Path, photos: Path, place: Path) -> list[tuple[str, str]]:
    """(path, class) of every photo, as `saccade predict` writes them."""
    table = place / f"{environment.name}.csv"
    command = str(environment / "bin" / "saccade")
    run(command, "predict", str(model), str(photos), "--out", str(table), cwd=place)
    with table.open(newline="", encoding="utf-8-sig") as file:
        return [(row["path"], row["predicted"]) for row in csv.DictReader(file)]


def resolve(wheel: Path, version: str) -> None:
    """Whether every dependency has a wheel for this Python; nothing is built and nothing installed."""
    asked = [uv(), "pip", "compile", "--quiet", "--only-binary", ":all:", "--python-version", version]
    asked += ["--constraints", str(ROOT / "constraints.txt"), "-"]
    found = subprocess.run(asked, input=f"saccade[train] @ {wheel.as_uri()}", text=True, capture_output=True)
    names = [line for line in found.stdout.splitlines() if "==" in line and not line.startswith(" ")]
    torch = next((line for line in names if line.startswith("torch==")), "")
    wheels = f"{len(names)} packages, all as wheels ({torch})"
    print(f"Python {version}: {found.stderr.strip() if found.returncode else wheels}")


def install(python: str, place: Path, package: str) -> None:
    run(uv(), "venv", "--quiet", "--python", python, str(place))
    constraints = str(ROOT / "constraints.txt")
    interpreter = str(place / "bin" / "python")
    run(uv(), "pip", "install", "--quiet", "--python", interpreter, "--constraints", constraints, package)


def uv() -> str:
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise SystemExit("benchmarks.wheel: uv is missing; do: pip install uv")
    return found


def run(*command: str, cwd: Path | None = None) -> str:
    """What the command printed; raises SystemExit, with that, where it failed."""
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"this failed: {' '.join(command)}\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main()
