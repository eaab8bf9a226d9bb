"""Images in a bucket beside the same images in a folder: speed, equal results, kill -9, and a manifest.

    python benchmarks/remote.py                     2,000 photos on moto's S3 server, on this machine
    python benchmarks/remote.py --rows 10000000     only the manifest of so many generated rows

Needs saccade[train,remote], moto[s3], flask and flask-cors. Every command is a process of its own, imports
included; the server runs on the same cores.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

KEY, SECRET = "AKIABENCHMARKKEY0000", "the-secret/of+the+benchmark"
CLASSES = ("beech", "birch", "maple", "oak", "pine")
ADDRESS = "s3://images/photos"
EQUAL = ("dataset.csv", "bundle/weights.safetensors", "predictions/test.csv", "metrics/test.json")


def write_photos(root: Path, images: int, side: int = 256) -> None:
    """JPEG files that look a little like photos: large shapes of a class's colour, light, noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    for number in range(images):
        kind = number % len(CLASSES)
        ground = Image.fromarray(rng.integers(0, 200, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        pixels = np.asarray(ground).astype(float)
        at, turn = rng.uniform(0.3, 0.7, 2), rng.uniform(0, np.pi)
        waves = np.sin((4 + 5 * kind) * ((x - at[0]) * np.cos(turn) + (y - at[1]) * np.sin(turn)))
        pixels[..., kind % 3] += 70 * waves
        pixels += rng.normal(0, 6, pixels.shape)
        path = root / CLASSES[kind] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=88)


class Server:
    """moto's S3 server; its objects are gone once it is killed."""

    def __init__(self, photos: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.photos = photos
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{self.port}",
            AWS_REGION="us-east-1",
            AWS_ACCESS_KEY_ID=KEY,
            AWS_SECRET_ACCESS_KEY=SECRET,
        )
        self.start()

    def start(self) -> float:
        """Begin, with the photos put there; seconds that putting took."""
        import obstore
        from obstore.store import S3Store

        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        import urllib.request

        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request"}
        made = urllib.request.Request(f"http://127.0.0.1:{self.port}/images", headers=signed, method="PUT")
        urllib.request.urlopen(made).close()
        began = time.perf_counter()
        store = S3Store("images", client_options={"allow_http": True})
        files = [path for path in self.photos.rglob("*") if path.is_file()]

        def put(path: Path) -> None:
            obstore.put(store, f"photos/{path.relative_to(self.photos).as_posix()}", path.read_bytes())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, files))
        return time.perf_counter() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def run(*words: object, cache: Path | None = None, code: Sequence[int] = (0, 1)) -> tuple[float, str]:
    """One command: seconds, and all that it said."""
    environment = {**os.environ, **({"SACCADE_CACHE": str(cache)} if cache else {})}
    began = time.perf_counter()
    command = [sys.executable, "-m", "saccade", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode not in code:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return time.perf_counter() - began, said


def row(what: str, folder: str, bucket: str) -> None:
    print(f"| {what} | {folder} | {bucket} |", flush=True)


def rates(photos: Path) -> None:
    """Objects a second: listed, and read by one and by eight threads."""
    from saccade.sources.remote import RemoteStorage, listed
    from saccade.sources.storage import FolderStorage

    began = time.perf_counter()
    paths = [found.path for found in listed(ADDRESS)]
    row("listed", "", f"{len(paths) / (time.perf_counter() - began):,.0f}/s")
    for threads in (1, 8):
        took = []
        for storage in (FolderStorage(photos), RemoteStorage(ADDRESS)):
            began = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(storage.read, paths))
            took.append(f"{len(paths) / (time.perf_counter() - began):,.0f}/s")
        row(f"read, {threads} thread{'s' * (threads > 1)}", *took)


def commands(photos: Path, work: Path) -> None:
    """audit, split, train: seconds, and whether the results are the same."""
    caches = {name: work / f"cache-{name}" for name in ("folder", "bucket")}
    data = {"folder": photos, "bucket": ADDRESS}
    for what in ("audit", "audit again"):
        row(what, *(f"{run('audit', data[name], cache=caches[name])[0]:.1f} s" for name in data))
    row(
        "split",
        *(f"{run('split', data[n], '--out', work / f'{n}.csv', cache=caches[n])[0]:.1f} s" for n in data),
    )
    same = [[*csv.reader((work / f"{name}.csv").open())] for name in data]
    assert [r[1:] for r in same[0]] == [r[1:] for r in same[1]], "the splits differ"
    words = ("--method", "head", "--image-size", "128")
    trained = [run("train", data[n], "--out", work / n, *words, cache=caches[n]) for n in data]
    row("train --method head", *(f"{seconds:.1f} s" for seconds, _ in trained))
    for file in EQUAL:
        assert (work / "folder" / file).read_bytes() == (work / "bucket" / file).read_bytes(), file
    first = run("index", ADDRESS, "--out", work / "manifest.parquet", "--hash")[0]
    again = run("index", ADDRESS, "--out", work / "manifest.parquet", "--hash")[0]
    row("index --hash; again", "", f"{first:.1f} s; {again:.1f} s")
    print(f"equal byte for byte: {', '.join(EQUAL)}; split.csv row by row")


def killed(server: Server, photos: Path, work: Path) -> None:
    """Commands whose client or whose server is killed in their midst: the same command goes on."""
    model, head = work / "folder", ("--method", "head", "--image-size", "128")
    run("audit", photos, "--out", work / "here", cache=work / "cache-here")
    run("predict", model, photos, "--out", work / "here.csv")
    wanted = (work / "here.csv").read_text("utf-8").replace(str(photos), ADDRESS)
    for victim in ("client", "server"):
        out, cache = work / f"{victim}-audit", work / f"cache-{victim}"
        scanned = cache / "scan.sqlite-wal"
        said = _killed(server, victim, cache, _larger(scanned, 300_000), "audit", ADDRESS, "--out", out)
        same = _findings(out, ADDRESS) == _findings(work / "here", str(photos))
        print(f"audit, {victim} killed while images are read: {said}; equal: {same}", flush=True)
        out = work / f"{victim}-run"
        reading = _later(_larger(out / "recipe.toml", 0), 2.0)
        said = _killed(server, victim, cache, reading, "train", ADDRESS, "--out", out, *head)
        same = all((out / file).read_bytes() == (work / "folder" / file).read_bytes() for file in EQUAL)
        print(f"train, {victim} killed in training: {said}; equal: {same}", flush=True)
        out = work / f"{victim}.csv"
        begun = _larger(out.with_name(f"{out.name}.unfinished"), 20_000)
        said = _killed(server, victim, cache, begun, "predict", model, ADDRESS, "--out", out)
        same = out.read_text("utf-8") == wanted
        print(f"predict, {victim} killed: {said}; equal: {same}", flush=True)


def _killed(
    server: Server, victim: str, cache: Path, in_its_midst: Callable[[], bool], *words: object
) -> str:
    """Run, kill, run again until the end; what happened."""
    environment = {**os.environ, "SACCADE_CACHE": str(cache)}
    command = [sys.executable, "-m", "saccade", *map(str, words)]
    client = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    while client.poll() is None and not in_its_midst():
        time.sleep(0.01)
    assert client.poll() is None, f"{' '.join(command)} ended too early"
    if victim == "client":
        os.kill(client.pid, signal.SIGKILL)
    else:
        server.kill()
    said = client.communicate()[0]
    if victim == "server":
        assert "does not answer" in said, said
        server.start()
    seconds, again = run(*words, cache=cache)
    lines = (line.partition(":")[0] for line in again.splitlines())
    went_on = next((line for line in lines if "going on" in line or "continues" in line), "")
    return f"exit {client.returncode}; then {seconds:.0f} s{', ' * bool(went_on)}{went_on}"


def _larger(file: Path, size: int) -> Callable[[], bool]:
    return lambda: file.exists() and file.stat().st_size > size


def _later(condition: Callable[[], bool], seconds: float) -> Callable[[], bool]:
    """Once it has been so for that long."""
    since: list[float] = []

    def later() -> bool:
        if not since and condition():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return later


def _findings(folder: Path, root: str) -> str:
    return json.dumps(json.loads((folder / "audit.json").read_text())["findings"]).replace(root, "")


def secrets(work: Path) -> None:
    found = [path for path in work.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    print(f"files with the secret among all that was written: {len(found)}")


def manifest(rows: int) -> None:
    """A manifest of generated rows: seconds and the most memory."""
    from saccade.sources import indexing
    from saccade.sources.remote import Listed

    def generated(root: str) -> Iterator[Listed]:
        for number in range(rows):
            tag = hashlib.md5(number.to_bytes(8, "big"), usedforsecurity=False).hexdigest()
            kind = number * 1000 // rows
            yield Listed(f"class_{kind:04d}/photo_{number:09d}.jpg", 50_000 + number % 9999, tag, number)

    indexing.entries = generated
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "manifest.parquet"
        for what in ("index", "index again"):
            began = time.perf_counter()
            indexed = indexing.write_index("s3://bucket/photos", out)
            seconds = time.perf_counter() - began
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"{what}: {indexed.rows:,} rows, {indexed.unchanged:,} unchanged; {seconds:.0f} s; at most "
                f"{most:.2f} GB of memory; {out.stat().st_size / 1e6:,.0f} MB",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=0)
    asked = parser.parse_args()
    print(json.dumps({"python": platform.python_version(), "cores": os.cpu_count()}))
    if asked.rows:
        manifest(asked.rows)
        return
    work = Path(tempfile.mkdtemp(prefix="remote-"))
    photos = work / "photos"
    write_photos(photos, asked.images)
    server = Server(photos)
    try:
        print("| | folder | bucket |\n|---|---|---|")
        rates(photos)
        commands(photos, work)
        killed(server, photos, work)
        secrets(work)
    finally:
        server.kill()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
