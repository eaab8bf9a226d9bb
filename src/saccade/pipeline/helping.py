"""What a helper of process 0 does: build the network of its training, and take part until it ends.

A helper reads images, computes, and writes nothing. It ends with the exit code of process 0, or with 2 where
it cannot go on. No torch when this module is imported: how many threads torch has is settled before.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import extensions
from saccade.errors import RecipeError, RunError, SaccadeError
from saccade.processes import SRUN, TORCHRUN, Place, meeting_port
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder, canonical_sha256
from saccade.signals import STOPPING
from saccade.terminal import Terminal, say_problem
from saccade.threads import calm_openmp
from saccade.workers import end_with_parent

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

    from saccade.plan import Plan
    from saccade.records import Dataset
    from saccade.training.team import Team

FAILED = 2


@dataclass(frozen=True, slots=True)
class Meeting:
    """How the processes find each other: by a file on this machine, or at an address."""

    backend: str
    store: str = ""
    address: str = ""
    threads: int = 0

    @classmethod
    def of_launcher(cls, place: Place, backend: str) -> Meeting:
        if place.launcher == TORCHRUN:
            return cls(backend, address="env://")
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        first = "127.0.0.1" if place.near else SLURMEnvironment.resolve_root_node_address(nodes)
        return cls(backend, address=f"tcp://{first}:{meeting_port()}")

    def join(self, team: Team) -> None:
        team.join(backend=self.backend, store=lambda: self._opened(team.place))

    def _opened(self, place: Place) -> Store:
        """The store in which they meet.

        torchrun has one for all its attempts, where the addresses of the dead still stand: each attempt has
        keys of its own. On several machines torchrun counts attempts on each, so the count is no name there.
        """
        from torch.distributed import FileStore, PrefixStore, rendezvous  # type: ignore[attr-defined]

        from saccade.training.team import MEETING

        if self.store:
            return FileStore(self.store, place.count)
        store, *_ = next(rendezvous(self.address, place.number, place.count, timeout=MEETING))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if place.near else "all"
        return PrefixStore(f"attempt-{attempt}", store)


def settled_device(place: Place, name: str) -> tuple[str, str]:
    """The device of a process, and the backend of sums; raises RecipeError where there are too few GPUs."""
    _load_torch()
    import torch

    from saccade.runtime import device_of

    device = device_of(name, place)
    if not device.startswith("cuda"):
        return device, "gloo"
    gpus = torch.cuda.device_count()
    if not place.launcher and place.count > gpus:
        raise RecipeError(
            f"--devices {place.count}, but this machine has {gpus} GPU{'s' * (gpus > 1)}",
            hint=f"use --devices {gpus}, or --device cpu",
        )
    torch.cuda.set_device(device)
    alone = place.launcher == SRUN or gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", place.count))
    return device, "nccl" if alone else "gloo"  # nccl wants a GPU for each process


def local_helper(place: Place, meeting: Meeting, device: str) -> None:
    """The whole life of a helper that process 0 has started."""
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(meeting.threads)
    calm_openmp()
    sys.exit(help_out(place, meeting, device))


def launched_helper(place: Place, device: str) -> int:
    """The whole life of a helper that torchrun or srun has started."""
    device, backend = settled_device(place, device)
    return help_out(place, Meeting.of_launcher(place, backend), device)


def help_out(place: Place, meeting: Meeting, device: str) -> int:
    """Take part in the trainings of process 0 until it ends; returns its exit code."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # process 0 answers them, and says when all is over
    warnings.simplefilter("ignore")  # process 0 says the same
    _load_torch()
    from saccade.training.team import Over, Team

    team = Team(place, threads=meeting.threads)
    team.remedy = "give the same command again: it goes on from the last checkpoint"
    try:
        meeting.join(team)
        while True:
            _learn(team, team.hear(), device)
    except Over as over:
        team.leave()
        return over.code
    except SaccadeError as error:
        say_problem("error", f"{place}: {error.problem}", hint=error.hint)
        return FAILED
    except Exception as error:
        if os.environ.get("SACCADE_TRACEBACK"):
            raise
        words = " ".join(f"{type(error).__name__}: {error}".split())
        say_problem("error", f"{place}: {words}", hint="SACCADE_TRACEBACK=1 shows more")
        return FAILED


def facts_of(run: RunFolder, dataset: Dataset, recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What a helper needs to build the same training, and by what it sees that it is the same."""
    return {
        "run": str(run.root),
        "data": run.read_record().data,
        "recipe": recipe.to_toml(),
        "classes": list(dataset.classes),
        "same": _marks(dataset, plan),
    }


def _marks(dataset: Dataset, plan: Plan) -> dict[str, str]:
    """Words and the number of decoding processes change nothing."""
    ours = ("train.workers", "model.notes")
    choices = {key: value for key, value in plan.as_json().items() if key not in ours}
    return {"images": dataset.fingerprint(), "plan": canonical_sha256(choices)}


def _learn(team: Team, facts: dict[str, Any], device: str) -> None:
    """Build the network and the batches of a training, and serve it through."""
    from saccade.building import build_network
    from saccade.methods import make_plan
    from saccade.pipeline.batches import ValidationBatches, pixel_cache, training_data
    from saccade.pipeline.prepare import list_data
    from saccade.runtime import Runtime
    from saccade.training import training_job
    from saccade.training.serving import serve

    recipe, run = Recipe.from_toml(facts["recipe"]), RunFolder(Path(facts["run"]))
    _allow_functions(recipe)
    listed = list_data(facts["data"], recipe)
    dataset = dataclasses.replace(listed, records=run.read_dataset(), classes=tuple(facts["classes"]))
    runtime, quiet = Runtime.create(device, recipe.precision), Terminal(quiet=True)
    network = build_network(dataset, recipe)
    plan = make_plan(recipe, network)
    if other := [name for name, mark in _marks(dataset, plan).items() if facts["same"][name] != mark]:
        raise RunError(
            f"the {' and '.join(other)} of the training are not what process 1 has",
            hint="let all processes see the same files, with the same versions of saccade and its packages",
        )
    with pixel_cache(plan, quiet) as pixels:
        validation = ValidationBatches(dataset, plan, _say_nothing)
        data = training_data(dataset, plan, validation, runtime.device, pixels, quiet, team.place.count)
        serve(training_job(network.module, plan, data, runtime=runtime, run=run), team)


def _allow_functions(recipe: Recipe) -> None:
    """Process 0 runs them already, and does so only where the user named them."""
    extensions.allow_function(recipe.model.backbone)
    for name in recipe.augment.from_outside:
        extensions.allow_function(name, "augmentations")


def _load_torch() -> None:
    from saccade.imports import import_training_libraries

    import_training_libraries()


def _say_nothing(text: str) -> None:
    pass
