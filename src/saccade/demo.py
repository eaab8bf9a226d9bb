"""`saccade demo`: the whole path on scikit-learn's handwritten digits, without network, in about a minute."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from saccade.errors import MissingExtraError
from saccade.recipe import Recipe
from saccade.terminal import Terminal

SHOWN_PREDICTIONS = 5


def demo_recipe(*, epochs: int = 0, seed: int = 0) -> Recipe:
    """A CNN from scratch for small grey images, without flips: a mirrored digit is another sign.

    epochs: 0 is the usual number. seed: the random seed.

    >>> demo_recipe(epochs=3).model.backbone
    'small_cnn'
    """
    return Recipe.from_mapping(
        {
            "seed": seed,
            "data.image_size": 32,
            "augment": {"policy": "none", "rotation": 10, "zoom": 0.1, "shift": 0.08},
            "model.backbone": "small_cnn",
            "model.pretrained": False,
            "train": {"epochs": epochs or 12, "early_stopping": 0, "label_smoothing": 0.05},
        }
    )


def write_digits(folder: Path) -> int:
    """Write the 1,797 digits (8 x 8 pixels) as grey PNG files in ten class folders; returns how many.

    folder: where the class folders are made; files that exist are kept.
    Source: the UCI "Optical Recognition of Handwritten Digits" test set, as scikit-learn ships it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("scikit-learn", "train", "the demo's data") from None
    import numpy as np
    from PIL import Image

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"digit_{number:04d}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # values run from 0 to 16
            Image.fromarray((image * 15.9375).round().astype(np.uint8)).save(path)
    return len(digits.target)


def run_demo(out: str, terminal: Terminal, *, epochs: int, seed: int, started: float) -> int:
    """Write the digits, train on them as `saccade train` would, and predict with the exported file.

    out: the run folder; the digits are written beside it. started: time.monotonic() when the command began.
    Returns the exit code.
    """
    from saccade import pipeline

    photos = Path(out).with_name(Path(out).name + "-digits")
    count = write_digits(photos)
    terminal.say(f"Demo      {count:,} handwritten digits, 8 x 8 pixels, in {photos}/")
    result = pipeline.train(
        str(photos),
        demo_recipe(epochs=epochs, seed=seed),
        terminal,
        out=out,
        command=("saccade", "demo"),
        started=started,
    )
    _show_predictions(result.run.onnx, photos, result.run.read_predictions("test").paths, terminal)
    _say_what_next(photos, result.run.root, terminal)
    return result.exit_code


def _show_predictions(model: Path, photos: Path, test_paths: tuple[str, ...], terminal: Terminal) -> None:
    from saccade.predict import Predictor

    stride = max(1, len(test_paths) // SHOWN_PREDICTIONS)
    chosen = test_paths[::stride][:SHOWN_PREDICTIONS]
    answers = Predictor(model).predict([photos / path for path in chosen])
    shown = ", ".join(f"{path} -> {answer}" for path, answer in zip(chosen, answers, strict=True))
    terminal.say("", f"model.onnx, without torch, on test images: {shown}")


def _say_what_next(photos: Path, run: Path, terminal: Terminal) -> None:
    name = command_name()
    terminal.say("", f"Open {run}/report/report.html in a browser. Try next:")
    terminal.say(f"  {name} predict {run} {photos}/3/")
    terminal.say(f"  {name} export {run} --int8 && {name} bench {run}")
    terminal.say(f"  {name} audit {photos}")
    terminal.say(f"  {name} train YOUR_PHOTOS/ --out runs/photos     (a folder with one folder per class)")


def command_name() -> str:
    """How to call saccade from here: by its name where the shell finds it, else by its path."""
    own = Path(sys.argv[0])
    if shutil.which("saccade") or own.name != "saccade":
        return "saccade"
    return os.path.relpath(own) if own.is_absolute() else str(own)
