"""Seconds of one full fine-tuning step on a CPU: torch's defaults, tuned torch, and saccade's.

    python benchmarks/train_step.py [--models efficientnet_b0 mobilenetv3_large_100] [--rounds 5]
    python benchmarks/train_step.py --busy 2 --variants default saccade     two busy processes beside it

Random weights, AdamW, a batch that is there already: arithmetic only. Every variant lives in a process of its
own, since OpenMP is set before torch is loaded; rounds are interleaved, one step of each variant in a round.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VARIANTS = {
    "default": "torch as it comes: float32, NCHW",
    "channels_last": "float32, channels-last",
    "bfloat16": "bfloat16 autocast, channels-last",
    "saccade": "saccade: bfloat16, channels-last, fast depthwise backward, calm OpenMP",
}
CLASSES = 10
BUSY_SECONDS_BEFORE = 5.0


# -- the process of one variant -----------------------------------------------------------------------


def serve(variant: str, model: str, batch: int, side: int, *, busy: bool) -> None:
    """Make steps as lines come in on stdin: "step" is answered with its wall and processor seconds."""
    if variant == "saccade":
        from saccade import threads

        if not busy:  # the load average still remembers what ran before; a quiet machine's does not
            threads.machine_is_busy = lambda: False
        threads.calm_openmp()
    step = (
        saccade_step(model, batch, side) if variant == "saccade" else torch_step(variant, model, batch, side)
    )
    step()  # the first builds oneDNN's kernels
    print("ready", os.environ.get("GOMP_SPINCOUNT", "unset"), flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        step()
        print(time.perf_counter() - wall, time.process_time() - processor, flush=True)


def images_and_labels(batch: int, side: int) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    return torch.randn(batch, 3, side, side), torch.arange(batch) % CLASSES


def torch_step(variant: str, model: str, batch: int, side: int) -> Callable[[], None]:
    """A step as one writes it by hand."""
    import timm
    import torch

    network = timm.create_model(model, num_classes=CLASSES).train()
    images, labels = images_and_labels(batch, side)
    if variant != "default":
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=variant == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def saccade_step(model: str, batch: int, side: int) -> Callable[[], None]:
    """The step that `saccade train` makes, on a network that it built."""
    from saccade.methods import plan_training
    from saccade.models import build_model
    from saccade.recipe import Recipe
    from saccade.run_folder import RunFolder
    from saccade.runtime import Runtime
    from saccade.training.cpu.depthwise import fast_depthwise_backward
    from saccade.training.job import TrainingData
    from saccade.training.learner import begin_phase
    from saccade.training.loop import train_step, training_job
    from saccade.transforms.batches import Batch

    recipe = Recipe().replaced(
        train__batch_size=batch, train__optimizer="adamw", precision="bfloat16", model__pretrained=False
    )
    images, labels = images_and_labels(batch, side)
    seen = Batch(images, labels, tuple(f"{index}.png" for index in range(batch)))
    job = training_job(
        build_model(model, CLASSES, pretrained=False, image_size=side).module,
        plan_training(recipe),
        TrainingData([seen], list, {str(label): 1 for label in range(CLASSES)}),  # type: ignore[arg-type]
        runtime=Runtime.create("cpu", "bfloat16"),
        run=RunFolder(Path(tempfile.mkdtemp())),
    )
    job.runtime.place(job.classifier)
    job.classifier.train()
    fast = fast_depthwise_backward(job.classifier)
    fast.__enter__()  # for as long as this process lives
    learner = begin_phase(job, job.plan.phases[0])
    learner.set_rate(1e-4)

    def step(fast: object = fast) -> None:
        with job.runtime.training_arithmetic():
            train_step(learner, seen, 0)

    return step


# -- the rounds ---------------------------------------------------------------------------------------


class Child:
    """A variant's process, warmed up."""

    def __init__(self, variant: str, model: str, batch: int, side: int, busy: int) -> None:
        self.variant = variant
        command = [sys.executable, __file__, "--serve", variant, model, str(batch), str(side), str(busy)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.spins = self.answer().split()[1]

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.variant} ended with {self.process.wait()}")
        return line

    def step(self) -> tuple[float, float]:
        assert self.process.stdin
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        wall, processor = self.answer().split()
        return float(wall), float(processor)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(model: str, options: argparse.Namespace) -> None:
    """One table: seconds of a step, images a second, and how many times the default's speed, by round."""
    busy: list[subprocess.Popen[bytes]] = []
    children: list[Child] = []
    try:
        busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
        time.sleep(BUSY_SECONDS_BEFORE if busy else 0)
        children += [
            Child(variant, model, options.batch, options.side, options.busy) for variant in options.variants
        ]
        rounds = [[child.step() for child in children] for _ in range(options.rounds)]
    finally:
        for process in busy:
            process.kill()
        for child in children:
            child.end()
    beside = f", {options.busy} busy processes beside it" if busy else ""
    print(f"\n{model}, {options.side} px, batches of {options.batch}, {options.rounds} rounds{beside}")
    for column, child in enumerate(children):
        walls = [row[column][0] for row in rounds]
        ratios = [row[0][0] / row[column][0] for row in rounds]
        print(
            f"  {child.variant:14} {spread(walls, '.2f'):24} s a step  "
            f"{options.batch / statistics.median(walls):6.1f} images/s  {spread(ratios, '.2f'):24} x  "
            f"processor {statistics.median(row[column][1] for row in rounds):6.2f} s  spins {child.spins}"
        )


def spread(values: Sequence[float], form: str) -> str:
    """Median, and in brackets the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["efficientnet_b0", "mobilenetv3_large_100"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--busy", type=int, default=0, help="processes that only burn time beside it")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        variant, model, batch, side, busy = options.serve
        serve(variant, model, int(batch), int(side), busy=busy != "0")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the busy processes end with this one
    for model in options.models:
        measure(model, options)


if __name__ == "__main__":
    main()
