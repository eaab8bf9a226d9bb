"""`saccade predict` at speed and at length: rate, memory, kills, the first answer.

    python -m benchmarks.predicting rate  --model M --photos DIR   against a loop in Python on all cores
    python -m benchmarks.predicting rows  [--rows 1000000]         memory over a million rows of 32 pixels
    python -m benchmarks.predicting kills [--kills 20]             kill -9 at random, and the same command
    python -m benchmarks.predicting cold  --model M --photos DIR   time and memory of one photo's answer

Files are made below --work (default: a folder of its own in the system's), and removed in the end.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.answer import Answer

PREDICT = [sys.executable, "-m", "saccade.cli", "predict"]
SIZE = (500, 375)
LEAST_RATE, MOST_GROWTH_MB, MOST_COLD_SECONDS, MOST_COLD_MB = 0.9, 50, 1.0, 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rate", "rows", "kills", "cold"))
    parser.add_argument("--model", help="a model.onnx, or a run folder's")
    parser.add_argument("--photos", type=Path, help="a folder of photos, to make the images of")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--given", choices=("parquet", "list"), default="parquet")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="saccade-predicting-", dir=asked.work))
    try:
        good = {"rate": rate, "rows": rows, "kills": kills, "cold": cold}[asked.what](asked, work)
    finally:
        shutil.rmtree(work)
    sys.exit(not good)


# -- rate -------------------------------------------------------------------------------------------------


def rate(asked: argparse.Namespace, work: Path) -> bool:
    """Interleaved rounds; the best loop is what the command is compared with."""
    folder = work / "photos"
    make_photos(asked.photos, folder, asked.images)
    files = sorted(str(path) for path in folder.iterdir())
    loops = {
        "Pillow": ("pillow", os.cpu_count() or 1),
        "saccade's decoder": ("saccade", os.cpu_count() or 1),
        "Pillow, engine on all cores": ("pillow", 0),
    }
    found: dict[str, list[float]] = {name: [] for name in (*loops, "saccade predict")}
    cpu = dict.fromkeys(found, 0.0)
    for turn in range(asked.rounds):
        for name, (decoder, workers) in loops.items():
            before = cpu_seconds()
            found[name].append(len(files) / seconds_of(loop_command(asked.model, folder, decoder, workers)))
            cpu[name] += cpu_seconds() - before
        out = work / f"{turn}.csv"
        command = [*PREDICT, asked.model, str(folder), "--out", str(out)]
        before = cpu_seconds()
        found["saccade predict"].append(len(files) / seconds_of(command))
        cpu["saccade predict"] += cpu_seconds() - before
        assert sum(1 for _ in out.open()) == len(files) + 1
        print(f"round {turn + 1}: " + ", ".join(f"{name} {rates[-1]:.1f}/s" for name, rates in found.items()))
    best = max(statistics.median(found[name]) for name in loops)
    ratio = statistics.median(found["saccade predict"]) / best
    for name, rates in found.items():
        each = 1000 * cpu[name] / len(files) / asked.rounds
        spread = f"({min(rates):.1f} to {max(rates):.1f})"
        print(f"{name:30} {statistics.median(rates):7.1f}/s  {spread:20} {each:.2f} ms of processor each")
    print(f"{len(files):,} photos, n = {asked.rounds}: {ratio:.2f} of the best loop (goal {LEAST_RATE})")
    return ratio >= LEAST_RATE


def make_photos(source: Path, folder: Path, count: int) -> None:
    """`count` different JPEGs of 500 x 375 pixels."""
    folder.mkdir(parents=True)
    photos = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:500]
    for number in range(count):
        photo = folder / f"{number:05d}.jpg"
        with Image.open(photos[number % len(photos)]) as image:
            resized = image.convert("RGB").resize(SIZE)
        resized.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
        resized.save(photo, quality=85)


def seconds_of(command: list[str]) -> float:
    """Of the whole command, its start included; a loop says itself how long it took without its imports."""
    started = time.perf_counter()
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took = time.perf_counter() - started
    return float(said) if command[1] == "-c" else took


def cpu_seconds() -> float:
    """Processor time of all children so far, starts and imports included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def loop_command(model: str, folder: Path, decoder: str, workers: int) -> list[str]:
    values = f"{model!r}, {str(folder)!r}, {decoder!r}, {workers}"
    call = f"from benchmarks.predicting import loop; print(loop({values}))"
    return [sys.executable, "-c", call]


def loop(model: str, folder: str, decoder: str, workers: int) -> float:
    """Seconds of decoding and running each image in `workers` threads; 0: one, the engine on all cores."""
    import onnxruntime

    from saccade.images.decoder import decode

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if workers else os.cpu_count() or 1
    session = onnxruntime.InferenceSession(
        str(model_file(model)), options, providers=["CPUExecutionProvider"]
    )

    def answer(path: str) -> int:
        with open(path, "rb") as file:
            data = file.read()
        if decoder == "pillow":
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("RGB"))
        else:
            pixels = decode(data).pixels
        return int(session.run(None, {"image": pixels[None]})[0].argmax())

    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    started = time.perf_counter()
    if workers:
        with ThreadPoolExecutor(workers) as pool:
            answers = list(pool.map(answer, files))
    else:
        answers = [answer(path) for path in files]
    assert len(answers) == len(files)
    return time.perf_counter() - started


def model_file(model: str) -> Path:
    return Path(model) / "export" / "model.onnx" if Path(model).is_dir() else Path(model)


# -- rows -------------------------------------------------------------------------------------------------


def rows(asked: argparse.Namespace, work: Path) -> bool:
    """Memory of the command from its first rows to its last."""
    model, out = work / "model.onnx", work / "o.csv"
    small_model(model)
    given = make_table(work, asked.rows) if asked.given == "parquet" else make_list(work, asked.rows)
    started = time.monotonic()
    process = subprocess.Popen(
        [*PREDICT, str(model), str(given), "--out", str(out)], stdout=subprocess.DEVNULL
    )
    memory: list[tuple[float, float]] = []
    journal = Path(f"{out}.unfinished")
    while process.poll() is None:
        if journal.exists() and journal.stat().st_size > 20_000:  # the first rows have been answered
            memory.append((time.monotonic() - started, resident_mb(process.pid)))
        time.sleep(0.2)
    took = time.monotonic() - started
    written = sum(1 for _ in out.open()) - 1
    first, most = memory[0][1], max(mb for _, mb in memory)
    marks = [memory[int(share * (len(memory) - 1))] for share in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    print("  ".join(f"{at:.0f} s: {mb:.0f} MB" for at, mb in marks))
    print(
        f"{written:,} of {asked.rows:,} rows ({asked.given}) in {took:.0f} s, {written / took:,.0f}/s; "
        f"{first:.0f} MB at first, {most:.0f} MB at most: + {most - first:.0f} MB (goal {MOST_GROWTH_MB})"
    )
    return process.returncode == 0 and written == asked.rows and most - first < MOST_GROWTH_MB


def resident_mb(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def small_images(count: int = 1000) -> list[bytes]:
    """PNG files of 32 x 32 pixels with a gradient each."""
    ramp = np.arange(32, dtype=np.uint8)
    files = []
    for number in range(count):
        slope = np.add.outer(ramp * (number % 7), ramp * (number % 5)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(np.stack([slope, slope + number % 256, 255 - slope], 2)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def make_table(work: Path, count: int) -> Path:
    import pyarrow
    import pyarrow.parquet as parquet

    images = itertools.cycle(small_images())
    schema = pyarrow.schema([("image", pyarrow.binary())])
    with parquet.ParquetWriter(
        work / "rows.parquet", schema, use_dictionary=False, compression="none"
    ) as file:
        for start in range(0, count, 10_000):
            values = list(itertools.islice(images, min(10_000, count - start)))
            file.write_batch(pyarrow.record_batch([pyarrow.array(values, pyarrow.binary())], schema=schema))
    return work / "rows.parquet"


def make_list(work: Path, count: int) -> Path:
    folder = work / "images"
    folder.mkdir()
    for number, data in enumerate(small_images()):
        (folder / f"{number:03d}.png").write_bytes(data)
    with (work / "rows.txt").open("w") as file:
        file.writelines(f"images/{number % 1000:03d}.png\n" for number in range(count))
    return work / "rows.txt"


def small_model(place: Path, *, classes: int = 10) -> None:
    """A convolution with 16 channels on 32 pixels, pooled, into ten classes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from saccade.export.onnx import file_metadata, joined, write_model
    from saccade.preprocess import Preprocess

    rng = np.random.default_rng(0)
    weights = {"conv.weight": (16, 3, 3, 3), "head.weight": (16, classes)}
    tensors = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "head.weight"], ["y"], name="head"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])
    network = helper.make_model(helper.make_graph(nodes, "network", [image], [answer], tensors))
    preprocess = Preprocess(32)
    model: onnx.ModelProto = joined(network, preprocess, Answer(), classes)
    names = tuple(f"c{number}" for number in range(classes))
    helper.set_model_props(model, file_metadata(names, preprocess, "f" * 16))
    write_model(model, place)


# -- kills ------------------------------------------------------------------------------------------------


def kills(asked: argparse.Namespace, work: Path) -> bool:
    """Every output that comes about after kills must have the bytes of one that was never disturbed."""
    model, folder = work / "model.onnx", work / "images"
    small_model(model)
    folder.mkdir()
    for number, data in zip(range(asked.images), itertools.cycle(small_images()), strict=False):
        (folder / f"{number:05d}.png").write_bytes(data if number % 100 else data[:40])
    expected, took = undisturbed(model, folder, work)
    moment = random.Random(0)
    killed, finished, in_writing, equal = 0, 0, 0, True
    out = work / "o.csv"
    while killed < asked.kills or Path(f"{out}.unfinished").exists():
        process = subprocess.Popen(
            [*PREDICT, str(model), str(folder), "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = time.monotonic()
        try:
            process.wait(moment.uniform(0.3, 1) * took if killed < asked.kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            in_writing += any(path.name.endswith(".part") for path in work.iterdir())
            continue
        finished, took = finished + 1, min(took, time.monotonic() - started)
        equal &= expected == outputs(out)
        for path in (out, Path(f"{out}.failed.csv")):
            path.unlink()
    print(
        f"{killed} kills ({in_writing} of them while the output was written), {finished} outputs of "
        f"{len(expected[0].splitlines()) - 1:,} rows and {len(expected[1].splitlines()) - 1:,} failures: "
        f"{'all the same bytes as undisturbed' if equal and finished else 'NOT the same'}"
    )
    return equal and finished > 0


def undisturbed(model: Path, folder: Path, work: Path) -> tuple[tuple[bytes, bytes], float]:
    started = time.monotonic()
    command = [*PREDICT, str(model), str(folder), "--out", str(work / "whole.csv")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return outputs(work / "whole.csv"), time.monotonic() - started


def outputs(out: Path) -> tuple[bytes, bytes]:
    return out.read_bytes(), Path(f"{out}.failed.csv").read_bytes()


# -- cold -------------------------------------------------------------------------------------------------


def cold(asked: argparse.Namespace, work: Path) -> bool:
    """Ten starts, the first of which (that fills the system's cache) does not count."""
    photo = next(path for path in sorted(asked.photos.rglob("*.jpg")))
    found = list(itertools.islice(starts([*PREDICT, asked.model, str(photo)]), 11))[1:]
    seconds, memory = zip(*found, strict=True)
    print(
        f"cold: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{max(memory):.0f} MB, n = {len(found)} (goal {MOST_COLD_SECONDS} s, {MOST_COLD_MB} MB)"
    )
    return statistics.median(seconds) <= MOST_COLD_SECONDS and max(memory) <= MOST_COLD_MB


def starts(command: list[str]) -> Iterator[tuple[float, float]]:
    """Seconds and peak MB of the command, again and again."""
    while True:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        yield time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
