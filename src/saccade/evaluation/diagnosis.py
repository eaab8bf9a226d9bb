"""What the curves and figures of a run say, in words, with the remedy: the gap is watched for the user.

Every threshold is a constant with its reason. Findings come most pressing first; "fine" stands alone.
Training accuracy is measured on augmented, mixed, dropped-out images while the network still learns, so it is
pessimistic: it may show overfitting, but never underfitting by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

from saccade.evaluation.intervals import images_needed, wilson
from saccade.recipe import HARD_FINETUNE_RATIO, Recipe
from saccade.records import EpochRow, Finding, Metrics

# A training accuracy this far above validation is overfitting; less is common and does no harm (5 points
# are what batch norm and early stopping leave on small sets), and the interval must exclude it as well.
OVERFIT_GAP = 0.10
# Fewer images that were not learnt from than this tell nothing of a gap: one of 19 is 5 points.
LEAST_UNSEEN = 20
# The validation loss has turned when it ends this much above its best. Losses of small validation parts
# wander by 5 % from epoch to epoch; 15 % is three times that.
TURNED_LOSS = 1.15
# Share of the way from "always the commonest class" to perfect. Below it even the training images are not
# learnt: 7 tenths is 0.85 accuracy for two balanced classes, 0.73 for ten.
UNDERFIT_SKILL = 0.7
# A loss that rises by more than this from one epoch to the next jumps. Training loss is a mean over many
# images and rises by 10 % only when steps are too long; validation loss wanders more.
TRAIN_JUMP, VALIDATION_JUMP = 1.10, 1.30
# Jumps in a third of the epochs are a pattern and not an accident; three epochs are too few to tell.
JUMP_SHARE, JUMP_EPOCHS = 1 / 3, 4
# Near zero every loss wanders by factors; a rise of less than 0.05 (5 % of the true class's probability) is
# noise.
NOISE = 0.05
# Equal probabilities for all classes cost log(classes). Too long steps leave a loss of many times that, which
# the schedule's falling rate brings down at the end: the trend says nothing.
FAR_ABOVE_CHANCE = 3.0
# Skill on training images; a network that is right there, but too sure of itself on new ones, is no such
# case.
LEARNT_LITTLE = 0.5
# A rate so low that nothing moves: over all epochs the training loss fell by less than this share, and no
# epoch's rate reached what any of our optimizers needs.
HARDLY_MOVED, LOW_RATE = 0.10, 1e-5
# Fine-tuning that starts with twice the loss that the head had reached has broken the features.
BROKEN_START = 2.0
# Still improving: 5 % over the last three epochs and 1 % in the very last one (a cosine schedule ends flat).
STILL_IMPROVING, LAST_STEP = 0.05, 0.01
# Above this there is too little left to gain for another run.
GOOD_ENOUGH = 0.99
# An interval wider than +-5 points cannot tell a good change from a bad one.
WIDE_HALF_WIDTH = 0.05
WANTED_HALF_WIDTH = 0.03
# Where one class has this many times the images of another, the rare one is easily passed over.
UNEVEN = 2
# Below 20 images a class, one more image changes the model visibly; below 100, overfitting is first a
# matter of data.
FEW_IMAGES, SOME_IMAGES = 20, 100
# Confidence and accuracy that differ by more than this mislead whoever reads a probability.
CALIBRATION_GAP = 0.05

FOR_SMALL_IMAGES, USUAL_WIDTH = "fast_cnn", 64  # pretrained networks would have to enlarge them

LOSSES = ("train_loss", "validation_loss")
STRONGER = {"none": "light", "light": "medium", "medium": "strong"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a rule may look at. `validation` or `test` are absent where the run has no such part.

    `train` are figures on the training images without augmentation, where they were computed.
    `smallest_class` is the number of training images of the smallest class, 0 where unknown; `leaks` that of
    pairs and groups that stand in two parts.
    """

    history: tuple[EpochRow, ...]
    validation: Metrics | None = None
    test: Metrics | None = None
    train: Metrics | None = None
    recipe: Recipe = field(default_factory=Recipe)
    smallest_class: int = 0
    leaks: int = 0

    @property
    def judged(self) -> Metrics | None:
        """The figures that the words are about."""
        return self.test or self.validation


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """Findings in words, most pressing first; a single finding of kind "fine" where nothing is wrong."""
    found = [finding for rule in RULES for finding in [rule(evidence)] if finding is not None]
    if not any(finding.severity in ("warning", "error") for finding in found):
        found.insert(0, _fine(evidence))
    rank = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def phases(history: Sequence[EpochRow]) -> list[tuple[str, list[EpochRow]]]:
    """The rows of each phase, in the order they were trained."""
    return [(name, list(rows)) for name, rows in groupby(history, key=lambda row: row.phase)]


def kept_index(history: Sequence[EpochRow]) -> int:
    """Index of the row whose weights were kept: the first of the least validation loss, over all phases."""
    assert history, "no epoch, no kept row"
    rows = [(row.validation_loss, i) for i, row in enumerate(history) if math.isfinite(row.validation_loss)]
    return min(rows, default=(0.0, len(history) - 1))[1]


def diverged(evidence: Evidence) -> Finding | None:
    """A loss that is no number any more."""
    for i, row in enumerate(evidence.history):
        if not (math.isfinite(row.train_loss) and math.isfinite(row.validation_loss)):
            return Finding(
                "too_high_a_rate",
                "error",
                f"The loss stopped being a number in epoch {i + 1}: training fell apart.",
                _lower_rate(evidence, row.phase),
                figure={"epoch": i + 1, "lr": row.lr},
            )
    return None


def too_high_a_rate(evidence: Evidence) -> Finding | None:
    """Losses that jump up again and again, or a start of fine-tuning that breaks what the head had learnt."""
    if diverged(evidence):
        return None
    parts = phases(evidence.history)
    for (_, before), (phase, rows) in pairwise(parts):
        if all(_broken(getattr(before[-1], loss), getattr(rows[0], loss)) for loss in LOSSES):
            return _rate_finding(evidence, phase, "broke what the phase before had learnt", rows)
    for phase, rows in parts:
        worst = _far_above_chance(evidence, rows)
        if worst:
            found = _rate_finding(evidence, phase, f"drove the loss to {worst:.3g}, far above chance", rows)
            usual = evidence.recipe.replaced(train__lr="auto").learning_rate
            if max(row.lr for row in rows) > 3 * usual and phase == parts[0][0]:
                remedy = f"Use the usual rate first ({_method(evidence)}--lr {usual:g})."
                found = replace(found, remedy=remedy)
            return replace(found, severity="error")
        if _jumps(rows, "train_loss", TRAIN_JUMP):
            return _rate_finding(evidence, phase, "made the training loss jump up again and again", rows)
        if _jumps(rows, "validation_loss", VALIDATION_JUMP) and not _turned(rows):
            return _rate_finding(evidence, phase, "made the validation loss swing from epoch to epoch", rows)
    return None


def too_low_a_rate(evidence: Evidence) -> Finding | None:
    """Steps so short that the training loss hardly moved, while little is learnt."""
    if not evidence.history or diverged(evidence) or too_high_a_rate(evidence):
        return None
    phase, rows = phases(evidence.history)[-1]
    highest = max(row.lr for row in rows)
    if _fitted(rows) or highest > LOW_RATE or len(phases(evidence.history)) > 1:
        return None
    fallen = max(_fallen([row.train_loss for row in rows]), _fallen([row.validation_loss for row in rows]))
    learnt = _skill(_right_in_training(evidence, rows), evidence.validation) >= UNDERFIT_SKILL
    if learnt or fallen >= HARDLY_MOVED:
        return None
    usual = evidence.recipe.replaced(train__lr="auto").learning_rate
    return Finding(
        "too_low_a_rate",
        "error",
        f"The learning rate is too low: with {highest:.3g} in phase {phase!r} the loss hardly moved "
        f"(in training {rows[0].train_loss:.3g} to {rows[-1].train_loss:.3g} in {_epochs(len(rows))}).",
        f"Use a higher rate ({_method(evidence)}--lr {usual:g}); more epochs at this one change little.",
        figure={"phase": phase, "lr": highest, "fallen": fallen},
    )


def worse_than_baseline(evidence: Evidence) -> Finding | None:
    """No better, or not shown to be better, than always answering the commonest class."""
    figures = evidence.judged
    if figures is None:
        return None
    label, share = _baseline(figures)
    if figures.accuracy.low > share:
        return None
    worse = figures.accuracy.value <= share
    verdict = "is no better than" if worse else f"is not shown by {figures.images} images to beat"
    return Finding(
        "worse_than_baseline",
        "error" if worse else "warning",
        f"An accuracy of {_percent(figures.accuracy.value)} {verdict} always answering {label!r} "
        f"({_percent(share)}).",
        "Look at the images with `saccade augment` and the audit: can a person tell the classes apart?"
        + _against_baseline(evidence),
        figure={"accuracy": figures.accuracy.value, "baseline": share},
    )


def never_predicted(evidence: Evidence) -> Finding | None:
    """Classes that are there and that the model never answers."""
    figures = evidence.judged
    if figures is None:
        return None
    predicted = [sum(column) for column in zip(*figures.confusion, strict=True)]
    rows = zip(figures.per_class, predicted, strict=True)
    missing = [row for row, answers in rows if row.support and not answers]
    if not missing:
        return None
    names = ", ".join(f"{row.label!r} ({row.support} images)" for row in missing[:10])
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    few = all(row.support < 5 for row in missing)  # 0 of 4 happens by chance to a fair class
    return Finding(
        "never_predicted",
        "info" if few else "warning",
        f"The model never answers {names}{more}.",
        "Set train.class_weights = true, add images of these classes, or merge them with what they resemble.",
        figure={"classes": [row.label for row in missing]},
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Much better on training images than on others, by more than chance explains."""
    if not evidence.history:
        return None
    row = evidence.history[kept_index(evidence.history)]
    train = evidence.train.accuracy.value if evidence.train else row.train_accuracy
    unseen = {"validation": evidence.validation, "test": evidence.test}
    judged = {part: figures for part, figures in unseen.items() if figures}
    value = high = row.validation_accuracy
    if judged:
        images = sum(figures.images for figures in judged.values())
        right = sum(round(figures.accuracy.value * figures.images) for figures in judged.values())
        value, high = right / images, wilson(right, images).high
        if images < LEAST_UNSEEN:
            return None
    if train - value < OVERFIT_GAP or train <= high:
        return None
    few = 0 < evidence.smallest_class < SOME_IMAGES
    return Finding(
        "overfitting",
        "warning",
        f"Overfitting: {_percent(train)} of the training images are right, but only {_percent(value)} of the "
        f"{' and '.join(judged) or 'validation'} images. The model has learnt its images by heart rather "
        "than what they show.",
        _against_overfitting(evidence, more_data_first=few),
        figure={"train_accuracy": train, "validation_accuracy": value, "gap": train - value},
    )


def turned(evidence: Evidence) -> Finding | None:
    """The validation loss rose again while the training loss still fell; the kept weights are from before."""
    if not evidence.history or diverged(evidence):
        return None
    _, rows = phases(evidence.history)[-1]
    kept = kept_index(evidence.history)
    if _fitted(rows) or not _turned(rows) or evidence.history[kept] not in rows:
        return None
    return Finding(
        "turned",
        "info",
        f"After epoch {kept + 1} the validation loss rose from {evidence.history[kept].validation_loss:.3g} "
        f"to {rows[-1].validation_loss:.3g} while the training loss went on falling: from there the network "
        f"learnt by heart. The weights of epoch {kept + 1} were kept, so the result is not harmed.",
        f"Nothing needs to be done; {len(evidence.history) - kept - 1} epochs could have been saved with a "
        "smaller train.early_stopping.",
        figure={"kept_epoch": kept + 1, "epochs": len(evidence.history)},
    )


def fine_tuning_did_not_help(evidence: Evidence) -> Finding | None:
    """The best epoch lies before the last phase, so that phase was for nothing."""
    parts = phases(evidence.history)
    if len(parts) < 2 or diverged(evidence) or too_high_a_rate(evidence):
        return None
    kept = kept_index(evidence.history)
    phase, rows = parts[-1]
    if kept >= len(evidence.history) - len(rows):
        return None
    return Finding(
        "fine_tuning_did_not_help",
        "info",
        f"Phase {phase!r} never beat epoch {kept + 1}, whose weights were kept; its {_epochs(len(rows))} "
        "changed nothing in the result.",
        _other_rate(rows, evidence),
        figure={"kept_epoch": kept + 1, "epochs": len(rows)},
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """Both parts are bad alike, and more epochs as they are would not change it."""
    others = (
        diverged,
        too_high_a_rate,
        too_low_a_rate,
        overfitting,
        stopped_too_early,
    )  # each explains low figures by itself
    if not evidence.history or any(rule(evidence) for rule in others):
        return None
    row, figures = evidence.history[kept_index(evidence.history)], evidence.validation
    value = figures.accuracy.value if figures else row.validation_accuracy
    # on augmented images training accuracy is pessimistic; the validation images show what was learnt
    train = evidence.train.accuracy.value if evidence.train else max(row.train_accuracy, value)
    if _skill(train, figures) >= UNDERFIT_SKILL:
        return None
    return Finding(
        "underfitting",
        "warning",
        f"Underfitting: training images are right in {_percent(train)}, validation images in "
        f"{_percent(value)}. Both are low: the model is too weak, too tightly held or too briefly trained.",
        _against_underfitting(evidence),
        figure={"train_accuracy": train, "validation_accuracy": value},
    )


def stopped_too_early(evidence: Evidence) -> Finding | None:
    """The validation loss was still falling when training ended."""
    if not evidence.history or evidence.history[-1].validation_accuracy >= GOOD_ENOUGH:
        return None
    if too_high_a_rate(evidence) or too_low_a_rate(evidence):
        return None  # more time at such a rate is no remedy
    _, rows = phases(evidence.history)[-1]
    if (
        len(rows) < 2
        or _fitted(rows)
        or rows[-1].validation_loss <= 0
        or kept_index(evidence.history) != len(evidence.history) - 1
    ):
        return None
    losses = [row.validation_loss for row in rows[-4:]]
    fallen, last = 1 - losses[-1] / losses[0], 1 - losses[-1] / losses[-2]
    if not (fallen >= STILL_IMPROVING and last >= LAST_STEP):
        return None
    return Finding(
        "stopped_too_early",
        "warning",
        f"Training ended while it was still improving: over the last "
        f"{_epochs(len(losses) - 1)} the validation loss fell by {_percent(fallen)}, to {losses[-1]:.3g}.",
        f"Give it more time: {_more_time(evidence, len(rows))}, in a new --out folder.",
        figure={"fallen": fallen, "epochs": len(rows)},
    )


def too_little_data(evidence: Evidence) -> Finding | None:
    """Too few images to learn from, or to say how good the model is."""
    if 0 < evidence.smallest_class < FEW_IMAGES:
        return Finding(
            "too_little_data",
            "warning",
            f"The smallest class has {evidence.smallest_class} training images; below {FEW_IMAGES} each "
            "one changes the model.",
            f"Collect at least {SOME_IMAGES} images of each class, most of those that look alike.",
            figure={"smallest_class": evidence.smallest_class},
        )
    figures = evidence.judged
    if figures is None:
        return None
    half = (figures.accuracy.high - figures.accuracy.low) / 2
    if half <= WIDE_HALF_WIDTH:
        return None
    needed = images_needed(min(max(figures.accuracy.value, 0.5), 0.95), WANTED_HALF_WIDTH)
    part = "test" if evidence.test else "validation"
    return Finding(
        "too_little_data",
        "warning",
        f"{figures.images} {part} images tell little: the accuracy lies between "
        f"{_percent(figures.accuracy.low)} and {_percent(figures.accuracy.high)}.",
        f"About {needed} {part} images would tell it to +-{_percent(WANTED_HALF_WIDTH)}.",
        figure={"images": figures.images, "half_width": half, "needed": needed},
    )


def optimistic_validation(evidence: Evidence) -> Finding | None:
    """Worse on the test part than the validation part promised, by more than chance explains."""
    test, validation = evidence.test, evidence.validation
    if test is None or validation is None or test.accuracy.high >= validation.accuracy.low:
        return None
    return Finding(
        "optimistic_validation",
        "warning",
        f"The test part ({_percent(test.accuracy.value)}) is clearly worse than the validation part "
        f"({_percent(validation.accuracy.value)}).",
        "Believe the test part. Look for what differs between the two (another camera, day or site), and "
        "name it with --group so that the split respects it.",
        figure={"test": test.accuracy.value, "validation": validation.accuracy.value},
    )


def weak_classes(evidence: Evidence) -> Finding | None:
    """Classes that are found clearly less often than the average image, with what they are taken for."""
    figures = evidence.judged
    if figures is None:
        return None
    weak = [
        (row, _taken_for(figures, i))
        for i, row in enumerate(figures.per_class)
        if row.support and wilson(round(row.recall * row.support), row.support).high < figures.accuracy.low
    ]
    if not weak:
        return None
    weak.sort(key=lambda entry: entry[0].recall)
    words = ", ".join(
        f"{row.label!r} ({_percent(row.recall)}, most often taken for {o!r})" for row, o in weak[:5]
    )
    return Finding(
        "weak_classes",
        "info",
        f"Found clearly less often than the others: {words}.",
        "More images of these, taken as differently as those of the others, help more than anything else; "
        "look at their mistakes below for wrong labels first.",
        figure={"classes": [row.label for row, _ in weak]},
    )


def misleading_confidence(evidence: Evidence) -> Finding | None:
    """On average more, or less, confident than right, by more than chance explains."""
    figures = evidence.judged
    if figures is None or "mean_confidence" not in figures.extra:
        return None
    confidence, accuracy = float(figures.extra["mean_confidence"]), figures.accuracy
    if abs(confidence - accuracy.value) < CALIBRATION_GAP or accuracy.low <= confidence <= accuracy.high:
        return None
    word = "more" if confidence > accuracy.value else "less"
    return Finding(
        "misleading_confidence",
        "info",
        f"The model is {word} confident ({_percent(confidence)} on average) than right "
        f"({_percent(accuracy.value)}).",
        "Do not read its confidences as probabilities"
        + ("." if evidence.recipe.evaluate.calibrate else "; set evaluate.calibrate = true."),
        figure={"confidence": confidence, "accuracy": accuracy.value},
    )


# One line adds a rule.
RULES: tuple[Callable[[Evidence], Finding | None], ...] = (
    diverged,
    too_high_a_rate,
    too_low_a_rate,
    worse_than_baseline,
    overfitting,
    underfitting,
    stopped_too_early,
    optimistic_validation,
    never_predicted,
    too_little_data,
    turned,
    fine_tuning_did_not_help,
    weak_classes,
    misleading_confidence,
)


def _fine(evidence: Evidence) -> Finding:
    figures = evidence.judged
    curves = "the curves show no harmful overfitting, no underfitting and no trouble with the learning rate"
    if figures is None:
        return Finding("fine", "info", f"Fine: {curves}.", "Nothing needs to be done.")
    part = "test" if evidence.test else "validation"
    split = "Nothing needs to be done. "
    if evidence.leaks:
        split = (
            f"But {evidence.leaks} near-duplicates or groups stand in two parts and flatter this figure: "
            "move them (--repair-split). "
        )
    right = f"Fine: {_percent(figures.accuracy.value)} of the {figures.images} {part} images are right"
    return Finding(
        "fine",
        "info",
        f"{right}, and {curves}." if evidence.history else f"{right}.",
        f"{split}More images, a larger backbone or --image-size may still add to it.",
        figure={"accuracy": figures.accuracy.value},
    )


def _rate_finding(evidence: Evidence, phase: str, what: str, rows: Sequence[EpochRow]) -> Finding:
    highest = max(row.lr for row in rows)
    return Finding(
        "too_high_a_rate",
        "warning",
        f"The learning rate is too high: {highest:.3g} in phase {phase!r} {what}.",
        _lower_rate(evidence, phase),
        figure={"phase": phase, "lr": highest},
    )


def _lower_rate(evidence: Evidence, phase: str) -> str:
    fine_tuning = phase != evidence.history[0].phase
    recipe = evidence.recipe
    rate = _rate_of(evidence, phase) or recipe.learning_rate
    flag = "--finetune-lr" if fine_tuning else "--lr"
    clip = "" if recipe.train.gradient_clip else ", or limit the steps with --train.gradient-clip 1"
    return f"Use a third of the rate or less ({_method(evidence)}{flag} {rate / 3:.1g}){clip}."


def _rate_of(evidence: Evidence, phase: str) -> float:
    """The highest rate that the phase really had; 0 where a head was fitted without steps."""
    return max((row.lr for row in evidence.history if row.phase == phase), default=0.0)


def _fitted(rows: Sequence[EpochRow]) -> bool:
    """Whether these rows are fits of a head on frozen features, not epochs: nothing in them goes on."""
    return all(row.lr == 0 for row in rows)


def _broken(before: float, after: float) -> bool:
    return after > max(BROKEN_START * before, before + NOISE)


def _other_rate(rows: Sequence[EpochRow], evidence: Evidence) -> str:
    rate = _rate_of(evidence, rows[0].phase) or evidence.recipe.finetune_learning_rate
    if rows[-1].validation_loss < rows[0].validation_loss:  # on its way, but too slow or too short
        higher = min(3 * rate, HARD_FINETUNE_RATIO * evidence.recipe.learning_rate)
        method = _method(evidence)
        return (
            f"Try more epochs ({method}--epochs {2 * len(rows)}) or a higher rate "
            f"({method}--finetune-lr {higher:.1g})."
        )
    lower = f"{_method(evidence)}--finetune-lr {rate / 3:.1g}"
    return f"Try a third of the rate ({lower}), or believe that the head is enough."


def _method(evidence: Evidence) -> str:
    """What must stand before --epochs or a rate, which alone are the classic way, not that of this run."""
    if not evidence.recipe.from_fitted_head:
        return ""
    return "--method tail " if evidence.recipe.train.method == "tail" else "--method full "


def _more_time(evidence: Evidence, epochs: int) -> str:
    """What makes the last phase longer, which had so many epochs."""
    recipe = evidence.recipe
    to_the_end = kept_index(evidence.history) == len(evidence.history) - 1  # no early stopping
    if recipe.train.time_limit and to_the_end and epochs < recipe.epochs:
        return "a longer --time-limit"
    limit = ", and a longer --time-limit" if recipe.train.time_limit else ""
    return f"{_method(evidence)}--epochs {2 * (epochs if to_the_end else recipe.epochs)}{limit}"


def _against_baseline(evidence: Evidence) -> str:
    """What to try where a model is no better than always answering the commonest class; may be ""."""
    steps = []
    recipe, figures = evidence.recipe, evidence.judged
    if not recipe.starts_pretrained and recipe.model.backbone != FOR_SMALL_IMAGES:
        steps.append("try pretrained weights")
    counts = [row.support for row in figures.per_class if row.support] if figures else []
    if counts and max(counts) >= UNEVEN * min(counts) and not recipe.train.class_weights:
        steps.append("set train.class_weights = true")
    return f" Then {', or '.join(steps)}." if steps else ""


def _far_above_chance(evidence: Evidence, rows: Sequence[EpochRow]) -> float:
    """The largest loss of epochs that were far above chance, 0 where none was.

    In training any such epoch counts. In validation it takes a network that has learnt little in training as
    well: one that knows its training images by heart may be certain and wrong on others.
    """
    if _fitted(rows):
        return 0.0
    figures = evidence.judged
    classes = len(figures.classes) if figures else 2
    most = FAR_ABOVE_CHANCE * math.log(max(2, classes))
    little = _skill(rows[-1].train_accuracy, figures) < LEARNT_LITTLE
    losses = [row.train_loss for row in rows]
    losses += [row.validation_loss for row in rows] if little else []
    return max((loss for loss in losses if loss > most), default=0.0)


def _fallen(losses: Sequence[float]) -> float:
    """By which share the mean loss of the later epochs lies below that of the earlier ones.

    Means, because with strong augmentation the loss of an epoch wanders by more than a slow rate moves it.
    """
    half = len(losses) // 2
    earlier = sum(losses[:half]) / max(1, half)
    return 1 - sum(losses[half:]) / (len(losses) - half) / earlier if earlier > 0 else 0.0


def _right_in_training(evidence: Evidence, rows: Sequence[EpochRow]) -> float:
    if evidence.train:
        return evidence.train.accuracy.value
    return max(rows[-1].train_accuracy, rows[-1].validation_accuracy)


def _jumps(rows: Sequence[EpochRow], figure: str, factor: float) -> bool:
    losses = [getattr(row, figure) for row in rows]
    ups = sum(later > max(factor * earlier, earlier + NOISE) for earlier, later in pairwise(losses))
    return len(rows) >= JUMP_EPOCHS and ups >= 2 and ups >= JUMP_SHARE * (len(rows) - 1)


def _turned(rows: Sequence[EpochRow]) -> bool:
    best = min(range(len(rows)), key=lambda i: rows[i].validation_loss)
    last = rows[-1]
    risen = last.validation_loss > TURNED_LOSS * rows[best].validation_loss
    return risen and last.train_loss < rows[best].train_loss


def _baseline(figures: Metrics) -> tuple[str, float]:
    commonest = max(figures.per_class, key=lambda row: row.support)
    return commonest.label, commonest.support / figures.images


def _skill(accuracy: float, figures: Metrics | None) -> float:
    """0 for always the commonest class, 1 for perfect."""
    base = _baseline(figures)[1] if figures else 0.0
    return (accuracy - base) / (1 - base) if base < 1 else 1.0


def _taken_for(figures: Metrics, row: int) -> str:
    others = [(n, figures.classes[i]) for i, n in enumerate(figures.confusion[row]) if i != row]
    return max(others, key=lambda entry: entry[0])[1]


def _against_overfitting(evidence: Evidence, *, more_data_first: bool) -> str:
    recipe = evidence.recipe
    if _fitted(evidence.history):
        return (
            "A head that fits its training images whole is common with few of them. In this order: collect "
            "more images of each class; fine-tune with more augmentation (--method full --augment strong); "
            "compare backbones (--backbone auto --weights FOLDER)."
        )
    steps = ["collect more images of each class"]
    if recipe.augment.policy in STRONGER:
        steps.append(f"augment more (--augment {STRONGER[recipe.augment.policy]})")
    if _classic(evidence) and recipe.train.unfreeze != "1":
        steps.append("unfreeze less (--unfreeze 1)")
    if not recipe.starts_pretrained and recipe.model.backbone != FOR_SMALL_IMAGES:
        steps.append("start from pretrained weights (--backbone efficientnet_b0)")
    if recipe.train.weight_decay < 0.05 and recipe.train.optimizer != "muon":  # which decays no filter
        steps.append(f"raise --train.weight-decay to {max(0.05, 5 * recipe.train.weight_decay):.2g}")
    if not more_data_first:
        steps.append(steps.pop(0))
    return "In this order: " + "; ".join(steps) + "."


def _classic(evidence: Evidence) -> bool:
    """Whether there were the two phases of method finetune, the only one that follows `unfreeze`."""
    return evidence.recipe.train.method == "finetune" and len(phases(evidence.history)) > 1


def _against_underfitting(evidence: Evidence) -> str:
    recipe = evidence.recipe
    steps = []
    if _fitted(evidence.history):
        steps.append("fine-tune everything (--method full)")
    else:
        if _classic(evidence) and recipe.train.unfreeze != "all":
            steps.append("unfreeze more (--unfreeze all)")
        steps.append(f"train longer ({_more_time(evidence, len(phases(evidence.history)[-1][1]))})")
    if recipe.augment.policy in ("strong", "medium"):
        steps.append("augment less (--augment light)")
    if recipe.model.backbone == FOR_SMALL_IMAGES:
        wider = 2 * recipe.model.options.get("width", USUAL_WIDTH)
        steps.append(f"take a wider network (--model.options width={wider})")
    else:
        steps.append("take a larger backbone or a larger --image-size")
    return "In this order: " + "; ".join(steps) + "; and look in the audit whether the labels are right."


def _epochs(count: int) -> str:
    return "epoch" if count == 1 else f"{count} epochs"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
