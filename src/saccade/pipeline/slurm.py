"""The batch file of a training on SLURM: `saccade train ... --slurm-script FILE`, then `sbatch FILE`."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from saccade.errors import RecipeError
from saccade.processes import threads_each
from saccade.recipe import Recipe
from saccade.run_folder import write_text
from saccade.terminal import Terminal

OWN_FLAGS = ("--slurm-script", "--devices")  # not for the command in the file: SLURM says how many there are
SPARE_SECONDS = 120  # above the command's own limit: to start, and to stop before the signal
SIGNAL_SECONDS = 60  # between SIGTERM and the end of the job
STOPPED = 143  # exit code after SIGTERM
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # one of them is there on a Linux machine with a GPU


def write_slurm_script(
    target: str, words: Sequence[str], recipe: Recipe, terminal: Terminal, *, processes: int, run: str
) -> None:
    """Write the batch file; `words` are those after `saccade`, `run` the folder that they name.

    Raises RecipeError for a name that is a folder.
    """
    file = Path(target)
    if file.is_dir():
        raise RecipeError(f"--slurm-script {target} is a folder", hint="give the name of a file in it")
    write_text(file, slurm_script(words, recipe, processes=processes, run=run, gpus=_has_gpus(recipe)))
    terminal.say(f"Written   {target}; start it: sbatch {shlex.quote(target)}")


def slurm_script(words: Sequence[str], recipe: Recipe, *, processes: int, run: str, gpus: bool) -> str:
    """One node, a task for each process; what was stopped by SIGTERM goes back into the queue."""
    limit = recipe.train.time_limit
    headers = [
        f"--job-name={_plain(Path(run).name)}",
        "--nodes=1",
        f"--ntasks={processes}",
        f"--cpus-per-task={threads_each(processes)}",
        *(["--gpus-per-task=1"] if gpus else []),
        *([f"--time={_as_time(limit + SPARE_SECONDS)}"] if limit else []),
        f"--signal=TERM@{SIGNAL_SECONDS}",
        "--requeue",
        "--open-mode=append",
    ]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {header}" for header in headers),
        "",
        "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
        "export SLURM_KILL_BAD_EXIT=1  # where one process ends, the others do",
        f"srun saccade {shlex.join(without_own_flags(words))}",
        "code=$?",
        f'if [ "$code" -eq {STOPPED} ]; then scontrol requeue "$SLURM_JOB_ID"; fi  # it goes on from there',
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def without_own_flags(words: Sequence[str]) -> list[str]:
    """The command as it stands in the batch file.

    >>> without_own_flags(["train", "photos", "--devices", "2", "--slurm-script=job.sh", "--out", "runs/a"])
    ['train', 'photos', '--out', 'runs/a']
    """
    kept, skip = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if skip or name in OWN_FLAGS:
            skip = not skip and not equals
        else:
            kept.append(word)
    return kept


def _as_time(seconds: float) -> str:
    """As sbatch reads it, in whole minutes.

    >>> _as_time(3720), _as_time(90_001)
    ('01:02:00', '25:01:00')
    """
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name) or "saccade"


def _has_gpus(recipe: Recipe) -> bool:
    """Whether the processes want a GPU each: as asked for, or as this machine has them."""
    if recipe.device != "auto":
        return recipe.device.startswith("cuda")
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in DRIVERS):
        return False  # known without torch, which takes seconds to load
    from saccade.runtime import resolve_device

    return resolve_device("auto").type == "cuda"
