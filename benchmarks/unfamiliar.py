"""How well a model tells images unlike its training images: AUROC of our score beside that of other scores.

    SACCADE_DATA=DATA python benchmarks/unfamiliar.py [--far 250] [--out FOLDER]

A head is trained on the five flowers of `flowers5`, and then five times on four of them, the fifth held out.
Far: photos of CIFAR-10, enlarged to 224 pixels, and `dirty` ones (Pillow's test images that decode, and
near-duplicates), against the validation photos. Near: photos of the flower that was held out, against the
validation photos of the four. All scores are read off one model: ours out of model.onnx; the others from
features of the same network. Energy and probability are of the logits; the neighbour is the cosine distance
to the nearest of the training photos (500 at most, as for ours).

Exit code 1: ours tells a far set with an AUROC below 0.95. Where pytorch-ood can be imported, the residual of
its ViM is compared with ours: `uv pip install --no-deps --target FOLDER pytorch-ood`, and FOLDER on
PYTHONPATH.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import random
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.artefact import Artefact
from saccade.cli import main as saccade
from saccade.errors import ImageError
from saccade.images.decoder import DEFAULT_LIMITS, decode
from saccade.pipeline.familiar import read_unfamiliar
from saccade.run_folder import RunFolder

WANTED = 0.95
ENLARGED = 224
TRAINING_PHOTOS = 500
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Read:
    """Of some images: our score, features (images, F), logits and probabilities (images, classes)."""

    ours: Floats
    features: Floats
    logits: Floats
    probabilities: Floats


@dataclass(frozen=True)
class Trained:
    """A run, and what reads images with its network."""

    run: RunFolder
    artefact: Artefact
    bundle: Any

    def read(self, images: Iterable[NDArray[np.uint8]]) -> Read:
        """Images go through model.onnx for our score, and through torch for the others."""
        import torch

        from saccade.models.network import WithFeatures
        from saccade.transforms.apply import to_input

        network = WithFeatures(self.bundle.module.eval())
        rows: list[tuple[Any, ...]] = []
        for chunk in _chunks(images, 16):
            with torch.inference_mode():
                inputs = torch.stack([to_input(image, self.bundle.preprocess) for image in chunk])
                logits, features = (found.double().numpy() for found in network(inputs))
            scores = self.artefact.scores(chunk)
            rows.append((scores.unfamiliarity, features, logits, scores.probabilities))
        return Read(*map(np.concatenate, zip(*rows, strict=True)))


def trained(data: Path, out: Path) -> Trained:
    """A head on a folder with train/ and val/; a finished run is taken as it is."""
    from saccade.bundle import load_bundle

    with contextlib.redirect_stdout(io.StringIO()):
        code = saccade(["train", str(data), "--method", "head", "--out", str(out)])
    if code:
        raise SystemExit(f"benchmarks: training on {data} ended with {code}")
    run = RunFolder(out)
    return Trained(run, Artefact.open(run.onnx), load_bundle(run.bundle))


def area(usual: Floats, strange: Floats) -> float:
    """AUROC: how often a strange image has the higher score, ties half.

    >>> area(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    higher = (strange[:, None] > usual[None, :]).mean() + (strange[:, None] == usual[None, :]).mean() / 2
    return float(higher)


def scores(read: Read, bank: Floats) -> dict[str, Floats]:
    """Higher: stranger. `bank` (n, F) are features of training photos."""
    most = read.logits.max(axis=1)
    energy = -(most + np.log(np.exp(read.logits - most[:, None]).sum(axis=1)))
    return {
        "ours": read.ours,
        "energy": energy,
        "1 - max probability": 1 - read.probabilities.max(axis=1),
        "nearest neighbour": 1 - (_unit(read.features) @ _unit(bank).T).max(axis=1),
    }


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _chunks(images: Iterable[Any], size: int) -> Iterator[list[Any]]:
    images = iter(images)
    while chunk := list(itertools.islice(images, size)):
        yield chunk


# -- images ------------------------------------------------------------------------------------------------


def decoded(files: Iterable[Path]) -> Iterator[NDArray[np.uint8]]:
    """Those that decode, of at least 16 pixels a side."""
    for file in files:
        try:
            pixels = decode(file.read_bytes(), limits=DEFAULT_LIMITS, name=file.name).pixels
        except ImageError:
            continue
        if min(pixels.shape[:2]) >= 16:
            yield pixels


def cifar10(archive: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Test images, enlarged by bicubic interpolation; the same ones each time."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(
            name for name in files.namelist() if "/test/" in name and name.endswith((".jpg", ".png"))
        )
        for name in random.Random(0).sample(names, count):
            small = Image.open(io.BytesIO(files.read(name))).convert("RGB")
            yield np.asarray(small.resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC))


def photos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def without(flowers: Path, label: str, place: Path) -> Path:
    """The same data without one class, by symbolic links."""
    for part in ("train", "val"):
        (place / part).mkdir(parents=True, exist_ok=True)
        for folder in sorted((flowers / part).iterdir()):
            link = place / part / folder.name
            if folder.name != label and not link.exists():
                link.symlink_to(folder.resolve(), target_is_directory=True)
    return place


# -- what is shown -----------------------------------------------------------------------------------------


def row(name: str, count: int, found: dict[str, float]) -> str:
    return f"{name:34}{count:7}" + "".join(f"{value:21.4f}" for value in found.values())


def compared(usual: Read, strange: Read, bank: Floats) -> dict[str, float]:
    known, other = scores(usual, bank), scores(strange, bank)
    return {name: area(known[name], other[name]) for name in known}


def vim_difference(model: Trained, bank: Floats, read: Read) -> float:
    """Largest difference of the residual's length from pytorch-ood's ViM, as a share of it."""
    import torch
    from pytorch_ood.detector.vim import ViM

    from saccade.evaluation.unfamiliar import MOST_DIMENSIONS, principal_basis, residual_norms

    head = model.bundle.module.head.dense
    theirs = ViM(None, MOST_DIMENSIONS, head.weight, head.bias)
    theirs.fit_features(torch.from_numpy(bank), torch.zeros(len(bank), dtype=torch.long))
    values = torch.from_numpy(read.features).float() - theirs.u
    expected = (values @ theirs.principal_subspace).norm(dim=1).numpy()
    origin = theirs.u.double().numpy()
    ours = residual_norms(read.features - origin, principal_basis(bank - origin, most=MOST_DIMENSIONS))
    return float((np.abs(ours - expected) / expected).max())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--far", type=int, default=250, help="CIFAR-10 images")
    parser.add_argument("--out", type=Path, help="where the runs are kept for the next time")
    parser.add_argument("--far-only", action="store_true", help="one training in place of six")
    asked = parser.parse_args(arguments)
    if not os.environ.get("SACCADE_DATA"):
        raise SystemExit("set SACCADE_DATA to the folder that holds the real data")
    data = Path(os.environ["SACCADE_DATA"], "data")
    with contextlib.ExitStack() as stack:
        out = asked.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return measure(data, out.absolute(), asked.far, far_only=asked.far_only)


def measure(data: Path, out: Path, far: int, *, far_only: bool) -> int:
    flowers = data / "flowers5"
    model = trained(flowers, out / "five")
    made = read_unfamiliar(model.run)
    assert made is not None, "the run has a score"
    print(f"{made.basis.shape[1]} of {made.basis.shape[0]} directions, fitted on {made.images} photos")
    known = photos(flowers / "train")
    bank = model.read(decoded(known[:: -(-len(known) // TRAINING_PHOTOS)])).features
    usual = model.read(decoded(photos(flowers / "val")))
    print(f"{'':34}{'images':>7}" + "".join(f"{name:>21}" for name in scores(usual, bank)))
    sets = {
        "far: CIFAR-10, enlarged": cifar10(data / "cifar10.zip", far),
        "far: dirty/pillow": decoded(photos(data / "dirty" / "pillow")),
        "far: dirty/near-duplicates": decoded(photos(data / "dirty" / "near-duplicates")),
    }
    good = True
    for name, images in sets.items():
        read = model.read(images)
        found = compared(usual, read, bank)
        good &= found["ours"] >= WANTED
        above = (read.ours > 1).mean()
        print(f"{row(name, len(read.ours), found)}   {above:.1%} above 1", flush=True)
    print(f"validation photos above 1: {(usual.ours > 1).mean():.1%}")
    try:
        print(f"residual beside pytorch-ood's ViM: {vim_difference(model, bank, usual):.1e} of it, at most")
    except ImportError:
        print("pytorch-ood is not installed here: not compared with its ViM")
    labels = [] if far_only else sorted(folder.name for folder in (flowers / "train").iterdir())
    for label in labels:
        four = trained(without(flowers, label, out / f"without-{label}"), out / f"four-{label}")
        others = [path for path in known if path.parent.name != label]
        bank = four.read(decoded(others[:: -(-len(others) // TRAINING_PHOTOS)])).features
        usual = four.read(decoded(p for p in photos(flowers / "val") if p.parent.name != label))
        strange = four.read(decoded(photos(flowers / "val" / label)))
        print(row(f"near: {label}, held out", len(strange.ours), compared(usual, strange, bank)), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
