"""`saccade serve` under load, each proof by its name; MODEL is a run folder or an .onnx, PHOTOS a folder.

    python -m benchmarks.serving MODEL PHOTOS throughput   beside an in-process loop, interleaved
    python -m benchmarks.serving MODEL PHOTOS tail         70 % of peak, open loop; one request alone
    python -m benchmarks.serving MODEL PHOTOS overload     10 x peak for 60 s
    python -m benchmarks.serving MODEL PHOTOS restarts     20 restarts under load
    python -m benchmarks.serving MODEL PHOTOS swaps        20 models swapped in under load
    python -m benchmarks.serving MODEL PHOTOS slow         500 slow clients beside a normal one
    python -m benchmarks.serving MODEL PHOTOS hangups      half of the clients close before the answer
    python -m benchmarks.serving MODEL PHOTOS distinct     5,000 images, each with its own answer
    python -m benchmarks.serving MODEL PHOTOS soak         10 minutes: errors, memory
    python -m benchmarks.serving MODEL PHOTOS idle         ready after, memory

Server and generator are two processes on the same cores. Exit code 1 where a goal is missed. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.load import Client, Load, ServerProcess, closed, opened, post, serving
from PIL import Image

from saccade.artefact import Artefact, certificate_path
from saccade.images.decoder import decode
from saccade.predict.predictor import model_file
from saccade.threads import available_cores

AT_ONCE = 8  # connections that keep the server busy
TURNS = 6


@dataclass(frozen=True)
class Asked:
    """The command line."""

    model: Path
    photos: list[bytes]
    rounds: int
    seconds: float
    minutes: float
    rate: float
    images: int

    @cached_property
    def requests(self) -> list[bytes]:
        return [post(photo) for photo in self.photos]


def main() -> int:
    """Run one proof; 1 where its goal is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("proof", choices=PROOFS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    parser.add_argument("--rate", type=float, default=0.0, help="peak in requests a second; 0: measured")
    parser.add_argument("--images", type=int, default=5000, help="of distinct")
    given = parser.parse_args()
    files = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    photos = [path.read_bytes() for path in files[:: max(1, len(files) // 64)][:64]]
    asked = Asked(given.model, photos, given.rounds, given.seconds, given.minutes, given.rate, given.images)
    print(f"load {os.getloadavg()[0]:.1f}, {available_cores()} cores, {len(photos)} photos")
    met = PROOFS[given.proof](asked)
    print("goal met" if met else "GOAL MISSED")
    return 0 if met else 1


# -- speed ---------------------------------------------------------------------------------------


def throughput(asked: Asked) -> bool:
    """Images a second and processor time an image: loops in two layouts, and the server at its peak."""
    file = model_file(asked.model)
    two, one = Artefact.open(file, threads=1), Artefact.open(file, threads=available_cores())
    rates: dict[str, list[float]] = {"loop, workers": [], "loop, one worker": [], "server": []}
    cpu: dict[str, list[float]] = {"loop, workers": [], "server": []}
    with serving(asked.model) as server:
        for _ in range(asked.rounds):
            rate, spent = _loop(two, asked, workers=available_cores())
            rates["loop, workers"].append(rate)
            cpu["loop, workers"].append(spent)
            rates["loop, one worker"].append(_loop(one, asked, workers=1)[0])
            before = server.cpu()
            told = closed(server.port, asked.requests, AT_ONCE, asked.seconds)
            answered = told.counts()["200"]
            rates["server"].append(answered / asked.seconds)
            cpu["server"].append((server.cpu() - before) / answered)
    for name, found in rates.items():
        print(f"{name}: {_spread(found)} images/s")
    for name, found in cpu.items():
        print(f"{name}: {_spread([1000 * x for x in found])} ms of processor time an image")
    best = max(statistics.median(rates["loop, workers"]), statistics.median(rates["loop, one worker"]))
    ratio = statistics.median(rates["server"]) / best
    by_cpu = statistics.median(cpu["loop, workers"]) / statistics.median(cpu["server"])
    print(f"server / loop: {ratio:.3f} by rate (generator included), {by_cpu:.3f} by processor time")
    return ratio >= (0.9 if 1000 * statistics.median(cpu["loop, workers"]) >= 10 else 0.8)


def _loop(artefact: Artefact, asked: Asked, *, workers: int) -> tuple[float, float]:
    """Images a second, and seconds of processor time an image, of decoding and the model alone."""
    end, began = time.perf_counter() + asked.seconds, time.process_time()

    def work(start: int) -> int:
        done = 0
        while time.perf_counter() < end:
            photo = asked.photos[(start + done) % len(asked.photos)]
            artefact.probabilities([decode(photo).pixels])
            done += 1
        return done

    with ThreadPoolExecutor(workers) as pool:
        done = sum(pool.map(work, range(workers)))
    return done / asked.seconds, (time.process_time() - began) / done


def tail(asked: Asked) -> bool:
    """p50 and p99 at 70 % of peak; what HTTP adds to one request, in turns with the model by itself."""
    artefact = Artefact.open(model_file(asked.model), threads=1)
    inside, alone = [], []
    with serving(asked.model) as server:
        peak = _peak(server, asked)
        for _ in range(TURNS):
            inside += _one_by_one(artefact, asked, asked.seconds / TURNS)
            told = closed(server.port, asked.requests, 1, asked.seconds / TURNS)
            alone += [1000 * seconds for seconds in told.seconds["200"]]
        loaded = opened(server.port, asked.requests, 0.7 * peak, asked.seconds)
    overhead = statistics.median(alone) - statistics.median(inside)
    ratio = loaded.quantile(0.99) / loaded.quantile(0.5)
    print(
        f"peak {peak:.0f}/s; one request alone: {_p50_p99(alone)} ms; the model by itself: {_p50_p99(inside)}"
    )
    print(f"HTTP adds {overhead:.2f} ms")
    print(f"at 70 %: p50 {loaded.quantile(0.5):.2f}, p99 {loaded.quantile(0.99):.2f} ms; ratio {ratio:.2f}")
    print(f"statuses {dict(loaded.counts())}")
    return ratio <= 3 and overhead <= 1 and set(loaded.counts()) == {"200"}


def _one_by_one(artefact: Artefact, asked: Asked, seconds: float) -> list[float]:
    """Milliseconds of each photo, decoded and predicted in this process."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        artefact.probabilities([decode(asked.photos[len(found) % len(asked.photos)]).pixels])
        found.append(1000 * (time.perf_counter() - began))
    return found


def _p50_p99(found: list[float]) -> str:
    ordered = sorted(found)
    return f"p50 {statistics.median(ordered):.2f}, p99 {ordered[int(0.99 * len(ordered))]:.2f}"


def _peak(server: ServerProcess, asked: Asked) -> float:
    """Requests a second that the server answers when always busy."""
    if asked.rate:
        return asked.rate
    closed(server.port, asked.requests, AT_ONCE, 1)
    return closed(server.port, asked.requests, AT_ONCE, asked.seconds).counts()["200"] / asked.seconds


def idle(asked: Asked) -> bool:
    """Seconds until ready and resident memory, of several starts."""
    starts, memory = [], []
    for _ in range(asked.rounds):
        with serving(asked.model) as server:
            starts.append(server.start_seconds)
            memory.append(server.memory())
    print(f"ready after {_spread(starts)} s; {_spread(memory)} MB")
    return statistics.median(starts) <= 3 and statistics.median(memory) <= 250


# -- too much ------------------------------------------------------------------------------------


def overload(asked: Asked) -> bool:
    """Ten times the peak for 60 s: refused at once, no memory, goodput; then normal within a second."""
    with serving(asked.model) as server:
        peak = _peak(server, asked)
        before, cpu = server.memory(), server.cpu()
        told = opened(server.port, asked.requests, 10 * peak, asked.seconds * 6)
        spent = (server.cpu() - cpu) / (asked.seconds * 6)
        counts, grown = told.counts(), server.memory() - before
        time.sleep(1)
        after = closed(server.port, asked.requests, 1, 2)
    goodput = counts["200"] / (asked.seconds * 6) / peak
    refused = told.quantile(0.99, "503")
    print(f"peak {peak:.0f}/s; {dict(counts)}; server used {spent:.2f} cores")
    usual = told.quantile(0.5, "503")
    print(f"goodput {goodput:.2f} of peak; refused after p50 {usual:.1f}, p99 {refused:.1f} ms")
    print(f"accepted p99 {told.quantile(0.99):.0f} ms; memory +{grown:.0f} MB")
    print(f"1 s later: {dict(after.counts())}, p50 {after.quantile(0.5):.1f} ms")
    return goodput >= 0.9 and refused < 50 and grown < 50 and set(after.counts()) == {"200"}


def slow(asked: Asked) -> bool:
    """500 clients that send a byte a second: all cut off within 10 s; a normal client hardly notices."""
    with serving(asked.model) as server:
        alone = closed(server.port, asked.requests, 1, 5)
        beside, cut = asyncio.run(_beside_slow(server, asked))
    print(f"normal p99 {alone.quantile(0.99):.1f} ms alone, {beside.quantile(0.99):.1f} ms beside them")
    print(f"{cut} of 500 cut off; normal statuses {dict(beside.counts())}")
    return cut == 500 and beside.quantile(0.99) < 2 * alone.quantile(0.99) and set(beside.counts()) == {"200"}


async def _beside_slow(server: ServerProcess, asked: Asked) -> tuple[Any, int]:
    loop = asyncio.get_running_loop()
    slow_ones = [(await loop.create_connection(Client, "127.0.0.1", server.port))[1] for _ in range(500)]
    bodies = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for number, client in enumerate(slow_ones):
        client.transport.write(bodies if number % 2 else b"POST /pre")  # type: ignore[attr-defined]

    async def dribble() -> None:
        for _ in range(12):
            await asyncio.sleep(1)
            for client in slow_ones:
                client.transport.write(b"x")  # type: ignore[attr-defined]

    dribbling = asyncio.ensure_future(dribble())
    told = await Load(server.port, asked.requests).closed(1, 9)
    await dribbling
    return told, sum(not client.open or b" 408 " in client.received[:20] for client in slow_ones)


def hangups(asked: Asked) -> bool:
    """Every second client closes before its answer: the others are answered, that work is not run."""
    with serving(asked.model, "--queue", "256") as server:
        sent, told = asyncio.run(_half_hang_up(server, asked))
        time.sleep(1)
        text = asyncio.run(_metrics(server.port))
    figures = {
        name: float(line.split()[-1])
        for line in text.splitlines()
        for name in ("saccade_dropped_images ", "saccade_images_total ", "saccade_pending_images ")
        if line.startswith(name)
    }
    print(f"{sent} hung up; others {dict(told.counts())}; {figures}")
    return figures["saccade_dropped_images "] >= 0.8 * sent and set(told.counts()) == {"200"}


async def _half_hang_up(server: ServerProcess, asked: Asked) -> tuple[int, Any]:
    loop, load, sent = asyncio.get_running_loop(), Load(server.port, asked.requests), 0
    for _ in range(10):
        gone = [(await loop.create_connection(Client, "127.0.0.1", server.port))[1] for _ in range(50)]
        for number, client in enumerate(gone):
            client.transport.write(asked.requests[number % len(asked.requests)])  # type: ignore[attr-defined]
        waiting = asyncio.gather(*(load.ask(number, time.perf_counter()) for number in range(50)))
        await asyncio.sleep(0.03)
        for client in gone:
            client.transport.abort()  # type: ignore[attr-defined]
        sent += len(gone)
        await waiting
    return sent, load.told


async def _metrics(port: int) -> str:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return (await client.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")).decode()


# -- nothing lost --------------------------------------------------------------------------------


def restarts(asked: Asked) -> bool:
    """SIGTERM and a new process on the same port, under load: every accepted request is answered."""
    server = ServerProcess(asked.model)
    port, slowest = server.port, 0.0

    async def run() -> Any:
        nonlocal server, slowest
        load = Load(port, asked.requests)
        for _ in range(20):
            running = asyncio.ensure_future(load.closed(AT_ONCE, 6))
            await asyncio.sleep(0.5)
            code, seconds = await asyncio.to_thread(server.end)
            assert code == 0, f"exit code {code}"
            slowest = max(slowest, seconds)
            server = await asyncio.to_thread(ServerProcess, asked.model, port=port)
            await running
        return load.told

    told = asyncio.run(run())
    server.end()
    print(
        f"20 restarts: {dict(told.counts())}, {told.not_accepted} not accepted; end after <= {slowest:.1f} s"
    )
    return set(told.counts()) == {"200"} and slowest <= 10


def swaps(asked: Asked) -> bool:
    """Two models in turn in the file's place, under load: every answer is whole, and of one of the two."""
    with tempfile.TemporaryDirectory() as folder:
        place, other = Path(folder) / "model.onnx", Path(folder) / "other.onnx"
        shutil.copy(model_file(asked.model), place)
        shutil.copy(certificate_path(model_file(asked.model)), Path(folder) / "certificate.json")
        _turned(place, other)
        files = [other, Path(shutil.copy(place, Path(folder) / "first.onnx"))]
        allowed = [_answers(file, asked.photos) for file in files]

        def right(position: int, reply: bytes) -> bool:
            found = json.loads(reply.partition(b"\r\n\r\n")[2])[0]
            return any(
                found["label"] == each[position][0] and abs(found["score"] - each[position][1]) < 1e-5
                for each in allowed
            )

        with serving(place) as server:
            told, done = asyncio.run(_swapping(server, asked, place, files, right))
    print(f"{done} of 20 models swapped in: {dict(told.counts())}, {told.not_accepted} not accepted")
    return done == 20 and set(told.counts()) == {"200"}


async def _swapping(
    server: ServerProcess,
    asked: Asked,
    place: Path,
    files: Sequence[Path],
    right: Callable[[int, bytes], bool],
) -> tuple[Any, int]:
    load = Load(server.port, asked.requests, check=right)
    running = asyncio.ensure_future(load.closed(AT_ONCE, 45))
    for number in range(20):
        data = files[number % 2].read_bytes()
        certificate = json.dumps(
            {"passed": True, "kind": "float", "sha256": hashlib.sha256(data).hexdigest()}
        )
        for path, content in ((place, data), (place.with_name("certificate.json"), certificate.encode())):
            new = path.with_name("new")
            new.write_bytes(content)
            new.replace(path)
        server.process.send_signal(1)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if server.events("swapped") > number:
                break
    await running
    return load.told, server.events("swapped")


def _turned(model: Path, out: Path) -> None:
    """The same model with its classes named in another order, so that an answer tells which one gave it."""
    import onnx

    changed = onnx.load(model)
    for entry in changed.metadata_props:
        if entry.key == "saccade.classes":
            entry.value = json.dumps(json.loads(entry.value)[::-1])
    onnx.save(changed, out)


def _answers(model: Path, photos: Sequence[bytes]) -> list[tuple[str, float]]:
    artefact = Artefact.open(model, threads=1, verify=False)
    rows = [artefact.probabilities([decode(photo).pixels])[0] for photo in photos]
    return [(artefact.classes[int(row.argmax())], float(row.max())) for row in rows]


def distinct(asked: Asked) -> bool:
    """5,000 different images, 64 connections at once: each reply is the offline answer within 1e-5."""
    images = list(_variants(asked.photos, asked.images))
    artefact = Artefact.open(model_file(asked.model), threads=1)
    with ThreadPoolExecutor(available_cores()) as pool:
        rows = list(pool.map(lambda image: artefact.probabilities([decode(image).pixels])[0], images))
    worst = 0.0

    def right(position: int, reply: bytes) -> bool:
        nonlocal worst
        scores = {entry["label"]: entry["score"] for entry in json.loads(reply.partition(b"\r\n\r\n")[2])}
        found = np.array([scores[label] for label in artefact.classes])
        worst = max(worst, float(np.abs(found - rows[position]).max()))
        return worst <= 1e-5

    async def run(port: int) -> Any:
        requests = [post(image, f"/predict?top_k={len(artefact.classes)}") for image in images]
        load, numbers = Load(port, requests, check=right), iter(range(len(images)))

        async def one() -> None:
            for number in numbers:
                await load.ask(number, time.perf_counter())

        await asyncio.gather(*(one() for _ in range(64)))
        return load.told

    with serving(asked.model) as server:
        told = asyncio.run(run(server.port))
    different = len({row.tobytes() for row in rows})
    print(f"{dict(told.counts())}, {different} different answers; largest difference {worst:.2g}")
    return told.counts() == {"200": asked.images}


def _variants(photos: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Crops of the photos, each another picture."""
    draw = np.random.default_rng(0)
    pixels = [decode(photo).pixels for photo in photos]
    for number in range(count):
        photo = pixels[number % len(pixels)]
        top, left = (int(draw.integers(0, side // 3)) for side in photo.shape[:2])
        file = io.BytesIO()
        Image.fromarray(photo[top : top + photo.shape[0] // 2, left : left + photo.shape[1] // 2]).save(
            file, "JPEG", quality=int(draw.integers(60, 95))
        )
        yield file.getvalue()


def soak(asked: Asked) -> bool:
    """Half of the peak for minutes, with good, bad and large requests: errors, and growth of memory."""
    with serving(asked.model) as server:
        peak = _peak(server, asked)
        mixed = [*asked.requests, post(b"no image"), post(asked.photos[0][:500]), post(b"x" * 10_000_001)]
        memory: list[tuple[float, float]] = []

        async def run() -> Any:
            load = Load(server.port, mixed)
            running = asyncio.ensure_future(load.open(0.5 * peak, 60 * asked.minutes))
            began = time.monotonic()
            while not running.done():
                await asyncio.wait([running], timeout=2)
                memory.append(((time.monotonic() - began) / 60, server.memory()))
            return running.result()

        told = asyncio.run(run())
    settled = [entry for entry in memory if entry[0] > 0.2 * asked.minutes]
    slope = float(np.polyfit(*zip(*settled, strict=True), 1)[0])
    print(f"{asked.minutes:g} min at {0.5 * peak:.0f}/s: {dict(told.counts())}")
    print(f"memory {settled[0][1]:.0f} to {settled[-1][1]:.0f} MB, {slope:+.2f} MB/min")
    return set(told.counts()) == {"200", "400", "413"} and slope < 1


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g}, n = {len(values)})"


PROOFS: dict[str, Callable[[Asked], bool]] = {
    proof.__name__: proof
    for proof in (throughput, tail, overload, restarts, swaps, slow, hangups, distinct, soak, idle)
}

if __name__ == "__main__":
    sys.exit(main())
