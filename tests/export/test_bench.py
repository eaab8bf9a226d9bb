"""Engines are measured side by side, on the same image, and their accuracy comes from what was certified."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.errors import ModelError
from saccade.export.bench import TimedEngine, bench, measure
from saccade.records import Predictions
from saccade.run_folder import RunFolder

MakeModel = Callable[..., Path]


def test_rows_of_a_run(make_model: MakeModel, tmp_path: Path) -> None:
    """Float file with certificate, int8 file without, and the trained network itself."""
    import torch

    from saccade.bundle import save_bundle
    from saccade.models import build_model

    run = RunFolder(tmp_path)
    built = build_model("small_cnn", 3, pretrained=False, image_size=16)
    from saccade.bundle import Bundle

    save_bundle(
        Bundle(built.module, ("blue", "green", "red"), built.preprocess, built.architecture), run.bundle
    )
    note = json.dumps({"kind": "int8"})
    make_model(run.onnx)
    make_model(run.int8, metadata={"saccade.quantization": note})
    run.write_certificate({"validation_accuracy_after": 0.75, "images_by_part": {"validation": 8, "test": 4}})
    answers = np.eye(3)[[0, 1, 2, 2]]
    run.write_predictions(
        "validation",
        Predictions(
            ("a", "b", "c", "d"), ("blue", "green", "red", "blue"), ("blue", "green", "red"), answers
        ),
    )
    before = torch.get_num_threads()
    rows = bench(tmp_path, rounds=2, threads=before + 1, shape=(20, 30), batches=(2, 3))
    assert torch.get_num_threads() == before
    assert [row.engine.split()[0] for row in rows] == ["torch", "onnxruntime", "onnxruntime"]
    assert [row.engine.split()[-1] for row in rows] == ["eager", "float", "int8"]
    assert [(row.accuracy, row.accuracy_images) for row in rows] == [(0.75, 4), (0.75, 8), (None, 0)]
    for row in rows:
        assert (row.rounds, row.timings, row.threads) == (2, 16, before + 1)
        assert 0 < row.latency_p50_ms <= row.latency_p95_ms
        assert row.megabytes == pytest.approx(Path(row.file).stat().st_size / 1e6)
        assert set(row.throughput) == {2, 3}
        for spread in row.throughput.values():
            assert 0 < spread.low <= spread.median <= spread.high


def test_a_file_alone(make_model: MakeModel, tmp_path: Path) -> None:
    path = make_model(tmp_path / "other.onnx")
    assert [row.engine for row in bench(path, rounds=1, shape=(9, 9), batches=(2,))] == ["onnxruntime float"]


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has nothing to measure"):
        bench(tmp_path)
    with pytest.raises(ModelError, match="model file does not exist"):
        bench(tmp_path / "absent.onnx")


def test_rounds_are_interleaved_and_the_slower_engine_is_slower() -> None:
    order: list[str] = []

    def engine(name: str, seconds: float) -> TimedEngine:
        def answer(images: object) -> None:
            order.append(name)
            time.sleep(seconds)

        return TimedEngine(name, Path(), answer)

    image = np.zeros((4, 4, 3), np.uint8)
    fast, slow = measure([engine("fast", 0.0), engine("slow", 0.004)], image, rounds=3, batches=(2,))
    assert order[:2] == ["fast", "slow"]
    assert order[2:20] == ["fast"] * 9 + ["slow"] * 9
    assert len(fast.single) == 24
    assert min(slow.single) > 0.003
    assert np.median(fast.single) < np.median(slow.single)
    assert len(slow.batches[2]) == 3
