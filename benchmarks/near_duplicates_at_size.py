"""Near-duplicates among more images than fit in memory: recall, memory, seconds by stage.

    python benchmarks/near_duplicates_at_size.py [--images 1000000] [--twins 10000]

Thumbnails are generated (noise with the spectrum of photos), and of some there are edited twins: slightly
cropped, darker, noisy, mirrored. Recall counts the twins that the verifier confirms when it is shown
them. Needs saccade[train] and 8 kB on disk an image, below $SACCADE_CACHE.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.near_duplicates import LIKELY_SCORE, Descriptions, search_pairs, stored
from saccade.near_duplicates.candidates import Candidates
from saccade.near_duplicates.descriptors import symmetry_list, variants
from saccade.near_duplicates.pairs import running
from saccade.near_duplicates.registration import best_order, starting_fits
from saccade.near_duplicates.stored import let_go, stored_array
from saccade.near_duplicates.verify import calibrated_verifier
from saccade.near_duplicates.views import all_views

SIDE = 64
EDITS = (
    "cropped to 95 %",
    "cropped to 90 %",
    "darker, noisy",
    "mirrored, cropped to 95 %",
    "gamma 1.6, noisy",
)


def generated(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """(count, 64, 64) of noise whose amplitude falls as in photos (1 / f^1.2)."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)).astype(np.float32)
    frequency[0, 0] = 1
    spectrum = rng.standard_normal((count, *frequency.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise = np.fft.irfft2(spectrum / frequency**1.2, s=(SIDE, SIDE))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    noise *= 45 / noise.std(axis=(1, 2), keepdims=True)
    return np.clip(noise + 128, 0, 255).astype(np.uint8)


def twin(rng: np.random.Generator, thumbnail: NDArray[np.uint8], edit: int) -> NDArray[np.uint8]:
    kept = SIDE * (0.95, 0.9, 1.0, 0.95, 1.0)[edit]
    left, top = rng.uniform(0, SIDE - kept, 2)
    box = (left, top, left + kept, top + kept)
    image = Image.fromarray(thumbnail).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    levels = np.asarray(image).astype(np.float32)
    if edit == 2:
        levels = 0.7 * levels + rng.normal(0, 6, levels.shape)
    if edit == 3:
        levels = levels[:, ::-1]
    if edit == 4:
        levels = 255 * (levels / 255) ** 1.6 + rng.normal(0, 6, levels.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def described(images: int, twins: int) -> tuple[Descriptions, NDArray[np.int64]]:
    """On disk; the last ones are twins of those returned."""
    thumbnails = stored_array((images, SIDE, SIDE), np.uint8)
    for first in range(0, images - twins, 1024):
        rows = slice(first, min(first + 1024, images - twins))
        thumbnails[rows] = generated(np.random.default_rng([1, first]), rows.stop - rows.start)
        let_go(thumbnails)
    originals = np.linspace(0, images - twins - 1, twins).astype(np.int64)
    rng = np.random.default_rng(2)
    for number, original in enumerate(originals):
        place = images - twins + number
        thumbnails[place] = twin(rng, thumbnails[original], number % len(EDITS))
        let_go(thumbnails)
    borders, sizes = np.zeros((images, 4), np.uint8), np.full((images, 2), 256, np.int32)
    return Descriptions(thumbnails, borders, sizes), originals


def confirmed(descriptions: Descriptions, originals: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(twins,) which pairs the verifier calls likely or certain when it is shown them."""
    count = len(originals)
    rows = np.concatenate([originals, len(descriptions) - count + np.arange(count)])
    few = Descriptions(
        stored.rows_of(descriptions.thumbnails, rows), descriptions.borders[rows], descriptions.sizes[rows]
    )
    pictures, _ = variants(few)
    views = all_views(symmetry_list(2))
    first, second = np.arange(count, dtype=np.int32), count + np.arange(count, dtype=np.int32)
    like, viewed = np.concatenate([first, second]), np.concatenate([second, first])
    like, viewed = np.repeat(like, len(views)), np.repeat(viewed, len(views))
    view = np.tile(np.arange(len(views), dtype=np.int16), 2 * count)
    fits = starting_fits(Candidates(like, viewed, view, np.ones(len(view), np.float32)), views)
    with running(None) as run:
        verifier = calibrated_verifier(pictures, run)
        fitted = [verifier.verify_both_ways(fits)[0], verifier.verify_unmoved(fits)[0]]
    image, result = pictures.image, np.zeros(count, bool)
    for each in fitted:
        best = each[best_order(each, image)]
        likely = best[best.quality >= LIKELY_SCORE]
        result[np.minimum(likely.template, likely.other)] = True
    return result


def most_memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most"


def measure(images: int, twins: int) -> None:
    began = time.perf_counter()
    descriptions, originals = described(images, twins)
    print(f"{images:,} images, {twins:,} of them twins; generated in {time.perf_counter() - began:.0f} s")
    print(f"  {most_memory()}", flush=True)
    stored.IN_MEMORY_IMAGES = 0
    began = before = time.perf_counter()
    processor = used = time.process_time()
    stage = ""

    def follow(done: int, total: int, detail: str = "") -> None:
        nonlocal before, used, stage
        now, busy = time.perf_counter(), time.process_time()
        if stage:
            print(
                f"  {now - before:7.1f} s, of processor {busy - used:7.1f} s: {stage}; {most_memory()}",
                flush=True,
            )
        before, used, stage = now, busy, detail

    found = search_pairs(descriptions, progress=follow)
    seconds, used, most = time.perf_counter() - began, time.process_time() - processor, most_memory()
    joined = {(pair.first, pair.second) for pair in found.pairs if pair.band != "look"}
    shown = confirmed(descriptions, originals)
    hit = np.array([(int(o), images - twins + i) in joined for i, o in enumerate(originals)])
    print(f"  search: {seconds:.0f} s, {used:.0f} s of processor; {most}")
    print(f"  twins that the verifier confirms: {shown.sum():,}; of these found: {hit[shown].mean():.2%}")
    for number, edit in enumerate(EDITS):
        of = shown & (np.arange(twins) % len(EDITS) == number)
        print(f"    {edit}: {hit[of].mean():.2%} of {of.sum():,}")
    known = {(int(o), images - twins + i) for i, o in enumerate(originals)}
    print(f"  other pairs joined: {len(joined - known):,}; planted by the search itself: {found.planted}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--twins", type=int, default=10_000)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for images in asked.images:
        measure(images, min(asked.twins, images // 4))


if __name__ == "__main__":
    main()
