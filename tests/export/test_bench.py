"""Engines are measured side by side, on the same image, and their accuracy comes from what was certified."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.cli import main
from saccade.errors import ModelError
from saccade.export.bench import BenchRow, Spread, TimedEngine, bench, measure
from saccade.export.engines import Engine
from saccade.export.peak import peak_megabytes
from saccade.pipeline.bench import recommendation
from saccade.records import Predictions
from saccade.run_folder import RunFolder

MakeModel = Callable[..., Path]


def test_rows_of_a_run(make_model: MakeModel, tmp_path: Path) -> None:
    """Float file with certificate, int8 file without, and the trained network itself."""
    import torch

    pytest.importorskip("openvino")
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
    rows = bench(tmp_path, rounds=1, threads=[1], shape=(20, 30), batches=(2, 3), memory=False)
    assert torch.get_num_threads() == before
    assert [row.threads for row in rows] == [1] * 5
    assert [row.engine.name for row in rows[:5]] == [
        "torch eager float32",
        "ONNX Runtime float32",
        "OpenVINO float32",
        "ONNX Runtime int8",
        "OpenVINO int8",
    ]
    known = [(row.engine.accuracy, row.engine.accuracy_images) for row in rows[:5]]
    assert known == [(0.75, 4), (0.75, 8), (0.75, 8), (None, 0), (None, 0)]
    for row in rows:
        assert (row.rounds, row.timings) == (1, 20)
        assert 0 < row.latency_p50_ms <= row.latency_p99_ms
        assert set(row.throughput) == {1, 2, 3}
        for spread in row.throughput.values():
            assert 0 < spread.low <= spread.median <= spread.high
    assert rows[1].engine.megabytes == pytest.approx(run.onnx.stat().st_size / 1e6)
    assert rows[0].engine.megabytes == pytest.approx(run.weights.stat().st_size / 1e6)


def test_memory_of_a_file_is_that_of_a_fresh_process(make_model: MakeModel, tmp_path: Path) -> None:
    ballast = np.ones(60_000_000)  # 480 MB that the new process must not be charged with
    engine = Engine("ONNX Runtime", "float32", make_model(tmp_path / "m.onnx"))
    peak = peak_megabytes(engine, threads=1, batch=2, shape=(9, 9))
    assert peak is not None
    assert 30 < peak < ballast.nbytes / 1e6


class Sized(Engine):
    """Of a file that is not there."""

    @property
    def megabytes(self) -> float:
        return 2.5 if self.precision == "int8" else 10.0


def row_of(name: str, precision: str, ms: float, rate: float, *, passed: bool = True) -> BenchRow:
    engine = Sized(name, precision, Path(), passed=passed)  # type: ignore[arg-type]
    spread = Spread(rate, rate, rate)
    return BenchRow(engine, 1, 5, 100, ms, 2 * ms, {1: spread, 32: spread}, 100.0)


ROWS = [
    row_of("torch", "float32", 40, 30),
    row_of("ONNX Runtime", "float32", 10, 100),
    row_of("OpenVINO", "float32", 12, 140),
]
INT8 = row_of("ONNX Runtime", "int8", 8.0, 120)
FAILED = row_of("ONNX Runtime", "int8", 3.0, 300, passed=False)
FLOAT_SAID = (
    "Use ONNX Runtime float32 with 1 thread: 10.0 ms a photo (p99 20.0), 4.0 times torch eager (batches of "
    "32: 4.7). For many photos at once use OpenVINO float32 with 1 thread: 140 a second."
)
INT8_SAID = "Use ONNX Runtime int8 with 1 thread: 8.0 ms a photo (p99 16.0), 1.2 times float32."
SLOW_SAID = (
    "int8 is not worth it here: 1.2 times as fast as float32 (it pays from 2.5 on this processor), in 25% of "
    "the size."
)


@pytest.mark.parametrize(
    ("int8", "processor", "words"),
    [
        ([], "AVX2", FLOAT_SAID),
        ([INT8], "AVX2", INT8_SAID),
        ([INT8], "AVX-512 VNNI", SLOW_SAID),
        ([FAILED], "AVX2", "The int8 file failed its certificate."),
    ],
)
def test_what_is_recommended(int8: list[BenchRow], processor: str, words: str) -> None:
    said = " ".join(recommendation([*ROWS, *int8], processor=processor))
    assert words in said
    assert ("Use ONNX Runtime int8" in said) is (words == INT8_SAID)


def test_table_picture_and_figures(
    tmp_path: Path,
    make_model: MakeModel,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saccade.export.bench.peak_megabytes", lambda *args, **options: 80.0)
    path = make_model(tmp_path / "m.onnx")
    picture, table = tmp_path / "bench.png", tmp_path / "bench.json"
    command = ["bench", str(path), "--rounds", "1"]
    assert main([*command, "--out", str(table), "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("ONNX Runtime float32", "engine "))]
    assert len(lines) >= 2
    assert all(len(line) <= 80 for line in lines)
    values = json.loads(table.read_text())
    first = values["rows"][0]
    assert first["engine"] == "ONNX Runtime"
    assert first["latency_p99_ms"] >= first["latency_p50_ms"] > 0
    assert first["images_per_second_batch_32"] > 0
    assert values["recommendation"][0].startswith("Use ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    for flag, place in (("--out", "bench.txt"), ("--plot", "bench.jpg")):
        assert main([*command, flag, str(tmp_path / place)]) == 2


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
