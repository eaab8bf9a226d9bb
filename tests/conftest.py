"""What several tests share: real images made on the spot, and the real data that SACCADE_DATA may name."""

from __future__ import annotations

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


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """Writes photos below the test's own folder: make_photos(name, classes=..., images=...)."""

    def make(name: str = "photos", **options: Any) -> Path:
        return write_photos(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """Writes a small but complete model.onnx: mean colour -> linear -> softmax; needs onnx, not torch."""

    def make(
        path: Path,
        *,
        classes: tuple[str, ...] = ("blue", "green", "red"),
        size: int = 8,
        resize: str = "squash",
        temperature: float = 0.1,
        metadata: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> Path:
        from onnx import TensorProto, helper, numpy_helper

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
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(classes)])],
            [numpy_helper.from_array(weight, "weight")],
        )
        preprocess = Preprocess(size, resize=resize)  # type: ignore[arg-type]
        model = joined(helper.make_model(network), preprocess, temperature, len(classes))
        texts = {**file_metadata(classes, preprocess, "f" * 16), **(metadata or {})}
        helper.set_model_props(model, texts)
        write_model(model, path)
        return path

    return make
