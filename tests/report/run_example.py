"""A small run folder written through the real writers, with real pictures beside it."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.evaluation.calibration import softmax
from saccade.evaluation.metrics import measure, metrics_as_json
from saccade.recipe import Recipe
from saccade.records import EpochRow, ImageRecord, Predictions
from saccade.run_folder import RunFolder
from saccade.sources.storage import FolderStorage

HOSTILE = "<img src=x onerror=alert(1)>"
SECRET = b"GPS-SECRET-48.2N-16.3E"


@cache
def picture(seed: int, *, side: int = 96) -> bytes:
    """A JPEG with a block of EXIF that must not travel."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def history() -> list[EpochRow]:
    """Three epochs of the head, four of fine-tuning; the sixth is the best."""
    rows = [
        ("head", 1.35, 0.45, 1.10, 0.60),
        ("head", 0.90, 0.68, 0.80, 0.72),
        ("head", 0.75, 0.74, 0.70, 0.76),
        ("finetune", 0.62, 0.79, 0.60, 0.80),
        ("finetune", 0.50, 0.83, 0.55, 0.81),
        ("finetune", 0.44, 0.86, 0.53, 0.82),
        ("finetune", 0.40, 0.88, 0.54, 0.82),
    ]
    return [
        EpochRow(phase, i, 1e-3 if phase == "head" else 1e-5, tl, ta, vl, va, 4.0 * i)
        for i, (phase, tl, ta, vl, va) in enumerate(rows, start=1)
    ]


@dataclass
class ExampleRun:
    """Writes a run folder piece by piece; leave pieces out with `without`."""

    root: Path
    classes: tuple[str, ...] = ("daisy", "rose", HOSTILE, "tulip")
    per_part: int = 60
    seed: int = 0
    without: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=lambda: Recipe().replaced(train__epochs=4, model__head="mlp"))

    @property
    def images(self) -> Path:
        return self.root / "photos"

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.root / "runs" / "flowers & friends")

    def storage(self) -> FolderStorage:
        return FolderStorage(self.images)

    def write(self) -> RunFolder:
        pieces: dict[str, Any] = {
            "recipe": lambda: self.run.write_recipe(self.recipe),
            "dataset": self._write_dataset,
            "history": lambda: self.run.write_history(history()),
            "audit": lambda: self.run.write_audit(self._audit()),
            "environment": lambda: self.run.write_environment(self._environment()),
            "model": self._write_model,
            "certificate": lambda: self.run.write_certificate(self._certificate()),
            "validation": lambda: self._write_part("validation"),
            "test": lambda: self._write_part("test"),
        }
        for name, write in pieces.items():
            if name not in self.without:
                write()
        return self.run

    def path(self, part: str, index: int) -> str:
        return f"{part}/{index % len(self.classes)}/{index:04d}.jpg"

    def _write_dataset(self) -> None:
        records = []
        for number, part in enumerate(("train", "validation", "test")):
            for i in range(self.per_part):
                path = self.path(part, i)
                file = self.images / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(1000 * number + i))
                label = self.classes[i % len(self.classes)]
                records.append(
                    ImageRecord(
                        path, label, part, sha256=f"{number}{i:063d}", width=128, height=96, mode="RGB"
                    )
                )
        records.append(
            ImageRecord("train/0/broken.jpg", self.classes[0]).set_aside(
                "truncated JPEG. Left out. Re-export it"
            )
        )
        self.run.write_dataset(records)

    def _write_part(self, part: str) -> None:
        predictions = self.predictions(part)
        self.run.write_predictions(part, predictions)
        self.run.write_metrics(part, metrics_as_json(measure(predictions)))

    def predictions(self, part: str) -> Predictions:
        generator = np.random.default_rng([self.seed, len(part)])
        truth = np.arange(self.per_part) % len(self.classes)
        logits = generator.normal(size=(self.per_part, len(self.classes)))
        logits[np.arange(self.per_part), truth] += 2.2
        paths = tuple(self.path(part, i) for i in range(self.per_part))
        labels = tuple(self.classes[i] for i in truth)
        return Predictions(paths, labels, self.classes, softmax(logits, 0.8))

    def _audit(self) -> dict[str, Any]:
        return {
            "images": 3 * self.per_part + 1,
            "findings": [
                {
                    "kind": "unreadable", "severity": "warning", "confidence": "certain",
                    "message": "train/0/broken.jpg: truncated JPEG (row 210 of 480). Left out",
                    "remedy": "Re-export it to use it", "paths": ["train/0/broken.jpg"], "figure": {},
                },
            ],
        }  # fmt: skip

    def _environment(self) -> dict[str, Any]:
        kept = {str(n): {"kept": True, "evidence": f"evidence number {n}"} for n in range(1, 11)}
        kept["1"] = {"kept": False, "evidence": "1 pairs stand in two parts"}
        kept["4"] = {"kept": None, "evidence": "nothing was frozen"}
        crossing = [self.path("train", 0), self.path("validation", 0), "certain", 0.98, "mirrored"]
        return {
            "command": ["saccade", "train", "my photos", "--out", "runs/x"],
            "data": str(self.images),
            "root": str(self.images),
            "platform": "Linux",
            "device": "cpu",
            "versions": {"saccade": "0.1.0", "python": "3.11.7"},
            "resolved": {"data.preprocess": {"size": 224, "mean": [0.5, 0.5, 0.5]}, "train.lr": 0.001},
            "split": {
                "made_by_user": True,
                "crossing": [crossing],
                "crossing_groups": [],
                "reasons": ["rose: 14 % instead of 15 %"],
            },
            "promises": kept,
        }

    def _write_model(self) -> None:
        from saccade.run_folder import json_bytes

        values = {"weights_sha256": "ab" * 32, "data_fingerprint": "cd" * 16, "temperature": 1.25}
        self.run.write(self.run.model_json, json_bytes(values))

    def _certificate(self) -> dict[str, Any]:
        return {
            "kind": "float", "images": 120, "top1_agreement": 1.0, "max_probability_difference": 3.1e-6,
            "accuracy_change": 0.0, "tolerance": 1e-3, "passed": True,
            "runtimes": [
                {"runtime": "ONNX Runtime", "version": "1.32.0", "top1_agreement": 1.0,
                 "max_probability_difference": 3.1e-6, "passed": True},
            ],
        }  # fmt: skip
