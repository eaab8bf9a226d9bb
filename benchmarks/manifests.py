"""A manifest of generated rows: indexed, divided, read back and made larger; seconds and the most memory.

    python benchmarks/manifests.py --rows 10000000

Needs saccade[train,remote]. Nothing is read but the manifest: the listing is generated. Each step is a
process of its own. Images of an item (ten photos on average, one class) are a group; every fiftieth ETag is
that of a photo in another item, every 20,000th that of one in another class.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

CLASSES, PHOTOS = 1000, 10  # classes, photos of an item
PATTERN = r"(item_\d+)"
GROWTH = 0.1
ADDRESS = "s3://bucket/photos"


def generated(rows: int, *, grown: bool) -> Iterator[tuple[str, int, str, int]]:
    """Path, size, ETag and time of each object in the order of the paths; where grown, a tenth is new."""
    rng = np.random.default_rng(0)
    of_class = rows // CLASSES
    for kind in range(CLASSES):
        items = rng.integers(0, max(1, of_class // PHOTOS), of_class)
        items.sort()
        new = rng.random(of_class) < GROWTH / (1 + GROWTH)
        for place, (item, late) in enumerate(zip(items.tolist(), new.tolist(), strict=True)):
            number = kind * of_class + place
            if late and not grown:
                continue
            same = number - 10 * PHOTOS if place > 10 * PHOTOS and number % 50 == 0 else number
            same = number - 3 * of_class if kind > 3 and number % 20_000 == 7 else same
            tag = hashlib.md5(same.to_bytes(8, "big"), usedforsecurity=False).hexdigest()
            yield f"class_{kind:04d}/item_{kind:04d}{item:06d}_{place:07d}.jpg", 50_000, tag, number


# -- steps, each in a process of its own -------------------------------------------------------------------


def index(rows: int, folder: Path, *, grown: bool = False) -> str:
    from saccade.sources import indexing
    from saccade.sources.remote import Listed

    indexing.entries = lambda root: (Listed(*found) for found in generated(rows, grown=grown))
    out = folder / "manifest.parquet"
    indexed = indexing.write_index(ADDRESS, out)
    return f"{indexed.rows:,} rows, {indexed.new:,} new; {out.stat().st_size / 1e6:,.0f} MB"


def grow(rows: int, folder: Path) -> str:
    return index(rows, folder, grown=True)


def read(rows: int, folder: Path) -> str:
    """As `saccade predict` reads it: the inputs, one by one."""
    from saccade.sources.inputs import given_by

    (given,) = given_by([str(folder / "divided.parquet")])
    return f"{sum(1 for _ in given.inputs()):,} inputs"


def check(rows: int, folder: Path) -> str:
    """Groups, and copies, in two parts, counted by pyarrow; shares of the classes."""
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    said = []
    for marks in (["group"], ["etag", "size"]):
        table = parquet.read_table(folder / "divided.parquet", columns=["part", *marks])
        found = table.group_by(marks).aggregate([("part", "count_distinct")])
        across = compute.sum(compute.greater(found["part_count_distinct"], 1)).as_py()
        said.append(f"{len(found):,} by {'+'.join(marks)}, {across or 0} of them in two parts")
        del table, found
    table = parquet.read_table(folder / "divided.parquet", columns=["label", "part"])
    counts = table.group_by(["label", "part"]).aggregate([("part", "count")]).to_pylist()
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    totals: dict[str, int] = {}
    for row in counts:
        totals[row["label"]] = totals.get(row["label"], 0) + row["part_count"]
    off = [abs(row["part_count"] - shares[row["part"]] * totals[row["label"]]) for row in counts]
    return f"{'; '.join(said)}; a class is at most {max(off):.1f} images off its shares"


def compare(rows: int, folder: Path) -> str:
    """Images whose part is another once the manifest has grown: divided anew, and from the earlier list."""
    import pyarrow.parquet as parquet

    def parts(name: str) -> Iterator[tuple[str, str]]:
        with parquet.ParquetFile(folder / name) as file:
            for batch in file.iter_batches(columns=["path", "part"]):
                yield from zip(*(batch.column(i).to_pylist() for i in (0, 1)), strict=True)

    said = []
    for name in ("anew.parquet", "kept.parquet"):
        common = moved = 0
        after = parts(name)
        path = part = ""
        for known, before in parts("divided.parquet"):  # both in the order of the paths
            while path < known:
                path, part = next(after, ("\U0010ffff", ""))
            common += path == known
            moved += path == known and part != before
        said.append(f"{name[:4]}: {moved:,} of {common:,} moved ({moved / common:.2%})")
    return "; ".join(said)


def cli(folder: Path, out: str) -> list[str]:
    words = [
        "split",
        str(folder / "manifest.parquet"),
        "--out",
        str(folder / out),
        "--group-pattern",
        PATTERN,
    ]
    return [sys.executable, "-m", "saccade", *words]


STEPS: dict[str, Callable[[int, Path], str]] = {
    "index": index,
    "read": read,
    "check": check,
    "grow": grow,
    "compare": compare,
}


def run(what: str, command: list[str]) -> None:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}:\n{said}")
    seconds, most = time.perf_counter() - began, used.ru_maxrss / 1e6
    line = " ".join(said.split()) if what in STEPS else ""
    print(f"{what}: {seconds:.0f} s, {most:.2f} GB; {line}", flush=True)
    if what.startswith("split"):
        print("".join(f"    {line[:150]}\n" for line in said.splitlines()), end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_100_000)
    parser.add_argument("--step", choices=STEPS, help="run only this, in --folder")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.step:
        print(STEPS[asked.step](asked.rows, asked.folder))
        return
    print(json.dumps({"python": platform.python_version(), "cores": os.cpu_count(), "rows": asked.rows}))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def step(what: str) -> None:
            run(what, [sys.executable, __file__, "--step", what, "--rows", str(asked.rows), "--folder", name])

        step("index")
        run("split", cli(folder, "divided.parquet"))
        step("read")
        step("check")
        step("grow")
        run("split anew", cli(folder, "anew.parquet"))
        (folder / "kept.parquet").write_bytes((folder / "divided.parquet").read_bytes())
        run("split kept", cli(folder, "kept.parquet"))
        step("compare")


if __name__ == "__main__":
    main()
