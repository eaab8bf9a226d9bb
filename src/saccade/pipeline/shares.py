"""Which class shares a run's model was trained on, and for which its probabilities hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from saccade.answer import Answer
from saccade.errors import ModelError, RecipeError
from saccade.files import parse_json
from saccade.priors import Given, Priors, reweighed
from saccade.recipe import Recipe
from saccade.records import Predictions
from saccade.run_folder import RunFolder

PRIORS = "priors"  # in `training` of model.json, where the two differ


def priors_of_run(run: RunFolder) -> Priors:
    """As written with the model; where nothing is, those of the training images."""
    model = run.read_model()
    stored = model["training"].get(PRIORS)
    if stored:
        return Priors.from_json(stored, len(model["classes"]))
    learnt = (record for record in run.read_dataset() if record.used and record.part == "train")
    images = Counter(label for record in learnt for label in record.labels)
    return Priors.of_counts([images[label] for label in model["classes"]])


@dataclass(frozen=True, slots=True)
class Asked:
    """Class shares that a model of a run is to answer for; `given` "" is as it answers anyway.

    `priors` are those of what is made of it; `ratio` (classes,) multiplies its probabilities. `precision` is
    the share of its answers that must be right, 0 as the run's figures say.
    """

    given: Given
    classes: tuple[str, ...]
    priors: Priors
    ratio: tuple[float, ...] = ()
    precision: float = 0.0

    @property
    def otherwise(self) -> bool:
        """Whether a file for it differs from the run's own."""
        return bool(self.given or self.precision)

    @property
    def as_flags(self) -> tuple[str, ...]:
        return ("--priors", str(self.given)) if self.given else ()

    @property
    def by_name(self) -> dict[str, float]:
        return dict(zip(self.classes, self.priors.assumed, strict=True))

    @property
    def in_words(self) -> str:
        return ", ".join(f"{label} {share:.3g}" for label, share in self.by_name.items())

    def applied(self, predictions: Predictions) -> Predictions:
        """The run's own answers for these shares."""
        if not self.ratio:
            return predictions
        return replace(predictions, probabilities=reweighed(predictions.probabilities, self.ratio))

    def answer(self, answer: Answer) -> Answer:
        """The answer that gives such probabilities by itself."""
        if not self.ratio:
            return answer
        before = answer.offsets or (0.0,) * len(self.classes)
        logs = np.log(np.maximum(self.ratio, _SMALLEST_RATIO))
        return replace(answer, offsets=tuple((np.asarray(before) + logs).tolist()))


_SMALLEST_RATIO = 1e-12  # e to the power of -28: float32 still adds it to a logit


def shares_in(text: str, run: RunFolder) -> dict[str, float]:
    """Shares by class that a file's metadata (JSON, "" for none) assume; {} where they are the run's own."""
    classes = run.read_model()["classes"]
    try:
        there = Priors.from_json(parse_json(text), len(classes)).assumed
    except (ValueError, ModelError):  # none, or what nothing can open: that is said when it is opened
        return {}
    own = np.allclose(there, priors_of_run(run).assumed)
    return {} if own else dict(zip(classes, there, strict=True))


def asked_priors(run: RunFolder, given: Given) -> Asked:
    """What `--priors` asks of a run's model. Raises RecipeError for what cannot be read."""
    model, priors = run.read_model(), priors_of_run(run)
    classes = tuple(model["classes"])
    if not given:
        return Asked("", classes, priors)
    if model.get("answer", {}).get("activation") == "sigmoid":
        raise RecipeError(
            f"--priors are for one class an image, and {run.root} may name several",
            hint="leave --priors out",
        )
    shares = priors.read(given, classes)
    return Asked(given, classes, replace(priors, assumed=shares), priors.ratio_to(shares))


def trained_priors(recipe: Recipe, class_counts: Mapping[str, int], strength: float) -> Priors | None:
    """What class weights, sampling and logit adjustments made of the shares; None where there were none.

    `strength` is that of the logit adjustment after training. Weights and visits multiply a class's share in
    what training sees; an adjustment divides by a power of it.
    """
    from saccade.evaluation.adjustment import log_shares
    from saccade.training.losses import class_weights
    from saccade.transforms.sampling import expected_visits

    train = recipe.train
    if recipe.multi_label:
        return None  # each label is a question of its own
    weights = class_weights(train.class_weights, class_counts)
    if weights is None and train.sampling == "natural" and not (train.logit_adjustment or strength):
        return None
    counts = np.array(list(class_counts.values()))
    logs = (1 - train.logit_adjustment - strength) * log_shares(counts.tolist())
    seen = np.exp(logs) * expected_visits(counts, train.sampling) / np.maximum(counts, 1)
    if weights is not None:
        seen = seen * weights.double().numpy()
    before = Priors.of_counts(counts.tolist())
    return Priors(before.training, tuple((seen / seen.sum()).tolist()), strength)
