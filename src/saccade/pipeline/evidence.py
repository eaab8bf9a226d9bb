"""What a run measures about the promises while it still can; `promises.py` reads it at the end.

Kept in `environment.json` under `evidence`, by the number of the promise. A promise without an entry there,
or without files that show it, is "not checked".
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import RawArray
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.remedies import Evidence
from saccade.images.decoder import Limits
from saccade.recipe import Recipe
from saccade.records import Dataset, Finding, ImageRecord, Predictions, Storage
from saccade.run_folder import RunFolder, predictions_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from saccade.bundle import Bundle

PROBED_IMAGES = 16
PROBE_BATCHES = (5, 16)  # two sizes: nothing may depend on which images share a batch


def keep(run: RunFolder, promise: int, values: Mapping[str, Any]) -> None:
    """Write down what was measured about a promise; earlier values of other names stay."""
    record = run.read_record()
    measured = {**record.measured(promise), **values}
    run.write_record(record.replaced(evidence={**record.evidence, str(promise): measured}))


def probes(records: Sequence[ImageRecord]) -> tuple[ImageRecord, ...]:
    """At most 16 of the records, evenly chosen."""
    return tuple(records[:: -(-len(records) // PROBED_IMAGES)]) if records else ()


# -- promise 2: the evaluation path draws nothing ----------------------------------------------------


def evaluation_is_checked(run: RunFolder) -> bool:
    """Whether `check_evaluation` has looked at the bundle and the predictions that are there now."""
    found, now = run.read_record().measured(2), _evaluated(run)
    return all(found.get(name) == value for name, value in now.items())


def probed_part(run: RunFolder) -> str:
    """The part of which images are evaluated again: with folds, whose model has no validation part, train."""
    return "validation" if run.has(run.predictions("validation")) else "train"


def _evaluated(run: RunFolder) -> dict[str, str]:
    part = probed_part(run)
    return {"bundle": bundle_hash(run), "predictions": _sha256(run.predictions(part)), "part": part}


def _probed(run: RunFolder, dataset: Dataset) -> tuple[ImageRecord, ...]:
    """Some of the images of that part whose predictions were kept."""
    part = probed_part(run)
    kept = set(run.read_predictions(part).paths) if part == "train" else None
    return probes([r for r in dataset.used(part) if kept is None or r.path in kept])


def check_evaluation(run: RunFolder, dataset: Dataset, bundle: Bundle, recipe: Recipe) -> None:
    """Evaluate some validation images twice more, under other random states and in other batches.

    Their inputs must be the same bits, and those that the preprocessing alone gives. Their probabilities must
    be those in `predictions/validation.csv`. With folds, training images are taken, as they are evaluated.
    """
    from saccade.runtime import Runtime
    from saccade.training import predict_logits

    records = _probed(run, dataset)
    seen = [
        _inputs(dataset, records, bundle, recipe, seed=seed, batch=batch)
        for seed, batch in enumerate(PROBE_BATCHES)
    ]
    runtime = Runtime.create(recipe.device, "float32")
    runtime.place(bundle.module)
    with _random_state(len(PROBE_BATCHES)):
        logits, _, paths = predict_logits(
            bundle.module, _batches(dataset, records, bundle, recipe, 1), runtime
        )
    answered = bundle.answer.probabilities(logits)
    values = {
        "images": len(records),
        "differing": int((seen[0] != seen[1]).flatten(1).any(1).sum()),
        "from_preprocessing": _largest(seen[0] - _plain_inputs(dataset, records, bundle, recipe)),
        "probability_difference": _largest(answered - _stored(run, paths)),
        **_evaluated(run),
    }
    keep(run, 2, values)


def _batches(
    dataset: Dataset, records: Sequence[ImageRecord], bundle: Bundle, recipe: Recipe, size: int
) -> Iterator[Any]:
    from saccade.transforms import evaluation_batches

    return evaluation_batches(
        dataset.storage,
        records,
        bundle.classes,
        bundle.preprocess,
        size,
        limits=Limits.of(recipe.data, bundle.preprocess.pixels),
    )


def _inputs(
    dataset: Dataset,
    records: Sequence[ImageRecord],
    bundle: Bundle,
    recipe: Recipe,
    *,
    seed: int = 0,
    batch: int = PROBED_IMAGES,
) -> Tensor:
    """float32 (n, 3, S, S) as evaluation makes them, under a random state of its own."""
    import torch

    with _random_state(seed):
        return torch.cat([made.images for made in _batches(dataset, records, bundle, recipe, batch)])


def _plain_inputs(dataset: Dataset, records: Sequence[ImageRecord], bundle: Bundle, recipe: Recipe) -> Tensor:
    """The same images by the preprocessing alone: no batches, no loader, no threads."""
    import torch

    from saccade.images.decoder import read_pixels
    from saccade.transforms.apply import to_input

    limits = Limits.of(recipe.data, bundle.preprocess.pixels)
    pixels = (read_pixels(dataset.storage, record, limits) for record in records)
    return torch.stack([to_input(image, bundle.preprocess) for image in pixels])


def _stored(run: RunFolder, paths: Sequence[str]) -> NDArray[np.float64]:
    predictions = run.read_predictions(probed_part(run))
    row = {path: number for number, path in enumerate(predictions.paths)}
    return np.asarray(predictions.probabilities[[row[path] for path in paths]])


def _largest(differences: Tensor | NDArray[Any]) -> float:
    return float(np.abs(np.asarray(differences)).max(initial=0.0))


@contextlib.contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Within it every global generator starts from `seed`; afterwards they go on as if nothing had been."""
    import torch

    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


# -- promise 3: the exported file preprocesses as evaluation does -------------------------------------


def check_export(run: RunFolder, dataset: Dataset, recipe: Recipe) -> None:
    """Compare the network's input inside model.onnx with that of evaluation, on some validation images."""
    from saccade.bundle import load_bundle
    from saccade.export.onnx import preprocessing_of
    from saccade.images.decoder import read_pixels

    records, bundle = _probed(run, dataset), load_bundle(run.bundle)
    if not records:
        return
    exported, limits = preprocessing_of(run.onnx), Limits.of(recipe.data, bundle.preprocess.pixels)
    answers = [exported(read_pixels(dataset.storage, record, limits)) for record in records]
    expected = _inputs(dataset, records, bundle, recipe).numpy()
    difference = _largest(np.stack(answers) - expected)
    keep(run, 3, {"images": len(records), "input_difference": difference, "sha256": _sha256(run.onnx)})


# -- promise 6: what the diagnosis read ---------------------------------------------------------------


def diagnosis_evidence(read: Evidence, findings: Sequence[Finding]) -> dict[str, Any]:
    """How much the diagnosis looked at, and the kinds of what it said."""
    judged = {"train": read.train, "validation": read.validation, "test": read.test}
    return {
        "epochs": len(read.history),
        "images": {part: figures.images for part, figures in judged.items() if figures},
        "findings": [finding.kind for finding in findings],
    }


# -- promise 7: the test part waits for the last choice -----------------------------------------------


@dataclass(frozen=True)
class WatchedStorage:
    """A storage that notes which of some images (their place by path) were read, in any process."""

    storage: Storage
    place: Mapping[str, int]
    looked: Any  # an array of bytes in shared memory, which worker processes write into as well

    @classmethod
    def of(cls, storage: Storage, paths: Sequence[str]) -> WatchedStorage:
        place = {path: number for number, path in enumerate(paths)}
        return cls(storage, place, RawArray("b", max(1, len(place))))

    def read(self, path: str) -> bytes:
        """The file's bytes, as the storage behind it reads them."""
        place = self.place.get(path)
        if place is not None:
            self.looked[place] = 1
        return self.storage.read(path)

    def elsewhere(self, paths: Sequence[str]) -> Storage:
        """The storage behind it, for another machine that will read these; they are noted now."""
        for path in paths:
            if path in self.place:
                self.looked[self.place[path]] = 1
        return self.storage

    def ahead(self, paths: Sequence[str], *, threads: int = 1) -> Storage:
        """The storage behind it, which will read these; they are noted now."""
        begin = getattr(self.elsewhere(paths), "ahead", None)
        return begin(paths, threads=threads) if begin else self

    @property
    def looked_at(self) -> tuple[str, ...]:
        return tuple(path for path, place in self.place.items() if self.looked[place])


def watching_test(dataset: Dataset) -> Dataset:
    """The data with a storage that notes each test image that is read."""
    paths = [record.path for record in dataset.used("test")]
    return replace(dataset, storage=WatchedStorage.of(dataset.storage, paths))


def choices_made(run: RunFolder, dataset: Dataset, *, continued: bool) -> Dataset:
    """Write down which test images were read while the model was made; the data, no longer watched."""
    watched = dataset.storage
    assert isinstance(watched, WatchedStorage), "watched since the split"
    looked = watched.looked_at
    values = {
        "test_images": len(watched.place),
        "looked_at": len(looked),
        "examples": list(looked[:5]),
        "continued": continued,
        "bundle": bundle_hash(run),
    }
    keep(run, 7, values)
    return replace(dataset, storage=watched.storage)


def choice_added(run: RunFolder, model: bytes) -> None:
    """Note, before it is written, that validation chose what `model`, the new model.json, holds besides."""
    if run.read_record().measured(7).get("bundle") == bundle_hash(run):
        keep(run, 7, {"bundle": bundle_hash(run, model)})


def measuring_test(run: RunFolder) -> None:
    """Note, before it is done, that the test part is measured, and by which bundle."""
    before = run.read_record().measured(7).get("measured_by", [])
    keep(run, 7, {"measured_by": [*before, bundle_hash(run)]})


def measured_test(run: RunFolder, answered: Predictions) -> None:
    """Note the hash that the file of these test predictions will have, so that others in its place are
    noticed."""
    keep(run, 7, {"predictions": hashlib.sha256(predictions_bytes(answered)).hexdigest()})


def bundle_hash(run: RunFolder, model: bytes | None = None) -> str:
    """SHA-256 over the weights and model.json (classes, preprocessing, answer); "" where one is gone.

    model: what model.json will hold, in place of what it does.
    """
    if not (run.weights.is_file() and run.model_json.is_file()):
        return ""
    digest = hashlib.sha256()
    for data in (run.weights.read_bytes(), run.model_json.read_bytes() if model is None else model):
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def _sha256(path: Any) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
