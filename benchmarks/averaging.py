"""Averaged weights and mirrored images in fine-tuning, compared in pairs: one training shows all of them.

    python benchmarks/averaging.py DATA --weights FILE --backbone NAME --epochs N \\
        --decays 0.99,0.998 --seeds 0,1,2

Fine-tunes once a seed as `saccade train DATA --method full --epochs N` does (fitted head, then everything at
its rate, schedule and augmentation; early stopping is off, so that all epochs are seen). Beside it, moving
averages of the weights follow each step without changing it. At the end of every epoch a line for each gives
cross-entropy and accuracy on the validation part, as it is and with the mean of the logits of an image and
its mirror image ("flip"). At the end: differences from the raw weights of the same seed, over seeds.

raw          the weights as they are trained
ema D        moving average, decay min(D, (1 + t) / (10 + t)) after step t, as `train.ema_decay = D` has it
ema D plain  moving average, decay D from the first step on

Decays that the warm-up still holds below all of them are one average, written as "ema, any decay": with 32
steps an epoch, 0.99 and 0.998 part after 28 epochs. DATA is anything that `saccade train` takes, best with a
validation part of its own.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

    from saccade.recipe import Recipe
    from saccade.records import Dataset, EpochRow
    from saccade.training.callbacks import TrainingView

RAW, WARMING = "raw", "ema, any decay"


class Figures(NamedTuple):
    """Cross-entropy and accuracy on the validation part, of images and with their mirror images."""

    loss: float
    accuracy: float
    flip_loss: float
    flip_accuracy: float


Curve = list[dict[str, Figures]]  # by epoch of fine-tuning, after that of the head alone


class Shadow:
    """A moving average of the floating-point entries of a network's state."""

    def __init__(self, decay: float, *, warms_up: bool) -> None:
        self.decay, self.warms_up = decay, warms_up
        self.name = f"ema {decay:g}" if warms_up else f"ema {decay:g} plain"
        self.step = 0
        self.live: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}

    def begin(self, network: nn.Module) -> None:
        """Start from the network's present weights."""
        self.live = {name: t for name, t in network.state_dict().items() if t.is_floating_point()}
        self.average = {name: tensor.clone() for name, tensor in self.live.items()}
        self.step = 0

    def follow(self) -> None:
        """After a step: move towards the weights."""
        import torch

        decay = min(self.decay, self.ceiling) if self.warms_up else self.decay
        torch._foreach_lerp_(list(self.average.values()), list(self.live.values()), 1 - decay)
        self.step += 1

    @property
    def ceiling(self) -> float:
        """What the decay of the next step may be at most while it warms up."""
        return (1 + self.step) / (10 + self.step)

    @property
    def is_warming(self) -> bool:
        """Whether its own decay never was in use, so that it is the same for all higher ones."""
        return self.warms_up and self.step / (9 + self.step) <= self.decay


class Followed:
    """The training batches; `moved` is called after each step that was made with one of them."""

    def __init__(self, batches: Any, begin: Callable[[], None], moved: Callable[[], None]) -> None:
        self._batches, self._begin, self._moved = batches, begin, moved

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int) -> Iterator[Any]:
        self._begin()
        for batch in self._batches.epoch(epoch):
            yield batch
            self._moved()  # whoever asks for the next batch has made a step with this one


class Comparison:
    """Shadows that follow one training, and the figures of each at the end of its epochs."""

    def __init__(
        self, network: nn.Module, judge: Callable[[dict[str, Tensor]], Figures], shadows: Sequence[Shadow]
    ) -> None:
        self.network, self.judge, self.shadows = network, judge, shadows
        self.curve: Curve = []

    def begin(self) -> None:
        """Before an epoch of fine-tuning: the first one gives the shadows their weights."""
        for shadow in self.shadows:
            if not shadow.live:
                shadow.begin(self.network)

    def moved(self) -> None:
        for shadow in self.shadows:
            shadow.follow()

    def epoch_end(self, weights: dict[str, Tensor]) -> dict[str, Figures]:
        """Figures by name; equal averages are judged once."""
        found = {RAW: self.judge(weights)}
        for shadow in self.shadows if self.curve else ():
            known = found.get(WARMING) if shadow.is_warming else None
            found[shadow.name] = known or self.judge({**weights, **shadow.average})
            if shadow.is_warming:
                found[WARMING] = found[shadow.name]
        self.curve.append(found)
        return found


def prepared(data: str, recipe: Recipe) -> Dataset:
    """Images read, audited and divided, as `saccade train` does it."""
    from saccade.pipeline import prepare
    from saccade.terminal import Terminal

    quiet = Terminal(quiet=True)
    examined = prepare.examine(prepare.list_data(data, recipe), recipe, quiet)
    return prepare.divide(examined, recipe, quiet).dataset


def judge_of(network: nn.Module, validation: Any, runtime: Any) -> Callable[[dict[str, Tensor]], Figures]:
    """Loads weights into a copy of the network and measures it on the validation batches."""
    from saccade.training.inference import predict_logits
    from saccade.training.losses import log_loss_and_accuracy

    copied = copy.deepcopy(network)
    runtime.place(copied)

    def judge(weights: dict[str, Tensor]) -> Figures:
        copied.load_state_dict(weights)
        logits, labels, _ = predict_logits(copied, validation, runtime)
        mirrored = (batch._replace(images=batch.images.flip(-1)) for batch in validation)
        both = (logits + predict_logits(copied, mirrored, runtime)[0]) / 2
        return Figures(*log_loss_and_accuracy(logits, labels), *log_loss_and_accuracy(both, labels))

    return judge


def compare(dataset: Dataset, recipe: Recipe, shadows: Sequence[Shadow]) -> Curve:
    """One training with its shadows, epoch by epoch."""
    from saccade import building
    from saccade.features.engines import engines_of
    from saccade.methods import METHODS, make_plan
    from saccade.pipeline import batches
    from saccade.run_folder import RunFolder
    from saccade.runtime import Runtime
    from saccade.terminal import Terminal
    from saccade.training.callbacks import Callbacks
    from saccade.training.job import TrainingData, Watch
    from saccade.training.loop import training_job

    quiet = Terminal(quiet=True)
    runtime = Runtime.create(recipe.device, recipe.precision)
    network = building.build_network(dataset, recipe)
    plan = make_plan(recipe, network)
    validation = batches.ValidationBatches(dataset, plan)
    comparison = Comparison(network.module, judge_of(network.module, validation, runtime), shadows)
    with tempfile.TemporaryDirectory() as folder, batches.pixel_cache(plan, quiet) as pixels:
        train = batches.training_batches(dataset, plan, device=runtime.device, pixels=pixels)
        data = TrainingData(
            Followed(train, comparison.begin, comparison.moved),
            lambda: validation,
            dataset.counts("train"),
            len(dataset.used("validation")),
        )
        job = training_job(
            network.module,
            plan,
            data,
            runtime=runtime,
            run=RunFolder(Path(folder)),
            watch=Watch(Callbacks([printer(recipe, comparison)])),
        )
        probe = batches.make_probe(dataset, plan, quiet, lambda: engines_of(network, runtime), pixels)
        result = METHODS[plan.method].train(job, probe)
    for note in result.notes:
        print(f"        {note}", flush=True)
    return comparison.curve


def printer(recipe: Recipe, comparison: Comparison) -> Any:
    """A callback that judges and prints; of the head's fits only the last is the start of fine-tuning."""
    from saccade.training import Callback

    began = time.monotonic()

    class Printer(Callback):
        def on_epoch_end(self, state: TrainingView, row: EpochRow) -> None:
            if row.phase == "head":
                comparison.curve.clear()
            told = comparison.epoch_end(state.weights())
            if row.phase == "head":
                told = {"head alone": told[RAW]}
            for name, figures in told.items():
                if name == WARMING or figures is not told.get(WARMING):
                    print(line(recipe.seed, row, name, figures, time.monotonic() - began), flush=True)

    return Printer()


def line(seed: int, row: EpochRow, name: str, figures: Figures, seconds: float) -> str:
    return (
        f"seed {seed}  epoch {row.epoch:>3}  {name:16}"
        f" loss {figures.loss:.4f}  accuracy {figures.accuracy:.4f}"
        f"  flip: loss {figures.flip_loss:.4f}  accuracy {figures.flip_accuracy:.4f}"
        f"  | training loss {row.train_loss:.4f}  {seconds:6.0f} s"
    )


# -- over seeds ----------------------------------------------------------------------------------------


def summarise(curves: Sequence[Curve], names: Sequence[str]) -> None:
    """Means over seeds at the last epoch and at each one's best, and the paired differences from raw."""
    print(f"\n{len(curves)} seeds; means, in brackets differences from raw without flip: mean, least, most")
    for where, pick in (("last epoch", last_epoch), ("epoch of the lowest loss, each its own", best_epoch)):
        print(f"\n{where}")
        head = statistics.mean(curve[0][RAW].accuracy for curve in curves)
        print(f"  head alone: accuracy {head:.4f}")
        raw = [pick(curve, RAW, flip=False) for curve in curves]
        for name in names:
            for flip in (False, True):
                found = [pick(curve, name, flip=flip) for curve in curves]
                cells = [spread([f[i] for f in found], [r[i] for r in raw]) for i in (0, 1)]
                print(f"  {name:16} {'flip' if flip else '':4}  loss {cells[0]}  accuracy {cells[1]}")


def last_epoch(curve: Curve, name: str, *, flip: bool) -> tuple[float, float]:
    return pair(curve[-1][name], flip=flip)


def best_epoch(curve: Curve, name: str, *, flip: bool) -> tuple[float, float]:
    """Of the epochs of fine-tuning, as the lowest validation loss chooses them."""
    return min(pair(found[name], flip=flip) for found in curve[1:])


def pair(figures: Figures, *, flip: bool) -> tuple[float, float]:
    """(loss, accuracy)."""
    return figures[2:] if flip else figures[:2]


def spread(values: Sequence[float], raw: Sequence[float]) -> str:
    gains = [value - other for value, other in zip(values, raw, strict=True)]
    told = f"{statistics.mean(gains):+.4f}, {min(gains):+.4f}, {max(gains):+.4f}"
    return f"{statistics.mean(values):.4f} ({told})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--decays", default="0.99,0.998")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--no-plain", action="store_true", help="leave out the averages without warm-up")
    options = parser.parse_args()
    from saccade import threads

    threads.calm_openmp()
    from saccade.recipe import Recipe

    recipe = Recipe().replaced(
        model__backbone=options.backbone,
        model__weights=options.weights,
        train__method="full",
        train__epochs=options.epochs,
        train__early_stopping=0,
    )
    dataset = prepared(options.data, recipe)
    counts = ", ".join(f"{len(dataset.used(part)):,} {part}" for part in ("train", "validation"))
    print(f"{options.data}: {counts}; {options.backbone}, {options.epochs} epochs", flush=True)
    kinds = (True,) if options.no_plain else (True, False)
    decays = [(float(decay), warms) for warms in kinds for decay in options.decays.split(",")]
    curves = []
    for seed in options.seeds.split(","):
        shadows = [Shadow(decay, warms_up=warms) for decay, warms in decays]
        curves.append(compare(dataset, recipe.replaced(seed=int(seed)), shadows))
    summarise(curves, [RAW, *(shadow.name for shadow in shadows)])


if __name__ == "__main__":
    main()
