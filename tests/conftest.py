"""What several tests share: real images made on the spot, and the real data that SACCADE_DATA may name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

settings.register_profile(
    "quick", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "thorough", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Path of a real file or folder below SACCADE_DATA; the test is skipped, by name, where it is absent."""

    def find(name: str) -> Path:
        root = os.environ.get("SACCADE_DATA", "")
        if not root:
            pytest.skip(f"needs real data ({name}): set SACCADE_DATA to the folder that holds it")
        path = Path(root) / name
        if not path.exists():
            pytest.skip(f"needs real data: {path} is not there")
        return path

    return find


def shape_image(kind: int, rng: np.random.Generator, side: int = 32) -> Image.Image:
    """A disc, a bar, a checkerboard or a ring, each unlike the last, on a ground of its own.

    Classes that a small network tells apart, and pictures that do not pass for copies of each other.
    """
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - rng.uniform(0.35, 0.65, (2, 1, 1))
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    radius, width = rng.uniform(0.15, 0.3), rng.uniform(0.05, 0.14)
    cell = rng.uniform(0.1, 0.2)
    masks = (
        x**2 + y**2 < radius**2,
        abs(across) < width,
        (np.floor(along / cell) + np.floor(across / cell)) % 2 == 0,
        abs(np.sqrt(x**2 + y**2) - radius) < width / 2,
    )
    coarse = Image.fromarray(rng.integers(0, 200, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
    pixels[masks[kind % len(masks)]] += rng.uniform(60, 100)
    pixels += rng.normal(0, 5, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_photos(
    root: Path,
    *,
    classes: tuple[str, ...] = ("disc", "bar", "checker"),
    images: int = 12,
    side: int = 32,
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Write a folder of class folders with real PNG or JPEG files and return it."""
    rng = np.random.default_rng(seed)
    for kind, label in enumerate(classes):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(images):
            shape_image(kind, rng, side).save(folder / f"{label}_{i:03d}{suffix}")
    return root


@pytest.fixture(scope="session")
def photo_writer() -> Callable[..., Path]:
    """`write_photos`, for fixtures that live longer than one test."""
    return write_photos


def write_mosaics(root: Path, *, images: int = 60, tile: int = 24, seed: int = 0) -> Path:
    """Pictures of up to four shapes in two rows, with the true ones in `list.csv`; returns that list.

    A tenth shows no shape, and its label is empty.
    """
    rng = np.random.default_rng(seed)
    names = ("disc", "bar", "checker", "ring")
    rows = ["path,label"]
    for number in range(images):
        kinds = [] if number % 10 == 9 else rng.integers(len(names), size=rng.integers(1, 4)).tolist()
        noise = rng.integers(0, 200, (6, 6, 3), dtype=np.uint8)
        ground = Image.fromarray(noise).resize((2 * tile, 2 * tile), Image.Resampling.BICUBIC)
        for place, kind in zip(rng.permutation(4).tolist(), kinds, strict=False):
            ground.paste(shape_image(kind, rng, tile), (tile * (place % 2), tile * (place // 2)))
        ground.save(root / f"{number:03d}.png")
        labels = ",".join(sorted({names[kind] for kind in kinds}))
        rows.append(f'{number:03d}.png,"{labels}"')
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="session")
def mosaic_writer() -> Callable[..., Path]:
    """`write_mosaics`, for fixtures that live longer than one test."""
    return write_mosaics


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """Writes photos below the test's own folder: make_photos(name, classes=..., images=...)."""

    def make(name: str = "photos", **options: Any) -> Path:
        return write_photos(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """Writes a small but complete model.onnx: mean colour -> linear -> softmax; needs onnx, not torch.

    With `thresholds`, by class, it is one for several labels: a sigmoid each. `unfamiliar` is of the mean
    colour (3,), as the network gets it.
    """

    def make(
        path: Path,
        *,
        classes: tuple[str, ...] = ("blue", "green", "red"),
        size: int = 8,
        resize: str = "squash",
        temperature: float = 0.1,
        metadata: Mapping[str, str] | None = None,
        seed: int = 0,
        thresholds: Mapping[str, float] | None = None,
        unfamiliar: Any = None,
    ) -> Path:
        from onnx import TensorProto, helper, numpy_helper

        from saccade.answer import Answer
        from saccade.artefact import ANSWER_KEY, THRESHOLDS_KEY
        from saccade.export.onnx import file_metadata, joined, write_model
        from saccade.preprocess import Preprocess

        rng = np.random.default_rng(seed)
        weight = rng.normal(size=(3, len(classes))).astype(np.float32)
        if len(classes) == 3:  # sorted: blue, green, red; the picture's strongest channel is its class
            weight = np.eye(3, dtype=np.float32)[:, ::-1].copy()
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"], name="pool"),
            helper.make_node("Flatten", ["pooled"], ["features"], name="flat"),
            helper.make_node("Gemm", ["features", "weight"], ["y"], name="head"),
        ]
        network = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, size, size])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
                for name, width in {"y": len(classes), **({"features": 3} if unfamiliar else {})}.items()
            ],
            [numpy_helper.from_array(weight, "weight")],
        )
        preprocess = Preprocess(size, resize=resize)  # type: ignore[arg-type]
        answer = Answer("sigmoid" if thresholds else "softmax", (temperature,))
        model = joined(helper.make_model(network), preprocess, answer, len(classes), unfamiliar)
        several = {ANSWER_KEY: json.dumps(answer.as_json()), THRESHOLDS_KEY: json.dumps(thresholds)}
        texts = {**file_metadata(classes, preprocess, "f" * 16), **(several if thresholds else {})}
        texts |= metadata or {}
        helper.set_model_props(model, texts)
        write_model(model, path)
        return path

    return make


@pytest.fixture
def web_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files in the place of onnxruntime-web's, with known hashes, which are used."""
    from saccade.export import web_runtime

    folder = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name in web_runtime.FILES:
        data = f"content of {name}".encode()
        (folder / name).write_bytes(data)
        monkeypatch.setitem(web_runtime.FILES, name, hashlib.sha256(data).hexdigest())
    monkeypatch.setenv(web_runtime.RUNTIME_VARIABLE, str(folder))
    return folder


def tiny_recipe(**dotted: Any) -> Any:
    """A recipe that fits the tiny data; dotted keys with __ (train__epochs=2) change it."""
    from saccade.recipe import Recipe

    defaults = {"train__epochs": 3, "train__head_epochs": 2, "train__batch_size": 8, "train__lr": 0.02}
    return Recipe().replaced(**{**defaults, **dotted})


def tiny_job(
    folder: Path,
    *,
    recipe: Any = None,
    data: Any = None,
    classifier: Any = None,
    pretrained: bool = True,
    callbacks: Any = (),
    stop: Any = None,
    deadline: float | None = None,
    started: float | None = None,
    validation_images: int = 0,
    **mixing: float,
) -> Any:
    """A training job on tiny data in a run folder; `mixing` are fields of `Mixing`."""
    from dataclasses import replace

    from saccade.methods import plan_training
    from saccade.run_folder import RunFolder
    from saccade.runtime import Runtime
    from saccade.testing.tiny import TinyData, tiny_classifier
    from saccade.training.callbacks import Callbacks
    from saccade.training.clock import Clock
    from saccade.training.job import Watch
    from saccade.training.loop import training_job
    from saccade.training.stop import StopRequest

    recipe, data = recipe or tiny_recipe(), data or TinyData()
    clock = Clock()
    clock.started = clock.started if started is None else started
    clock.deadline = clock.deadline if deadline is None else deadline
    plan = plan_training(recipe if pretrained else recipe.replaced(model__pretrained=False))
    return training_job(
        classifier or tiny_classifier(),
        replace(plan, mixing=replace(plan.mixing, **mixing)),
        replace(data.as_training_data(), validation_images=validation_images),
        runtime=Runtime.create("cpu", recipe.precision),
        run=RunFolder(folder),
        watch=Watch(Callbacks(callbacks), stop or StopRequest(), clock),
    )


@pytest.fixture
def job_tiny(tmp_path: Path) -> Callable[..., Any]:
    """`tiny_job` in a folder of this test; `name` picks which."""
    return lambda name="run", **options: tiny_job(tmp_path / name, **options)


@pytest.fixture
def fit_tiny(job_tiny: Callable[..., Any]) -> Callable[..., Any]:
    """Trains a `tiny_job` by its plan's method; returns the trained network and the result."""

    def fitted(name: str = "run", *, probe: Any = None, **options: Any) -> Any:
        from saccade.methods import METHODS

        job = job_tiny(name, **options)
        return job.classifier, METHODS[job.plan.method].train(job, probe)

    return fitted


@pytest.fixture
def recipe() -> Callable[..., Any]:
    return tiny_recipe
