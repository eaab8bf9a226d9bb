"""What a diagnosis looks at, and what it advises: each remedy names the flag that carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from saccade.evaluation.shortcut_use import ShortcutUse
from saccade.recipe import ALWAYS_FROM_SCRATCH, AUTO_BACKBONE, DEFAULT_BACKBONE, HARD_FINETUNE_RATIO, Recipe
from saccade.records import EpochRow, Metrics

# Below 20 images a class, one more image changes the model visibly; below 100, overfitting is first a
# matter of data.
FEW_IMAGES, SOME_IMAGES = 20, 100
# Fewer images of a class say nothing about it: 0 of 4 happens by chance to a fair class.
FEWEST_OF_A_CLASS = 5
# An interval wider than +-5 points cannot tell a good change from a bad one.
WIDE_HALF_WIDTH = 0.05
FOR_SMALL_IMAGES, USUAL_WIDTH = "fast_cnn", 64  # pretrained networks would have to enlarge them
# Where one class has this many times the images of another, the rare one is easily passed over.
UNEVEN = 2
STRONGER = {"none": "light", "light": "medium", "medium": "strong"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a rule may look at. `validation` or `test` are absent where the run has no such part.

    `train` are figures on the training images without augmentation, where they were computed.
    `train_counts` are the training images of each class, empty where unknown; `leaks` the pairs and groups
    that stand in two parts. `side` of the input in pixels, and `usual_side` that the backbone was made for: 0
    where unknown; `short_side` is the usual shorter side of the files. `given_split`: the user divided the
    images. `series`: hidden ones that the run found among its training images, as it wrote them down.
    `held_out`: the accuracy of a head on held-out training images (`images`, counting what belongs together
    once) and on `validation` images. `differences`: what the audit measured of parts that differ.
    `shortcuts`: how the model answers where a trivial property gives the label away.
    """

    history: tuple[EpochRow, ...]
    validation: Metrics | None = None
    test: Metrics | None = None
    train: Metrics | None = None
    recipe: Recipe = field(default_factory=Recipe)
    train_counts: Mapping[str, int] = field(default_factory=dict)
    leaks: int = 0
    side: int = 0
    usual_side: int = 0
    given_split: bool = False
    series: Mapping[str, Any] = field(default_factory=dict)
    short_side: int = 0
    held_out: Mapping[str, Any] = field(default_factory=dict)
    differences: Sequence[Mapping[str, Any]] = ()
    shortcuts: Sequence[ShortcutUse] = ()

    @property
    def judged(self) -> Metrics | None:
        """The figures that the words are about."""
        return self.test or self.validation

    @property
    def smallest_class(self) -> int:
        """Training images of the smallest class, 0 where unknown."""
        return min(self.train_counts.values(), default=0)

    def rare_in_training(self, labels: Sequence[str]) -> bool:
        """Whether one of the classes has far fewer training images than the largest: weights would help it.

        Where the training images are unknown, those that were judged stand for them.
        """
        counts = self.train_counts or _supports(self.judged)
        largest = max(counts.values(), default=0)
        return any(UNEVEN * counts.get(label, largest) <= largest for label in labels)


def phases(history: Sequence[EpochRow]) -> list[tuple[str, list[EpochRow]]]:
    """The rows of each phase, in the order they were trained."""
    return [(name, list(rows)) for name, rows in groupby(history, key=lambda row: row.phase)]


def kept_index(history: Sequence[EpochRow]) -> int:
    """Index of the row whose weights were kept: the first of the best validation, over all phases."""
    assert history, "no epoch, no kept row"
    rows = [(row.score, i) for i, row in enumerate(history) if math.isfinite(row.score)]
    return min(rows, default=(0.0, len(history) - 1))[1]


def fitted(rows: Sequence[EpochRow]) -> bool:
    """Whether these rows are fits of a head on frozen features, not epochs: nothing in them goes on."""
    return all(row.lr == 0 for row in rows)


def has_curves(evidence: Evidence) -> bool:
    """Whether there were epochs: a head that was fitted at once has no curves."""
    return bool(evidence.history) and not fitted(evidence.history)


def epoch_name(history: Sequence[EpochRow], index: int) -> str:
    """What to call a row of the history: a fit of a head on frozen features is no epoch."""
    return "the head alone" if fitted([history[index]]) else f"epoch {index + 1}"


def baseline(figures: Metrics) -> tuple[str, float]:
    commonest = max(figures.per_class, key=lambda row: row.support)
    return commonest.label, commonest.support / figures.images


def _supports(figures: Metrics | None) -> dict[str, int]:
    return {row.label: row.support for row in figures.per_class if row.support} if figures else {}


def skill(accuracy: float, figures: Metrics | None) -> float:
    """0 for always the commonest class, 1 for perfect."""
    base = baseline(figures)[1] if figures else 0.0
    return (accuracy - base) / (1 - base) if base < 1 else 1.0


def skill_of(figures: Metrics) -> float:
    """Skill of accuracy; of several labels the mean average precision, since whole sets are seldom right."""
    if figures.mean_average_precision is not None:
        return figures.mean_average_precision
    return skill(figures.accuracy.value, figures)


def rate_of(evidence: Evidence, phase: str) -> float:
    """The highest rate that the phase really had; 0 where a head was fitted without steps."""
    return max((row.lr for row in evidence.history if row.phase == phase), default=0.0)


def method(evidence: Evidence) -> str:
    """What must stand before --epochs or a rate, which alone are the classic way, not that of this run."""
    if not evidence.recipe.from_fitted_head:
        return ""
    return "--method tail " if evidence.recipe.train.method == "tail" else "--method full "


def _classic(evidence: Evidence) -> bool:
    """Whether there were the two phases of method finetune, the only one that follows `unfreeze`."""
    return evidence.recipe.train.method == "finetune" and len(phases(evidence.history)) > 1


def lower_rate(evidence: Evidence, phase: str) -> str:
    fine_tuning = phase != evidence.history[0].phase
    recipe = evidence.recipe
    rate = rate_of(evidence, phase) or recipe.learning_rate
    flag = "--finetune-lr" if fine_tuning else "--lr"
    clip = "" if recipe.train.gradient_clip else ", or limit the steps with --train.gradient-clip 1"
    return f"Use a third of the learning rate or less ({method(evidence)}{flag} {rate / 3:.1g}){clip}."


def with_usual_rates(recipe: Recipe) -> Recipe:
    """The recipe with the learning rates that "auto" has."""
    return recipe.replaced(train__lr="auto", train__finetune_lr="auto", train__allow_large_finetune_lr=True)


def usual_rate(evidence: Evidence) -> str:
    """The flag of the usual rate, for a run of one phase."""
    usual = with_usual_rates(evidence.recipe)
    if evidence.history[-1].phase == "finetune":  # which has a rate of its own
        return f"{method(evidence)}--finetune-lr {HARD_FINETUNE_RATIO * usual.learning_rate:g}"
    return f"{method(evidence)}--lr {usual.learning_rate:g}"


def other_rate(rows: Sequence[EpochRow], evidence: Evidence) -> str:
    rate = rate_of(evidence, rows[0].phase) or evidence.recipe.finetune_learning_rate
    which = method(evidence)
    if rows[-1].watched_loss < rows[0].watched_loss:  # on its way, but too slow or too short
        higher = min(3 * rate, HARD_FINETUNE_RATIO * evidence.recipe.learning_rate)
        faster = f" or a higher rate ({which}--finetune-lr {higher:.1g})" if higher > 1.5 * rate else ""
        longer = 2 * max(len(rows), evidence.recipe.epochs)
        return f"Try more epochs ({which}--epochs {longer}){faster}."
    lower = f"{which}--finetune-lr {rate / 3:.1g}"
    return f"Try a third of the rate ({lower}), or keep the head alone (--method head)."


def more_time(evidence: Evidence, epochs: int) -> str:
    """What makes the last phase longer, which had so many epochs."""
    recipe = evidence.recipe
    to_the_end = kept_index(evidence.history) == len(evidence.history) - 1  # no early stopping
    if recipe.train.time_limit and to_the_end and epochs < recipe.epochs:
        return "a longer --time-limit"
    if to_the_end and epochs < recipe.epochs:  # somebody ended it (--finish)
        return f"all of its {recipe.epochs} epochs"
    limit = ", and a longer --time-limit" if recipe.train.time_limit else ""
    enough = 2 * epochs if to_the_end else 2 * recipe.epochs  # it may have been cut short
    return f"{method(evidence)}--epochs {enough}{limit}"


def against_baseline(evidence: Evidence) -> str:
    """What to try where a model is no better than always predicting the commonest class; may be ""."""
    steps = []
    recipe = evidence.recipe
    if not recipe.starts_pretrained and recipe.model.backbone != FOR_SMALL_IMAGES:
        steps.append("try pretrained weights")
    if larger := usual_size(evidence):
        steps.append(f"use larger images ({larger})")
    if weights := for_rare_classes(evidence, list(_supports(evidence.judged))):
        steps.append(weights)
    return f" Then {', or '.join(steps)}." if steps else ""


def for_rare_classes(evidence: Evidence, labels: Sequence[str]) -> str:
    """How to name rare classes more readily, where one of these is rare and nothing is done yet; else ""."""
    recipe, train = evidence.recipe, evidence.recipe.train
    weighted = train.class_weights != "none" or train.sampling != "natural"
    done = weighted or train.logit_adjustment or recipe.evaluate.logit_adjustment
    if done or not evidence.rare_in_training(labels):
        return ""
    return "set --train.class_weights auto" if recipe.multi_label else "set --evaluate.logit_adjustment auto"


def usual_size(evidence: Evidence) -> str:
    """The flag for images as the backbone was made for, where they are far smaller now; else ""."""
    small = 0 < evidence.side < least_side(evidence.usual_side, evidence.recipe)
    return f"--image-size {evidence.usual_side}" if small else ""


def least_side(usual_side: int, recipe: Recipe) -> int:
    """Pixels below which images are far too small for a backbone that was made for `usual_side`."""
    return max(usual_side // 4, 32 if recipe.starts_pretrained else 0) if usual_side else 0


def against_overfitting(evidence: Evidence, *, more_data_first: bool) -> str:
    recipe = evidence.recipe
    if fitted(evidence.history):
        return against_overfitted_head(recipe)
    steps = ["collect more images of each class"]
    if policy_of(recipe) in STRONGER:
        steps.append(f"augment more (--augment {STRONGER[policy_of(recipe)]})")
    if _classic(evidence) and recipe.train.unfreeze != "1":
        steps.append("unfreeze less (--unfreeze 1)")
    if not recipe.starts_pretrained and recipe.model.backbone != FOR_SMALL_IMAGES:
        steps.append(f"start from pretrained weights ({_pretrained(recipe)})")
    if recipe.train.weight_decay < 0.05 and recipe.train.optimizer != "muon":  # which decays no filter
        more = max(0.05, 5 * recipe.train.weight_decay)
        steps.append(f"decay the weights more (--train.weight-decay {more:.2g})")
    if not more_data_first:
        steps.append(steps.pop(0))
    return _in_order(steps) + "."


def _pretrained(recipe: Recipe) -> str:
    """The flags with which training starts from published weights."""
    backbone, model = f"--backbone {DEFAULT_BACKBONE}", recipe.model
    if model.pretrained:
        return backbone
    has_weights = model.backbone not in ALWAYS_FROM_SCRATCH and ":" not in model.backbone
    return "--pretrained" if has_weights else f"{backbone} --pretrained"


def policy_of(recipe: Recipe) -> str:
    """The policy that augmentation went by; "" where the user composed it."""
    return "" if recipe.augment.steps else recipe.augment.policy


def against_overfitted_head(recipe: Recipe) -> str:
    """What brings a head nearer on other images to what it has on its own."""
    stronger = " with more augmentation" if policy_of(recipe) in STRONGER else ""
    flags = "--method full" + (" --augment strong" if stronger else "")
    steps = ["collect more images of each class", f"fine-tune{stronger} ({flags})"]
    if recipe.model.backbone != AUTO_BACKBONE:
        steps.append("compare backbones (--backbone auto --weights FOLDER)")
    return f"With few training images a head often fits all of them. {_in_order(steps)}."


def _in_order(steps: Sequence[str]) -> str:
    """Steps as one sentence, without its full stop.

    >>> _in_order(["collect more images"]), _in_order(["collect", "augment"])
    ('Collect more images', 'In this order: collect; augment')
    """
    if len(steps) == 1:
        return steps[0][:1].upper() + steps[0][1:]
    return f"In this order: {'; '.join(steps)}"


def against_underfitting(evidence: Evidence) -> str:
    recipe = evidence.recipe
    larger = usual_size(evidence)
    steps = [f"use larger images ({larger})"] if larger else []
    if fitted(evidence.history):
        steps.append("fine-tune everything (--method full)")
    else:
        if _classic(evidence) and recipe.train.unfreeze != "all":
            steps.append("unfreeze more (--unfreeze all)")
        steps.append(f"train longer ({more_time(evidence, len(phases(evidence.history)[-1][1]))})")
        if policy_of(recipe) in ("strong", "medium"):  # a fitted head sees no augmented images
            steps.append("augment less (--augment light)")
    steps.append(wider_or_larger(evidence))
    return _in_order(steps) + "; and look in the audit whether the labels are right."


def wider_or_larger(evidence: Evidence) -> str:
    """Which network could learn more than this one."""
    recipe = evidence.recipe
    if recipe.model.backbone == FOR_SMALL_IMAGES:
        wider = 2 * recipe.model.options.get("width", USUAL_WIDTH)
        return f"take a wider network (--model.options width={wider})"
    return "take a larger backbone" + ("" if usual_size(evidence) else " or a larger --image-size")


def keep_apart(evidence: Evidence) -> str:
    """How a split respects what differs, beside the groups that it has."""
    split = evidence.recipe.split
    besides = " as well: one column for both" if split.group or split.group_pattern else ""
    repair = " (with --repair-split)" if evidence.given_split and not split.repair else ""
    return f"name it with --group{besides}, so that the split respects it{repair}"


def leaks_in_words(leaks: int, recipe: Recipe) -> str:
    """What the pairs and groups that stand in two parts do; "" where there are none or they were moved."""
    if not leaks or recipe.split.repair:
        return ""
    return (
        f"{leaks} near-duplicates or groups stand in two parts and flatter the figures: move them "
        "(--repair-split)."
    )


def what_next(evidence: Evidence, figures: Metrics) -> str:
    """What a run that is fine may still do: leaks first, and nothing where every image is right."""
    leaks = leaks_in_words(evidence.leaks, evidence.recipe)
    first = f"But {leaks}" if leaks else "Nothing needs to be done."
    if figures.accuracy.value == 1:
        return first
    return f"{first} What may still add to it: collect more images, or {wider_or_larger(evidence)}."


def epochs(count: int) -> str:
    return "epoch" if count == 1 else f"{count} epochs"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def one_of(steps: Sequence[str]) -> str:
    """A sentence that leaves the choice.

    steps: what may be done, each as it stands within a sentence.

    >>> one_of(["wait", "try again"]), one_of(["wait"])
    ('Wait, or try again.', 'Wait.')
    """
    sentence = ", or ".join([*filter(None, [", ".join(steps[:-1])]), steps[-1]]) + "."
    return sentence[:1].upper() + sentence[1:]
