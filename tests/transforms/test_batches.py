from __future__ import annotations

import hashlib
import inspect
import multiprocessing
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.caches.pixels import PixelCache
from saccade.errors import DataError
from saccade.images.decoder import Limits, decode, read_pixels
from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig
from saccade.records import ImageRecord
from saccade.sources.storage import FolderStorage
from saccade.transforms import Augmentation, TrainingBatches, evaluation_batches, to_input, training_batches
from saccade.transforms import batches as batches_module
from saccade.transforms.batches import UNKNOWN_LABEL, batch_plan
from saccade.transforms.resize import shrink
from saccade.transforms.sampling import epoch_order
from saccade.transforms.stored import StoredPixels

CLASSES = ("bar", "checker", "disc")
PREPROCESS = Preprocess(24)
STRONG = Augmentation.from_config(AugmentConfig(policy="strong"))


@pytest.fixture
def photos(make_photos) -> tuple[FolderStorage, list[ImageRecord]]:
    root = make_photos(images=5, side=40)
    paths = sorted(root.rglob("*.png"))
    records = [ImageRecord(path.relative_to(root).as_posix(), path.parent.name) for path in paths]
    return FolderStorage(root), records


def training(photos, **settings) -> TrainingBatches:
    storage, records = photos
    settings = {"augmentation": STRONG, "seed": 3, **settings}
    return TrainingBatches(storage, records, CLASSES, PREPROCESS, 4, **settings)


def flat(batches) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    images, targets, paths = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(targets), [path for group in paths for path in group]


def same(first, second) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1]) and first[2] == second[2]


def test_an_epoch_visits_every_image_once_with_its_label(photos):
    images, targets, paths = flat(training(photos).epoch(0))
    assert images.shape == (15, 3, 24, 24)
    assert images.dtype == torch.float32
    assert sorted(paths) == sorted(record.path for record in photos[1])
    assert [CLASSES[i] for i in targets] == [path.split("/")[0] for path in paths]


@pytest.mark.parametrize("policy", ["none", "light", "strong"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_images_are_channels_last_in_memory(photos, policy, workers):
    chosen = Augmentation.from_config(AugmentConfig(policy=policy))
    batch = next(training(photos, augmentation=chosen, workers=workers).epoch(0))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_order_and_pixels_are_f_of_seed_and_epoch(photos):
    first = flat(training(photos).epoch(1))
    assert same(first, flat(training(photos).epoch(1)))
    assert first[2] != flat(training(photos).epoch(2))[2]
    assert first[2] != flat(training(photos, seed=4).epoch(1))[2]


@pytest.mark.parametrize("cache_bytes", [0, 10_000_000])
def test_worker_processes_change_nothing(photos, cache_bytes):
    alone = training(photos)
    helped = training(photos, workers=2, cache_bytes=cache_bytes)
    for epoch in (0, 1):
        assert same(flat(alone.epoch(epoch)), flat(helped.epoch(epoch)))


@pytest.mark.parametrize("cache_bytes", [0, 20_000, 10_000_000])
def test_the_cache_changes_nothing_and_keeps_its_bound(photos, cache_bytes):
    cached = training(photos, cache_bytes=cache_bytes)
    for epoch in (0, 1):
        assert same(flat(cached.epoch(epoch)), flat(training(photos).epoch(epoch)))
    reader = cached._images.reader
    held = sum(image.nbytes for image in reader.cache.values())
    assert held == reader.used_bytes <= cache_bytes
    assert len(reader.cache) == {0: 0, 20_000: 5, 10_000_000: 15}[cache_bytes]


def test_a_cached_image_is_not_read_again(photos):
    cached = training(photos, cache_bytes=10_000_000)
    first = flat(cached.epoch(0))
    for record in photos[1]:
        (photos[0].root / record.path).unlink()
    assert same(first, flat(cached.epoch(0)))


def test_an_epoch_can_start_in_its_middle(photos):
    whole = list(training(photos).epoch(2))
    rest = list(training(photos).epoch(2, start_batch=2))
    assert len(whole) == len(training(photos)) == 4
    assert len(rest) == 2
    assert same(flat(whole[2:]), flat(rest))


def test_the_function_gives_the_same_as_the_class(photos):
    storage, records = photos
    once = training_batches(
        storage, records, CLASSES, PREPROCESS, 4, augmentation=STRONG, seed=3, epoch=5, start_batch=1
    )
    assert same(flat(once), flat(training(photos).epoch(5, start_batch=1)))


def test_a_last_batch_of_one_joins_the_one_before():
    assert [len(batch) for batch in batch_plan(range(9), 4)] == [4, 5]
    assert [len(batch) for batch in batch_plan(range(10), 4)] == [4, 4, 2]
    assert [len(batch) for batch in batch_plan(range(3), 1)] == [1, 1, 1]
    assert batch_plan(range(1), 4) == [[0]]
    assert batch_plan(range(0), 4) == []
    plan = batch_plan(epoch_order(9, seed=0, epoch=0), 4)
    assert sorted(index for batch in plan for index in batch) == list(range(9))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_is_visited_again_is_augmented_anew(photos, workers):
    storage, records = photos
    uneven = (storage, [*records[:5], *records[5:6], *records[10:11]])  # 5, 1 and 1 of a class
    images, targets, paths = flat(training(uneven, sampling="balanced", workers=workers).epoch(0))
    assert len(images) == 7
    assert sorted(targets.bincount().tolist()) == [2, 2, 3]
    seen = [image for image, path in zip(images, paths, strict=True) if path == records[5].path]
    assert len(seen) >= 2
    assert not torch.equal(seen[0], seen[1])
    rest = flat(training(uneven, sampling="balanced").epoch(0, start_batch=1))
    assert same(rest, (images[4:], targets[4:], paths[4:])), "a run that was stopped goes on alike"


def test_promise_2_evaluation_sees_each_image_as_it_is(photos):
    storage, records = photos
    images, targets, paths = flat(evaluation_batches(storage, records, CLASSES, PREPROCESS, 4))
    assert paths == [record.path for record in records]
    assert [CLASSES[i] for i in targets] == [record.label for record in records]
    for image, path in zip(images, paths, strict=True):
        assert torch.equal(image, to_input(decode(storage.read(path)).pixels, PREPROCESS))
    assert not set(inspect.signature(evaluation_batches).parameters) & {"augmentation", "seed", "epoch"}


def test_evaluation_with_workers_is_the_same(photos):
    storage, records = photos
    alone = flat(evaluation_batches(storage, records, CLASSES, PREPROCESS, 4))
    assert same(alone, flat(evaluation_batches(storage, records, CLASSES, PREPROCESS, 4, workers=2)))


def test_images_without_label_and_foreign_labels(photos):
    storage, records = photos
    unknown = [ImageRecord(record.path, "") for record in records]
    _, targets, _ = flat(evaluation_batches(storage, unknown, CLASSES, PREPROCESS, 4))
    assert set(targets.tolist()) == {UNKNOWN_LABEL}
    with pytest.raises(DataError, match=r"does not know: disc; it knows bar, checker"):
        list(evaluation_batches(storage, records, CLASSES[:2], PREPROCESS, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_bad_is_named(photos, workers):
    storage, records = photos
    spoiled = records[7].path
    (storage.root / spoiled).write_bytes(b"gone")
    with pytest.raises(DataError, match=rf"^{spoiled}: .*changed since") as raised:
        list(training(photos, workers=workers).epoch(0))
    assert "Traceback" not in str(raised.value)
    with pytest.raises(DataError, match=spoiled):
        list(evaluation_batches(storage, records, CLASSES, PREPROCESS, 4, workers=workers))


def test_workers_are_gone_right_after_an_error(photos):
    (photos[0].root / photos[1][7].path).write_bytes(b"gone")
    batches = training(photos, workers=2)
    with pytest.raises(DataError):
        list(batches.epoch(0))
    assert multiprocessing.active_children() == []


def test_killed_workers_change_nothing(photos):
    alone, said = training(photos), []
    helped = training(photos, workers=2, say=said.append)
    batches = helped.epoch(0)
    first = next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    assert same(flat([first, *batches]), flat(alone.epoch(0)))
    assert "worker processes ended (DataLoader worker" in said[0]
    assert same(flat(helped.epoch(1)), flat(alone.epoch(1)))
    assert len(said) == 1


LITTLE_SHARED_MEMORY = """
import multiprocessing, subprocess, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from saccade.recipe import AugmentConfig
from saccade.sources.storage import FolderStorage
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord
from saccade.transforms import Augmentation, TrainingBatches, batches as module, evaluation_batches

root = Path(sys.argv[1])
paths = sorted(root.rglob("*.png"))
records = [ImageRecord(path.relative_to(root).as_posix(), path.parent.name) for path in paths]
data = (FolderStorage(root), records, ("bar", "checker", "disc"), Preprocess(96), 4)
none = Augmentation.from_config(AugmentConfig(policy="none"))

def pixels(workers):
    said = []
    training = TrainingBatches(*data, augmentation=none, seed=0, workers=workers, say=said.append)
    made = [batch.images for batch in training.epoch(0)]
    made += [batch.images for batch in evaluation_batches(*data, workers=workers, say=said.append)]
    return torch.cat(made), said

alone, _ = pixels(0)
asked = module.shared_memory_bytes
for size, known in ((0, True), (16, True), (16, False), (128, False), (65536, True)):
    options = f"size={size}k" if size else "size=1m,ro"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", "/dev/shm"], check=True)
    module.shared_memory_bytes = asked if known else lambda: sys.maxsize
    found, said = pixels(2)
    assert torch.equal(found, alone), size
    words = {text.partition(" ")[0] for text in said}
    assert words == (set() if size > 10000 else {"/dev/shm"} if known else {"worker"}), (size, said)
    assert not multiprocessing.active_children()
    subprocess.run(["umount", "-l", "/dev/shm"], check=True)
print("the same")
"""


@pytest.mark.slow
def test_little_shared_memory_changes_nothing_and_hangs_nowhere(make_photos):
    """What a container has by default, and less; also where it is found too small only in the middle."""
    alone = ["unshare", "-m"]
    trial = [*alone, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    if shutil.which("unshare") is None or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("needs the right to mount another /dev/shm (root, and `unshare`)")
    root = make_photos(images=5, side=40)
    command = [*alone, sys.executable, "-c", LITTLE_SHARED_MEMORY, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr[-3000:]


def test_an_epoch_left_early_does_not_disturb_the_next(photos):
    helped = training(photos, workers=2)
    next(helped.epoch(0))
    assert same(flat(helped.epoch(1)), flat(training(photos).epoch(1)))


def test_limits_reach_the_decoder(photos):
    storage, records = photos
    with pytest.raises(DataError, match="pixels"):
        list(evaluation_batches(storage, records, CLASSES, PREPROCESS, 4, limits=Limits(max_pixels=100)))


def test_large_images_are_kept_small_and_small_ones_untouched():
    large = torch.zeros((3, 400, 300), dtype=torch.uint8)
    assert shrink(large, PREPROCESS).shape == (3, 45, 34)  # 1.25 x floor(24 / 0.875) = 33.75
    small = torch.zeros((3, 30, 20), dtype=torch.uint8)
    assert shrink(small, PREPROCESS) is small
    assert shrink(large, Preprocess(24, resize="pad")).shape == (3, 30, 22)


@pytest.mark.parametrize(("smallest", "kept"), [(0.5, (3, 34, 45)), (1.0, (3, 24, 24))])
def test_what_is_kept_is_all_that_comes_before_the_first_draw(tmp_path: Path, smallest, kept):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    batches = TrainingBatches(
        FolderStorage(tmp_path),
        [ImageRecord("a.png", "disc")],
        CLASSES,
        PREPROCESS,
        4,
        augmentation=Augmentation(random_resized_crop=smallest),
        seed=0,
        cache_bytes=10**6,
    )
    image = next(batches.epoch(0)).images[0]
    evaluated = to_input(decode((tmp_path / "a.png").read_bytes()).pixels, PREPROCESS)
    assert image.shape == evaluated.shape
    assert batches._images.reader.cache[0].shape == kept


def hashed(photos) -> tuple[FolderStorage, list[ImageRecord]]:
    storage, records = photos
    digest = {r.path: hashlib.sha256(storage.read(r.path)).hexdigest() for r in records}
    return storage, [replace(record, sha256=digest[record.path]) for record in records]


@pytest.mark.parametrize("policy", ["none", "medium", "strong"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_pixels_come_with_and_without_the_cache_on_disk(photos, tmp_path, policy, workers):
    photos = hashed(photos)
    chosen = Augmentation.from_config(AugmentConfig(policy=policy))
    plain = training(photos, augmentation=chosen)
    for run in range(2):  # the second finds the images of the first
        cache = PixelCache(tmp_path / "pixels", 10**7)
        stored = training(photos, augmentation=chosen, pixels=cache, workers=workers)
        for epoch in range(2):
            assert same(flat(plain.epoch(epoch)), flat(stored.epoch(epoch))), (run, epoch)


def test_a_second_run_decodes_only_new_files(photos, tmp_path, monkeypatch):
    photos = hashed(photos)
    storage, records = photos
    flat(training((storage, records[:-2]), pixels=PixelCache(tmp_path / "pixels", 10**7)).epoch(0))
    read = []
    monkeypatch.setattr(
        batches_module, "read_pixels", lambda *args: read.append(args[1]) or read_pixels(*args)
    )
    flat(training(photos, pixels=PixelCache(tmp_path / "pixels", 10**7)).epoch(0))
    assert sorted(record.path for record in read) == [record.path for record in records[-2:]]


def test_other_limits_sizes_and_files_are_other_pixels(photos, tmp_path):
    _, records = hashed(photos)
    cache = PixelCache(tmp_path / "pixels", 10**7)
    image = torch.zeros((3, 4, 5), dtype=torch.uint8)
    kept = StoredPixels.of(cache, Limits(), PREPROCESS, "shrunk")
    assert kept.put(records[0], image)
    assert torch.equal(kept.get(records[0]), image)
    assert kept.get(records[1]) is None
    for limits, preprocess, how in (
        (Limits(background=(0, 0, 0)), PREPROCESS, "shrunk"),
        (Limits(), Preprocess(25), "shrunk"),
        (Limits(), PREPROCESS, "evaluated"),
    ):
        assert StoredPixels.of(cache, limits, preprocess, how).get(records[0]) is None
    assert (
        StoredPixels.of(cache, Limits(), Preprocess(24, mean=(0, 0, 0)), "shrunk").get(records[0]) is not None
    )
    assert not kept.put(replace(records[0], sha256=""), image)


def test_threads_leave_no_trace(photos):
    before = torch.get_num_threads()
    next(training(photos).epoch(0))
    assert torch.get_num_threads() == before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
@pytest.mark.parametrize("processes", [2, 4])
def test_rows_of_several_processes_are_the_batches_of_one(photos, sampling, processes):
    """Order, augmentation, labels and paths: hashes are equal for 1, 2 and 4 processes."""
    storage, records = photos
    settings = {"augmentation": STRONG, "seed": 3, "sampling": sampling}
    batches = TrainingBatches(storage, records, CLASSES, PREPROCESS, 5, **settings)

    def digest(count):
        made = hashlib.sha256()
        for epoch in (1, 2):
            shares = (lambda n, i=i: range(n * i // count, n * (i + 1) // count) for i in range(count))
            for parts in zip(*(batches.epoch(epoch, rows=share) for share in shares), strict=True):
                made.update(torch.cat([part.images for part in parts]).contiguous().numpy().tobytes())
                made.update(repr([(part.targets.tolist(), part.paths) for part in parts[:1]]).encode())
        return made.hexdigest()

    assert digest(processes) == digest(1)
