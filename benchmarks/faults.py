"""Faults of whole small runs, made on purpose: whether the same command still ends with the same weights.

    python -m benchmarks.faults [--only twice checkpoints disk workers nan] [--seed 7]

twice        20 configurations, each run twice: equal weights.
checkpoints  A run is killed in the middle, and one of its checkpoint files cut short, or one bit of it
             flipped (--damages of each kind). It ends with the weights of a run that nothing happened to, or
             refuses that file by name.
disk         A tmpfs is too small for the run, or filled by somebody else at a random instant (--disks of each
             kind; needs root and `unshare`). The run ends with exit code 2 and a word on the space; once
             there is room, the same command ends as if nothing had been.
workers      A loader process is killed at a random instant (--kills): the same weights, at most 10 s later.
nan          Training diverges (--nans): it is stopped, nothing is kept as best, its step is taken again.

Every run is a process of its own, forked from this one, which has imported torch.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.forked import ended, import_what_a_run_needs, in_a_process, write_photos, write_weights

from saccade.run_folder import RunFolder

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "8", "--epochs", "3")
LARGER = ("--backbone", "small_cnn", "--image-size", "72", "--batch-size", "8", "--epochs", "2")
PRETRAINED = (
    "--backbone",
    "test_efficientnet",
    "--weights",
    "WEIGHTS",
    "--image-size",
    "32",
    "--batch-size",
    "8",
)
CONFIGURATIONS = (
    SMALL,
    (*SMALL, "--seed", "3"),
    (*SMALL, "--augment", "strong"),
    (*SMALL, "--augment.mix_up", "0.4"),
    (*SMALL, "--augment.cut_mix", "1"),
    (*SMALL, "--optimizer", "sgd"),
    (*SMALL, "--optimizer", "muon"),
    (*SMALL, "--train.ema_decay", "0.9"),
    (*SMALL, "--schedule", "constant", "--train.swa_epochs", "2"),
    (*SMALL, "--train.accumulate", "2"),
    (*SMALL, "--train.sampling", "balanced", "--train.class_weights", "auto"),
    (*SMALL, "--precision", "bfloat16"),
    (*SMALL, "--loss", "focal", "--train.gradient_clip", "0.5"),
    (*LARGER, "--train.workers", "2"),
    ("--backbone", "fast_cnn", "--image-size", "28", "--batch-size", "8", "--epochs", "2"),
    (*PRETRAINED, "--method", "head"),
    (*PRETRAINED, "--method", "tail", "--epochs", "2"),
    (*PRETRAINED, "--method", "full", "--epochs", "2"),
    (*PRETRAINED, "--method", "finetune", "--epochs", "2"),
    (*PRETRAINED, "--method", "auto"),
)
KILLED, NONE_THERE = "a worker killed", "no worker then"  # which counts for nothing
EXTRA_SECONDS = 10.0  # that a killed worker may cost
SIZES = (20, 3000)  # kilobytes of a disk that is too small


def main() -> int:
    """Print a line a trial and the counts; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    for name, count in (("damages", 20), ("disks", 15), ("kills", 10), ("nans", 5)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--mounted", default="", help=argparse.SUPPRESS)  # in a process that may mount
    chosen = parser.parse_args()
    import_what_a_run_needs()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SACCADE_CACHE"] = f"{folder}/cache"
        bench = Bench(Path(folder), chosen)
        for kind in chosen.only:
            getattr(bench, kind)()
    for fault in bench.faults:
        print(f"  {fault}")
    return 1 if bench.faults else 0


class Bench:
    """All trials, and what went wrong."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        self.folder, self.chosen, self.draw = folder, chosen, random.Random(chosen.seed)
        self.faults: list[str] = []
        self.photos = write_photos(folder / "photos")

    def run(self, name: str, flags: tuple[str, ...], *, below: Path | None = None) -> Run:
        return Run(
            (below or self.folder) / name, ("train", str(self.photos), *flags), self.folder / f"{name}.log"
        )

    def count(self, kind: str, trials: list[str]) -> None:
        """Say how many of the trials ended well; each is what was wrong, or ""."""
        wrong = [f"{kind} {number}: {fault}" for number, fault in enumerate(trials, 1) if fault]
        print(f"{kind}: {len(trials) - len(wrong)} of {len(trials)} well", flush=True)
        self.faults += wrong

    def twice(self) -> None:
        weights = self.folder / "test_efficientnet.safetensors"
        in_a_process(lambda: write_weights(weights))
        trials = []
        for number, flags in enumerate(CONFIGURATIONS):
            words = tuple(str(weights) if word == "WEIGHTS" else word for word in flags)
            hashes = set()
            for again in "ab":
                run = self.run(f"twice{number}{again}", words)
                run.to_the_end()
                hashes.add(run.weights())
                shutil.rmtree(run.run.root)
            trials.append("" if len(hashes) == 1 else f"{' '.join(flags)}: other weights")
            print(f"twice {number + 1:2} {' '.join(hashes)[:12]} {' '.join(flags)}", flush=True)
        self.count("twice", trials)

    def checkpoints(self) -> None:
        straight, killed = self.run("straight", SMALL), self.run("killed", SMALL)
        straight.to_the_end()
        killed.killed_after_epochs(2)
        trials, refused = [], 0
        for number in range(2 * self.chosen.damages):
            run = self.run(f"damaged{number}", SMALL)
            shutil.copytree(killed.run.root, run.run.root)
            file = self.draw.choice(sorted(run.run.checkpoints.iterdir()))
            damage(file, self.draw, cut=bool(number % 2))
            code = run.code()
            named = file.name in run.said()
            refused += code == 2 and named
            fault = (
                ""
                if (code == 0 and run.weights() == straight.weights()) or (code == 2 and named)
                else run.said()
            )
            trials.append(fault and f"{file.name}: exit {code}: {fault[-300:]}")
            shutil.rmtree(run.run.root)
        print(f"checkpoints: {refused} refused by name, the others recovered")
        self.count("checkpoints", trials)

    def disk(self) -> None:
        if not self.chosen.mounted:
            self._disk_where_it_may_mount()
            return
        place = Path(self.chosen.mounted)
        straight = self.run("straight for disk", SMALL)
        seconds = straight.to_the_end()
        trials: list[str] = []
        sites: Counter[str] = Counter()
        for number in range(2 * self.chosen.disks):
            with small_disk(place, 2_000_000 if number % 2 else self._size(number // 2)):
                run = self.run(f"full{number}", SMALL, below=place)
                with (
                    filled_after(place, self.draw.uniform(0, seconds))
                    if number % 2
                    else contextlib.nullcontext()
                ):
                    code = run.code()
                said = run.said()
                subprocess.run(["mount", "-o", "remount,size=2g", place], check=True)
                again = run.code()
                well = (
                    code in (0, 2) and again == 0 and run.weights() == straight.weights() and not run.left()
                )
                worded = code == 0 or "No space left" in said or "for its checkpoints" in said
                sites[site(said) if code else "finished before"] += 1
                trials.append("" if well and worded else f"exit {code}, then {again}: {said[-300:]}")
        print("disk: " + ", ".join(f"{name} {count}" for name, count in sorted(sites.items())))
        self.count("disk", trials)

    def _size(self, number: int) -> int:
        """Kilobytes of disk number `number`."""
        low, high = SIZES
        return round(low * (high / low) ** (number / max(1, self.chosen.disks - 1)))

    def _disk_where_it_may_mount(self) -> None:
        place = self.folder / "disk"
        place.mkdir()
        if (
            shutil.which("unshare") is None
            or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
        ):
            print("disk: left out, it needs the right to mount (root, and `unshare`)")
            return
        words = ["--only", "disk", "--mounted", str(place), "--disks", str(self.chosen.disks)]
        command = ["unshare", "-m", sys.executable, __file__, *words, "--seed", str(self.chosen.seed)]
        if subprocess.run(command).returncode:
            self.faults.append("disk: see above")

    def workers(self) -> None:
        flags = (*LARGER, "--train.workers", "2")
        straight = self.run("with workers", flags)
        seconds, trials = straight.to_the_end(), []
        for number in range(self.chosen.kills):
            run = self.run(f"workers{number}", flags)
            took, found = run.with_a_killed_worker(self.draw, seconds)
            well = found in (KILLED, NONE_THERE) and run.weights() == straight.weights()
            well = well and took < 2 * seconds + EXTRA_SECONDS
            if not (well and found == NONE_THERE):
                trials.append("" if well else f"{found}, {took:.1f} s: {run.said()[-300:]}")
            print(f"workers {number + 1:2} {found}, {took:.1f} s (never killed {seconds:.1f} s)", flush=True)
        self.count("workers", trials)

    def nan(self) -> None:
        trials = []
        for number in range(self.chosen.nans):
            run = self.run(
                f"nan{number}", (*SMALL, "--lr", "1e38", "--seed", str(self.draw.randrange(10**6)))
            )
            code, kept = run.code(), list(run.run.checkpoints.glob("best-*"))
            well = code == 2 and "NaN or infinite" in run.said() and not kept
            again = Run(run.run.root, ("replay", str(run.run.root)), run.log, out=False)
            well = well and again.code() == 0
            trials.append("" if well else f"exit {code}: {run.said()[-300:]}")
        self.count("nan", trials)


class Run:
    """One command in one folder."""

    def __init__(self, root: Path, words: tuple[str, ...], log: Path, *, out: bool = True) -> None:
        self.run, self.log = RunFolder(root), log
        self.words = [*words, "--out", str(root)] if out else list(words)

    def start(self) -> int:
        """The process that runs the command."""
        child = os.fork()
        if not child:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setpgid(0, 0)
            from saccade.cli import main as command

            os._exit(command(self.words))
        return child

    def code(self) -> int:
        """The exit code of the whole command."""
        return ended(self.start())

    def to_the_end(self) -> float:
        """Seconds of a command that ends well."""
        began = time.monotonic()
        code = self.code()
        assert code == 0, f"exit {code}: {self.said()[-500:]}"
        return time.monotonic() - began

    def killed_after_epochs(self, epochs: int) -> None:
        child = self.start()
        while not self.run.history.exists() or len(self.run.history.read_text().splitlines()) < epochs:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL, "it was killed too late"

    def with_a_killed_worker(self, draw: random.Random, seconds: float) -> tuple[float, str]:
        """Seconds of a command of which one process is killed, and whether there was one."""
        began, child, found = time.monotonic(), self.start(), NONE_THERE
        time.sleep(draw.uniform(0.2, 0.9) * seconds)
        if children := children_of(child):
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice(children), signal.SIGKILL)
                found = KILLED
        code = ended(child)
        return time.monotonic() - began, found if code == 0 else f"exit {code}"

    def weights(self) -> str:
        """SHA-256 of the bundle's weights, "" where there is none."""
        file = self.run.weights
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""

    def said(self) -> str:
        return self.log.read_text()

    def left(self) -> list[str]:
        """Temporary files."""
        return [path.name for path in self.run.root.rglob(".*") if path.name != ".lock"]


def children_of(process: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(number) for number in file.read_text().split()]
    return found


def damage(file: Path, draw: random.Random, *, cut: bool) -> None:
    """Cut the file short, or flip one bit of it."""
    data = bytearray(file.read_bytes())
    place = draw.randrange(len(data))
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def site(said: str) -> str:
    """Which file a full disk refused, of a command's output."""
    line = next((line for line in said.splitlines() if line.startswith("error: ")), "")
    name = line.removeprefix("error: ").partition(" cannot be")[0].rpartition("/")[2]
    return "room for checkpoints" if "for its checkpoints" in line else name.rstrip("0123456789") or "unknown"


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """A disk of that size at `place`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def filled_after(place: Path, seconds: float) -> Iterator[None]:
    """Within it somebody fills the disk from that time on; afterwards the space is free again."""
    child = os.fork()
    if not child:
        time.sleep(seconds)
        with open(place / "filler", "wb") as file:
            while True:
                with contextlib.suppress(OSError):
                    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
                    os.posix_fallocate(file.fileno(), file.tell(), max(4096, free))
                    file.seek(0, os.SEEK_END)
                time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
        (place / "filler").unlink(missing_ok=True)


KINDS = ("twice", "checkpoints", "disk", "workers", "nan")

if __name__ == "__main__":
    sys.exit(main())
