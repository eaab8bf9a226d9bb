"""A training step of several processes: each computes its rows of the batch, and all add up the gradient.

The batch, its order, its augmentation and its mixing are those of one process. A step sums the gradients of
losses divided by the images of the whole batch, so that the sum is the gradient of the whole batch, however
many rows a process has. Then every process makes the same step with the same optimizer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.errors import TrainingError
from saccade.runtime import draw_seed
from saccade.training.clipping import clip_gradients
from saccade.training.global_batch import GlobalBatch, Rows
from saccade.training.inference import predict_logits
from saccade.training.job import TrainingJob, ValidationShare
from saccade.training.learner import Learner, even_parts
from saccade.training.memory import out_of_memory
from saccade.training.team import Team
from saccade.transforms.batches import Batch
from saccade.transforms.mix import soft_targets


class SharedSource(Protocol):
    """Training batches of which a process can load some rows: images of these, targets and paths of all."""

    def __len__(self) -> int: ...

    def epoch(
        self, epoch: int, *, start_batch: int = 0, rows: Callable[[int], Sequence[int]] | None = None
    ) -> Iterator[Batch]: ...


class Piece(NamedTuple):
    """Rows of a batch that go through the network at once, and those of them that one process computes.

    A piece of fewer images than processes is computed by each of them, and counts once: `counts`.
    """

    whole: range
    rows: range
    counts: bool

    @property
    def shared(self) -> bool:
        return self.rows != self.whole


def pieces(images: int, at_once: int, number: int, processes: int) -> list[Piece]:
    """What process `number` computes of a batch, in the pieces of one process: `at_once` images, 0 for all.

    >>> [list(piece.rows) for piece in pieces(10, 4, 1, 2)]
    [[1, 2], [4, 5], [8, 9]]
    """
    found = []
    for part in even_parts(images, at_once or images):
        whole = range(part.start, part.stop)
        if len(whole) < processes:
            found.append(Piece(whole, whole, number == 0))
            continue
        first, end = (part.start + len(whole) * turn // processes for turn in (number, number + 1))
        found.append(Piece(whole, range(first, end), True))
    return found


@dataclass(slots=True)
class Share:
    """The part of one process in the steps of a phase: its training batches, its step, its validation.

    `at_once`: images in a piece, 0 for the whole batch. `latest`: epoch and number of a batch.
    """

    team: Team
    source: SharedSource
    at_once: int
    validation: ValidationShare
    latest: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.source)

    def epoch(self, epoch: int, *, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, each with the images of this process and the targets and paths of all."""
        batches = self.source.epoch(epoch, start_batch=start_batch, rows=self.rows)
        for number, batch in enumerate(batches, start_batch):
            self.latest = epoch, number
            yield batch

    def rows(self, images: int) -> list[int]:
        """Those of a batch of so many images that this process loads."""
        return [row for piece in self._pieces(images) for row in piece.rows]

    def step(self, learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """As `loop.train_step`: the plain losses (B,) of the whole batch and the number of right answers."""
        if self.team.place.leads:
            self.team.tell(self._word_of_step(learner, step))
        with self.team.exchange():
            losses, plain, right = self._summed(learner, *self._computed(learner, batch, step))
        learner.watch.see(losses, batch.paths)  # each process sees the same, and raises or not
        if learner.plan.optimizer.gradient_clip:
            clip_gradients(learner)
        learner.watch.settle(learner.gradients, batch.paths)
        learner.stepper.step()
        learner.stepper.zero_grad()
        return plain, right

    def whole(self) -> Batch:
        """The latest batch with the images of all, made by this process alone."""
        epoch, number = self.latest
        return next(self.source.epoch(epoch, start_batch=number))

    def logits(
        self, job: TrainingJob, learner: Learner, batches: Callable[[Iterable[Batch]], Iterable[Batch]] = iter
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Logits and labels of the validation part as process 0 has its weights now; each image counts once.

        Every process computes whole batches, those that one process would compute. `batches` watches them.
        """
        if self.team.place.leads:
            self.team.tell({"do": "validate"})
        with self.team.exchange(), _same_weights(job, self.team):
            own = batches(self.validation)
            logits, labels, _ = predict_logits(job.classifier, own, learner.runtime)
            rows = _beside(logits, labels) if len(labels) else logits
            found = self.team.collect(self.validation.indices, rows)
        classes = logits.shape[1]
        answered = found[:, classes:].reshape(-1, *labels.shape[1:]).astype(labels.dtype)
        return found[:, :classes], answered

    def _pieces(self, images: int) -> list[Piece]:
        return pieces(images, self.at_once, self.team.place.number, self.team.place.count)

    def _word_of_step(self, learner: Learner, step: int) -> dict[str, Any]:
        epoch, number = self.latest
        return {
            "do": "step",
            "epoch": epoch,
            "batch": number,
            "step": step,
            "rates": [group["lr"] for group in learner.optimizer.param_groups],
            "done": learner.done,
            "mixed": learner.mixing.on,
            "precision": learner.runtime.precision,
        }

    # -- one step ----------------------------------------------------------------------------------------

    def _computed(self, learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of this process, its losses and plain losses (B,), 0 elsewhere, and its right answers."""
        torch.manual_seed(draw_seed(learner.plan.seed, "step", step))
        images, targets = self._inputs(learner, batch, step)
        total, first = len(batch.paths), 0
        losses, plain = (torch.zeros(total, device=images.device) for _ in range(2))
        right = torch.zeros((), device=images.device)
        for piece in self._pieces(total):
            own = images[first : first + len(piece.rows)]
            first += len(piece.rows)
            span = slice(piece.rows.start, piece.rows.stop)
            with _enough_memory(learner, len(own)):
                with self._as_whole(piece):
                    logits = learner.forward(own)
                if not piece.counts:
                    continue
                found = learner.losses(logits, targets[span])
                learner.runtime.backward(found.sum() / total)
            losses[span] = found.detach()
            plain[span] = learner.plain_losses(logits, targets[span])
            right += learner.right(logits, targets[span])
        return losses, plain, right

    def _inputs(self, learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The images of this process, mixed with those of others where the step mixes, and all targets."""
        images = learner.sized(learner.runtime.images(batch.images))
        targets = soft_targets(batch.targets.to(images.device), learner.classes)
        total = len(batch.paths)
        if not learner.mixing.on or total < 2:
            return images, targets
        rows = torch.tensor(self.rows(total), device=images.device)
        whole = torch.zeros(total, *images.shape[1:], dtype=images.dtype, device=images.device)
        counted = [piece.counts for piece in self._pieces(total) for _ in piece.rows]
        kept = torch.tensor(counted, device=images.device)
        whole[rows[kept]] = images[kept]
        mixed, soft = learner.mixed(self.team.add_up(whole), targets, step)
        return learner.runtime.images(mixed[rows]), soft

    def _as_whole(self, piece: Piece) -> contextlib.AbstractContextManager[Any]:
        if not piece.shared:
            return contextlib.nullcontext()
        start, stop = (row - piece.whole.start for row in (piece.rows.start, piece.rows.stop))
        place = self.team.place
        rows = Rows(start, stop, len(piece.whole), place.number, place.count, self.team.add_up)
        return cast("contextlib.AbstractContextManager[Any]", GlobalBatch(rows))

    def _summed(
        self, learner: Learner, losses: Tensor, plain: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients and figures of the whole batch in place of those of this process."""
        learning = [p for p in learner.classifier.parameters() if p.requires_grad]
        there = torch.tensor([float(p.grad is not None) for p in learning], device=losses.device)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        parts = [*(gradient.reshape(-1).float() for gradient in own), there, losses, plain, right.reshape(1)]
        summed = torch.split(self.team.add_up(torch.cat(parts)), [len(part) for part in parts])
        *gradients, there, losses, plain, right = summed
        for parameter, gradient, anywhere in zip(learning, gradients, there.unbind(), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(gradient.view(parameter.shape))
            elif anywhere > 0:
                parameter.grad = torch.empty_like(parameter).copy_(gradient.view(parameter.shape))
        return losses, plain, right[0]


def _beside(logits: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.float32]:
    """One row an image: logits, then the label (class numbers are exact) or the labels."""
    return np.concatenate([logits, labels.reshape(len(labels), -1).astype(np.float32)], axis=1)


@contextlib.contextmanager
def _enough_memory(learner: Learner, images: int) -> Iterator[None]:
    """What one process does again in smaller pieces, several give up."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory: {images} images at once on {learner.runtime.device}",
            hint="use a smaller train.batch_size (with train.accumulate the step stays as large), or one "
            "process, which finds the number that fits",
        ) from None


@contextlib.contextmanager
def _same_weights(job: TrainingJob, team: Team) -> Iterator[None]:
    """Within it helpers have the weights of process 0, which may be averaged; then their own again."""
    held = list(job.classifier.state_dict().values())
    own = [] if team.place.leads else [tensor.clone() for tensor in held]
    team.spread(held)
    yield
    for tensor, before in zip(held, own, strict=bool(own)):
        tensor.copy_(before)


# -- a phase -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def shared(job: TrainingJob, learner: Learner) -> Iterator[TrainingJob]:
    """The job as several processes learn from it within a phase; as it is where one trains alone.

    Kept activations are learnt from by process 0 alone: their steps are short.
    """
    source = job.data.train
    if job.team is None or job.data.validation_share is None or not getattr(source, "shareable", False):
        yield job
        return
    team = job.team()
    begin_together(team, learner)
    place = team.place
    share = Share(
        team,
        cast("SharedSource", source),
        learner.micro_batch,
        job.data.validation_share(place.number, place.count),
    )
    learner.share = share
    try:
        with team.computing():
            yield replace(job, data=replace(job.data, train=share))
    finally:
        learner.share = None
        if team.clean:
            team.tell({"do": "phase over"})


def begin_together(team: Team, learner: Learner) -> None:
    """Process 0 tells the others what a phase begins with."""
    tensors, numbers = learner.optimizer_state()
    team.tell(
        {
            "do": "phase",
            "phase": asdict(learner.phase),
            "precision": learner.runtime.precision,
            "at_once": learner.micro_batch,
            "numbers": numbers,
            "optimizer": {name: [str(t.dtype), list(t.shape)] for name, t in tensors.items()},
        }
    )
    with team.exchange():
        team.spread([*learner.classifier.state_dict().values(), *tensors.values()])
