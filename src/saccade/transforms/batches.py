"""Batches of images for training (augmented, shuffled) and for evaluation (neither, and no way to).

Order is f(seed, epoch), augmentation f(seed, epoch, image index): the number of worker processes, the cache
and the batch at which a run was stopped change no pixel.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saccade.caches.pixels import PixelCache
from saccade.errors import DataError
from saccade.images.decoder import Limits, read_pixels
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.terminal import warn_caller
from saccade.threads import shared_memory_bytes, usable_cores
from saccade.transforms.apply import channels_first, normalise_rows, to_input
from saccade.transforms.augment import drawn, ready_for_draws
from saccade.transforms.resize import side_by_side
from saccade.transforms.sampling import epoch_visits
from saccade.transforms.stored import How, StoredPixels
from saccade.transforms.strengths import Augmentation
from saccade.workers import end_with_parent, may_have_children

Say = Callable[[str], None]
Rows = Callable[[int], Sequence[int]]  # of a batch of so many images, those that this process makes
T = TypeVar("T")

UNKNOWN_LABEL = -1
FILL_AT_ONCE = 64
# An image that an epoch visits again is augmented as in another epoch: one this much later.
AGAIN_EPOCHS = 1_000_003
BATCHES_AHEAD = 2  # of each worker process
SEMAPHORES_BYTES = 2**15  # in /dev/shm, of each worker process


class Batch(NamedTuple):
    """Images float32 (B, C, S, S), class indices int64 (B,) (-1: no label), and the images' paths.

    Training images are channels last in memory, as convolutions want them.
    """

    images: Tensor
    targets: Tensor
    paths: tuple[str, ...]


def warned(text: str) -> None:
    """Where no one listens, a Python warning."""
    warn_caller(text)


def batch_plan(order: Sequence[T], batch_size: int) -> list[list[T]]:
    """`order` cut into batches; a last batch of one joins the one before (BatchNorm needs two images)."""
    batches = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] += last
    return batches


class TrainingBatches:
    """Augmented batches of training images, epoch by epoch; keeps decoded images and workers between epochs.

    `sampling` says how often an epoch visits the images of a class (`transforms.sampling`).
    Decoded images are kept in `pixels` on disk, where given, else in memory up to `cache_bytes` (0: none).
    Without worker processes, threads make the batches ahead of the caller. With them, a cache in memory is
    filled before they start, so that all share it. Where they cannot go on (no shared memory, one was
    killed), threads do the rest, and `say` is told.
    """

    shareable = True  # among processes, of which each makes some rows of a batch

    def __init__(
        self,
        storage: Storage,
        records: Sequence[ImageRecord],
        classes: Sequence[str],
        preprocess: Preprocess,
        batch_size: int,
        *,
        augmentation: Augmentation,
        seed: int,
        sampling: str = "natural",
        limits: Limits | None = None,
        workers: int = 0,
        cache_bytes: int = 0,
        pixels: PixelCache | None = None,
        say: Say = warned,
    ) -> None:
        self._records = tuple(records)
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._seed, self._sampling = seed, sampling
        self._targets = class_targets(records, classes)
        limits = limits or Limits()
        stored = None
        if pixels:
            how: How = "shrunk" if augmentation.crops_at_random else "evaluated"
            stored = StoredPixels.of(pixels, limits, preprocess, how)
        reader = _Reader(storage, self._records, limits, preprocess, augmentation, cache_bytes, stored)
        self._images = _TrainingImages(reader, augmentation, seed)
        self._loader = _Loader(self._images, workers, say, keep=True)
        self._workers = workers

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(batch_plan(range(len(self._records)), self._batch_size))

    def epoch(self, epoch: int, *, start_batch: int = 0, rows: Rows | None = None) -> Iterator[Batch]:
        """The batches of one epoch from `start_batch` on; raises DataError naming an image that went bad.

        `rows`: the batches have the images of these rows only, and targets and paths of all.
        """
        if self._workers:
            self._images.reader.fill(self._workers)
        visits = epoch_visits(self._targets.tolist(), self._sampling, seed=self._seed, epoch=epoch)
        plan = batch_plan(visits, self._batch_size)[start_batch:]
        made = [batch if rows is None else [batch[row] for row in rows(len(batch))] for batch in plan]
        keys = [[(epoch + AGAIN_EPOCHS * again, index) for index, again in batch] for batch in made]
        for batch, images in zip(plan, self._loader.batches(keys), strict=True):
            indices = [index for index, _ in batch]
            paths = tuple(self._records[index].path for index in indices)
            yield Batch(images, self._targets[indices], paths)


def training_batches(
    storage: Storage,
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    preprocess: Preprocess,
    batch_size: int,
    *,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    start_batch: int = 0,
    limits: Limits | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """One epoch of `TrainingBatches`, nothing kept afterwards."""
    batches = TrainingBatches(
        storage,
        records,
        classes,
        preprocess,
        batch_size,
        augmentation=augmentation,
        seed=seed,
        limits=limits,
        workers=workers,
    )
    return batches.epoch(epoch, start_batch=start_batch)


def evaluation_batches(
    storage: Storage,
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    preprocess: Preprocess,
    batch_size: int,
    *,
    limits: Limits | None = None,
    workers: int = 0,
    say: Say = warned,
) -> Iterator[Batch]:
    """Every record once, in order, as the exported model will see it; raises DataError naming a bad image."""
    records = tuple(records)
    targets = class_targets(records, classes)
    images = _EvaluationImages(storage, records, limits or Limits(), preprocess)
    plan = [
        list(range(start, min(start + batch_size, len(records))))
        for start in range(0, len(records), batch_size)
    ]
    keys = [[(0, index) for index in batch] for batch in plan]
    for indices, inputs in zip(plan, _Loader(images, workers, say).batches(keys), strict=True):
        yield Batch(inputs, targets[indices], tuple(records[index].path for index in indices))


def class_targets(records: Sequence[ImageRecord], classes: Sequence[str]) -> Tensor:
    """int64 (images,) column of each label, -1 where there is none; raises DataError for a foreign label.

    Where an image may have several labels: float32 (images, classes), 1 for each that it has.
    """
    several = any(record.several for record in records)
    column = {label: index for index, label in enumerate(classes)} | ({} if several else {"": UNKNOWN_LABEL})
    foreign = sorted({label for record in records for label in record.labels} - column.keys())
    if foreign:
        raise DataError(
            f"labels that the model does not know: {', '.join(foreign)}; it knows {', '.join(classes)}",
            hint="rename those classes or leave their images out",
        )
    if several:
        targets = torch.zeros(len(records), len(classes))
        for row, record in enumerate(records):
            targets[row, [column[label] for label in record.labels]] = 1
        return targets
    return torch.tensor([column[record.label] for record in records], dtype=torch.int64)


Key = tuple[int, int]  # (epoch, image index)
Loaded = Tensor | DataError  # an error crosses process boundaries as a value, so that its text stays as it is


_KEEPING = threading.Lock()


@dataclass
class _Reader:
    """Training images, made once up to the first random change, then kept: on disk (`stored`), else in memory
    as far as `cache_bytes` allows."""

    storage: Storage
    records: tuple[ImageRecord, ...]
    limits: Limits
    preprocess: Preprocess
    augmentation: Augmentation
    cache_bytes: int
    stored: StoredPixels | None = None
    cache: dict[int, Tensor] = field(default_factory=dict)
    used_bytes: int = 0
    filled: bool = False

    def image(self, index: int) -> Tensor:
        """uint8 (3, height, width), shared: not to be written into."""
        if index in self.cache:
            return self.cache[index]
        record = self.records[index]
        found = self.stored.get(record) if self.stored else None
        if found is not None:
            return found
        image = self._made(index)
        if not (self.stored and self.stored.put(record, image)):
            self._keep(index, image)
        return image

    def fill(self, threads: int) -> None:
        """Decode as many images as the memory holds, before worker processes start and share it."""
        if self.stored or not self.cache_bytes or self.filled:
            return
        self.filled = True
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self.records), FILL_AT_ONCE):
                indices = range(start, min(start + FILL_AT_ONCE, len(self.records)))
                for index, image in zip(indices, pool.map(self._attempt, indices), strict=True):
                    if image is not None and not self._keep(index, image):
                        return

    def _attempt(self, index: int) -> Tensor | None:
        try:
            return self._made(index)
        except DataError:
            return None  # said when a batch asks for it

    def _made(self, index: int) -> Tensor:
        pixels = read_pixels(self.storage, self.records[index], self.limits)
        image = ready_for_draws(channels_first(pixels), self.augmentation, self.preprocess)
        # what is cut out would keep the whole alive, so that is copied
        return side_by_side(image).permute(2, 0, 1)

    def _keep(self, index: int, image: Tensor) -> bool:
        with _KEEPING:
            if index in self.cache or self.used_bytes + image.nbytes > self.cache_bytes:
                return index in self.cache
            self.cache[index] = image
            self.used_bytes += image.nbytes
        return True


@dataclass
class _TrainingImages(Dataset[Loaded]):
    reader: _Reader
    augmentation: Augmentation
    seed: int

    def __getitem__(self, key: Key) -> Loaded:
        """uint8 (S, S, 3)."""
        epoch, index = key
        try:
            image = drawn(
                self.reader.image(index),
                self.augmentation,
                seed=self.seed,
                epoch=epoch,
                index=index,
                preprocess=self.reader.preprocess,
            )
        except DataError as error:
            return error
        return side_by_side(image)

    def batch(self, keys: Sequence[Key]) -> Loaded:
        """float32 (B, 3, S, S), channels last in memory."""
        side, channels = self.reader.preprocess.size, self.reader.preprocess.pixels.count
        ready = torch.empty(len(keys), side, channels * side)
        for key, out in zip(keys, ready, strict=True):
            image = self[key]
            if isinstance(image, DataError):
                return image
            normalise_rows(image, self.reader.preprocess, out=out)  # while it lies in the processor's cache
        return ready.view(-1, side, side, channels).permute(0, 3, 1, 2)

    @property
    def item_bytes(self) -> int:
        """Of an image that a worker process hands over."""
        pixels = self.reader.preprocess.pixels
        return pixels.count * self.reader.preprocess.size**2 * (1 if pixels.bits == 8 else 4)

    def received(self, images: Tensor) -> Tensor:
        """A batch from a worker process, which hands over bytes, as `batch` would make it."""
        return normalise_rows(images, self.reader.preprocess).view(images.shape).permute(0, 3, 1, 2)


@dataclass
class _EvaluationImages(Dataset[Loaded]):
    storage: Storage
    records: tuple[ImageRecord, ...]
    limits: Limits
    preprocess: Preprocess

    def __getitem__(self, key: Key) -> Loaded:
        try:
            return to_input(read_pixels(self.storage, self.records[key[1]], self.limits), self.preprocess)
        except DataError as error:
            return error

    def batch(self, keys: Sequence[Key]) -> Loaded:
        """float32 (B, 3, S, S)."""
        return _stack([self[key] for key in keys])

    @property
    def item_bytes(self) -> int:
        return 4 * self.preprocess.pixels.count * self.preprocess.size**2

    def received(self, images: Tensor) -> Tensor:
        return images


class _Keys:
    """A batch sampler whose plan can be changed between epochs while workers stay alive."""

    def __init__(self) -> None:
        self.plan: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


class _Loader:
    """Makes batch by batch, in threads of this process or in `workers` others, which `keep` leaves alive."""

    def __init__(
        self, images: _TrainingImages | _EvaluationImages, workers: int, say: Say, *, keep: bool = False
    ) -> None:
        self._images = images
        self._workers = workers if may_have_children() else 0
        self._say = say
        self._keep = keep
        self._keys = _Keys()
        self._loader: DataLoader[Loaded] | None = None

    def batches(self, plan: list[list[Key]]) -> Iterator[Tensor]:
        """A float32 batch (B, 3, S, S) for each list of keys."""
        problem: DataError | None = None
        with contextlib.closing(self._made(plan)) as made:
            for batch in made:
                if isinstance(batch, DataError):
                    problem = batch
                    break
                yield batch
        if problem:
            # Workers are stopped here: caught in the error's traceback, they would be waited for (5 s each).
            self._loader = None
            raise problem

    def _made(self, plan: list[list[Key]]) -> Generator[Loaded, None, None]:
        """From processes; what they cannot make, from threads, pixel for pixel the same."""
        given = 0
        if self._workers and not self._loader:
            self._require_shared_memory(plan)
        if self._workers:
            try:
                for batch in self._from_processes(plan):
                    yield batch
                    given += 1
            except (RuntimeError, OSError) as error:
                first_line = str(error).partition("\n")[0]
                self._go_without_workers(f"worker processes ended ({first_line})")
        if not self._workers:
            yield from _ahead(self._images.batch, plan[given:])

    def _require_shared_memory(self, plan: list[list[Key]]) -> None:
        """Worker processes hand batches over in /dev/shm, of which a container has 64 MB by default."""
        batch_bytes = max(map(len, plan), default=0) * self._images.item_bytes
        needed = (self._workers * BATCHES_AHEAD + 2) * batch_bytes + self._workers * SEMAPHORES_BYTES
        if shared_memory_bytes() < needed:
            self._go_without_workers(
                f"/dev/shm is too small for {self._workers} worker processes, which need "
                f"{needed / 1e6:.0f} MB there (docker run --shm-size=1g gives more)"
            )

    def _go_without_workers(self, reason: str) -> None:
        self._workers, self._loader = 0, None
        self._say(f"{reason}; threads load the images instead, the result is the same")

    def _from_processes(self, plan: list[list[Key]]) -> Generator[Loaded, None, None]:
        self._keys.plan = plan
        self._loader = self._loader or DataLoader(
            self._images,
            batch_sampler=self._keys,
            num_workers=self._workers,
            prefetch_factor=BATCHES_AHEAD,
            collate_fn=_shared_stack,
            persistent_workers=self._keep,
            worker_init_fn=_start_worker,
        )
        for batch in _started(self._loader):
            if isinstance(batch, str):
                raise RuntimeError(batch)
            yield self._images.received(batch) if isinstance(batch, Tensor) else batch


def _started(loader: DataLoader[Loaded]) -> Iterator[Loaded | str]:
    """The loader's batches. torch would raise for a dead worker wherever the program is then: here it is
    found while its batch is waited for."""
    if not hasattr(signal, "SIGCHLD"):  # Windows
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches: Iterator[Loaded | str] = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return batches


def _start_worker(number: int) -> None:
    end_with_parent()


def _ahead(make: Callable[[list[Key]], Loaded], plan: Sequence[list[Key]]) -> Generator[Loaded, None, None]:
    """`make` of each list of keys, in order, each by a thread on one core, a few batches ahead."""
    threads = min(usable_cores(), len(plan))
    if not threads:
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "batches", initializer=torch.set_num_threads, initargs=(1,))
    flying: deque[Future[Loaded]] = deque()
    waiting = iter(plan)
    try:
        for keys in itertools.islice(waiting, threads + 1):
            flying.append(pool.submit(make, keys))
        while flying:
            made = flying.popleft().result()
            following = next(waiting, None)
            if following is not None:
                flying.append(pool.submit(make, following))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # threads that start later take the number set last


def _stack(items: Sequence[Loaded]) -> Loaded:
    for item in items:
        if isinstance(item, DataError):
            return item
    return torch.stack([item for item in items if isinstance(item, Tensor)])


def _shared_stack(items: Sequence[Loaded]) -> Loaded | str:
    """A batch in shared memory, or why that cannot be.

    Left to torch, it is shared by a thread that loses the batch where /dev/shm is full: the parent then waits
    for ever.
    """
    batch = _stack(items)
    try:
        if isinstance(batch, Tensor):
            batch.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return str(error)
    return batch
