"""Seconds of a training step: two processes of one thread each against one process of two threads.

    python benchmarks/several_processes.py [--backbone mobilenetv3_large_100] [--processes 2] [--rounds 10]

Random weights, random images that are there already: arithmetic, sums over processes and words between them.
The two take turns, so that a load of the machine meets both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CLASSES = 10
WARM_UP = 2


class Images:
    """The same batch again and again, of which each process has its rows."""

    shareable = True

    def __init__(self, batch: int, side: int) -> None:
        import torch

        torch.manual_seed(0)
        self.images = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        self.targets = torch.arange(batch) % CLASSES
        self.paths = tuple(f"{index}.png" for index in range(batch))

    def __len__(self) -> int:
        return 1_000

    def epoch(
        self, epoch: int, *, start_batch: int = 0, rows: Callable[[int], Sequence[int]] | None = None
    ) -> Iterator[Any]:
        from saccade.transforms.batches import Batch

        own = self.images if rows is None else self.images[list(rows(len(self.images)))]
        for _ in range(start_batch, len(self)):
            yield Batch(own, self.targets, self.paths)


class NoValidation:
    """The steps are timed."""

    indices: Sequence[int] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def job_of(options: argparse.Namespace, team: Any = None) -> Any:
    from dataclasses import replace

    from saccade.methods import plan_training
    from saccade.models import build_model
    from saccade.recipe import Recipe
    from saccade.run_folder import RunFolder
    from saccade.runtime import Runtime
    from saccade.training.job import TrainingData
    from saccade.training.loop import training_job

    data = TrainingData(
        Images(options.batch, options.side),  # type: ignore[arg-type]
        list,
        {str(label): 1 for label in range(CLASSES)},
        validation_share=lambda number, count: NoValidation(),
    )
    job = training_job(
        build_model(options.backbone, CLASSES, pretrained=False, image_size=options.side).module,
        plan_training(Recipe().replaced(train__batch_size=options.batch, model__pretrained=False)),
        data,
        runtime=Runtime.create("cpu", "float32"),
        run=RunFolder(Path(tempfile.mkdtemp())),
    )
    job.runtime.place(job.classifier)
    phase = replace(job.plan.phases[0], keep_statistics=options.keep_statistics)
    return replace(job.with_phases((phase,)), team=(lambda: team) if team else None)


def settle(threads: int) -> None:
    """Before torch is loaded."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from saccade import threads as threads_module

    threads_module.machine_is_busy = lambda: False
    threads_module.calm_openmp()


def lead(options: argparse.Namespace, processes: int, store: str, told: Connection) -> None:
    """Make a step for each line that comes, and answer with its seconds."""
    settle(max(1, options.threads // processes))
    from saccade.models.finetune import set_training_mode
    from saccade.training.learner import begin_phase
    from saccade.training.loop import train_step
    from saccade.training.sharing import shared

    team = joined(0, processes, store) if processes > 1 else None
    job = job_of(options, team)
    with job.runtime.training_arithmetic(), ExitStack() as together:
        learner = begin_phase(job, job.plan.phases[0])
        learner.set_rate(1e-4)
        set_training_mode(job.classifier, keep_statistics=options.keep_statistics)
        batches = together.enter_context(shared(job, learner)).data.train.epoch(1)
        step = 0
        while told.recv():
            began = time.perf_counter()
            train_step(learner, next(batches), step)
            told.send(time.perf_counter() - began)
            step += 1
    if team:
        team.tell({"do": "end", "code": 0})


def follow(options: argparse.Namespace, number: int, processes: int, store: str) -> None:
    settle(max(1, options.threads // processes))
    from saccade.training.serving import serve
    from saccade.training.team import Over

    team = joined(number, processes, store)
    try:
        serve(job_of(options), team)
    except Over:
        sys.exit(0)


def joined(number: int, processes: int, store: str) -> Any:
    from torch.distributed import FileStore

    from saccade.processes import Place
    from saccade.training.team import Team

    team = Team(Place(number, processes, number))
    team.join(backend="gloo", store=lambda: FileStore(store, processes))
    return team


def start(options: argparse.Namespace, processes: int, store: str) -> tuple[Connection, list[Any]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    started = [context.Process(target=lead, args=(options, processes, store, there))]
    started += [
        context.Process(target=follow, args=(options, number, processes, store))
        for number in range(1, processes)
    ]
    for process in started:
        process.start()
    return here, started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenetv3_large_100")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="in all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keep-statistics", action="store_true", help="of BatchNorm, as fine-tuning does")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kinds = {count: start(options, count, f"{folder}/{count}") for count in (1, options.processes)}
        seconds: dict[int, list[float]] = {count: [] for count in kinds}
        for turn in range(WARM_UP + options.rounds):
            for count, (pipe, _) in kinds.items():
                pipe.send(True)
                took = pipe.recv()
                seconds[count] += [took] * (turn >= WARM_UP)
        for pipe, started in kinds.values():
            pipe.send(False)
            for process in started:
                process.join()
    ratios = [several / one for one, several in zip(*seconds.values(), strict=True)]
    print(f"{options.backbone}, {options.side} px, batches of {options.batch}, {options.rounds} rounds")
    for count, found in seconds.items():
        threads = max(1, options.threads // count)
        print(f"  {count} process(es) of {threads} thread(s): {spread(found)} s a step")
    print(f"  ratio {spread(ratios)}, load average {os.getloadavg()[0]:.1f}")


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
