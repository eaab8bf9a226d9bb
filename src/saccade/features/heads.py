"""Heads fitted on frozen features in seconds: multinomial logistic regression, or the small mlp.

The features are standardised for the fit, and the standardisation is then folded into the first Dense layer,
so that the network's own head is exactly what was fitted. All choices are made inside the training part.
A feature that hardly varies over the training images is not scaled up to the others: in a new image it may be
thousands of its deviations off, and would then outvote everything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

from saccade.runtime import draw_seed, one_thread_each
from saccade.training.losses import CROSS_ENTROPY, Loss, image_figures
from saccade.transforms.mix import soft_targets

FOLDS = 5
# L2 penalties on standardised features, as shares of the mean loss; strong to weak, each starts at the last.
STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(1, -8, -1))
WITHOUT_CHOICE = 0.1
WORSE_IN_A_ROW = 2  # the path is left once weaker penalties only overfit
CHOICE_ITERATIONS, FINAL_ITERATIONS = 25, 200
CHOICE_TOLERANCE, FINAL_TOLERANCE = 1e-4, 1e-7  # share of the objective that a step must gain
GRADIENT_TOLERANCE, REMEMBERED_STEPS = 1e-6, 30
MAX_FOLD_NUMBERS = 2_000_000  # weights of all folds together; above, one fold is held out instead of each
SMALLEST_DEVIATION = 1e-6
# A deviation counts as if this many more images had shown the median deviation of all features: that of a few
# images may be far too small by chance. Measured on 96-pixel photos: docs/lab-notes.md, "heads that blow up".
PRIOR_IMAGES = 20
SMALLEST_SHARE = 0.1  # of the median deviation, however many images there are
# Features of all images and views; a fit of fewer keeps to one core. Its products take a fraction of a
# millisecond: a second core gains nothing, and where it is busy each product waits for it (20 times slower).
ONE_CORE_NUMBERS = 5_000_000
MLP_STEPS, MLP_BATCH, MLP_RATE, MLP_DECAY = 400, 128, 1e-3, 0.05


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """What a head learns from: `values` float32 (views, images, F), `labels` int64 (images,).

    Where an image may have several labels, `labels` are float32 (images, classes), 0 or 1, and the head is a
    logistic regression a class. `groups` name what belongs together, one name an image.
    """

    values: Tensor
    labels: Tensor
    groups: tuple[str, ...]
    classes: int
    loss: Loss = CROSS_ENTROPY

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> LabelledFeatures:
        """Some of the images, in the order given."""
        chosen = torch.as_tensor(np.asarray(indices))
        groups = tuple(self.groups[index] for index in chosen.tolist())
        labels, values = self.labels[chosen], self.values[:, chosen]
        return LabelledFeatures(values, labels, groups, self.classes, self.loss)


@dataclass(frozen=True, slots=True)
class Choice:
    """The L2 strength and what cross-validation inside the training part said of it; NaN: not measured.

    `losses` and `right` (images,) are those of each image while it was held out, NaN where it never was.
    """

    strength: float
    loss: float
    accuracy: float
    folds: int
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    right: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Standard:
    """Mean and deviation (F,) float64 of each feature over all views."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Standard:
        """Of `values` (views, images, F); deviations are shrunk towards their median and bounded below."""
        flat, images = values.reshape(-1, values.shape[-1]).double(), values.shape[-2]
        deviation = flat.std(0, correction=0)
        median = deviation.median()
        shrunk = (images * deviation.square() + PRIOR_IMAGES * median.square()) / (images + PRIOR_IMAGES)
        least = max(SMALLEST_DEVIATION, SMALLEST_SHARE * float(median))
        return cls(flat.mean(0), shrunk.sqrt().clamp(min=least))

    def apply(self, values: Tensor) -> Tensor:
        return ((values.double() - self.mean) / self.deviation).float()

    def fold_into(self, dense: nn.Linear, weight: Tensor, bias: Tensor) -> None:
        """Set `dense` to what (weight, bias) do behind this standardisation."""
        plain = weight.double() / self.deviation
        with torch.no_grad():
            dense.weight.copy_(plain)
            dense.bias.copy_(bias.double() - plain @ self.mean)


class _Solution(NamedTuple):
    """Dense layers of all folds: `weight` float32 (folds, classes, F), `bias` (folds, classes)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def zeros(cls, folds: int, classes: int, features: int) -> _Solution:
        return cls(torch.zeros(folds, classes, features), torch.zeros(folds, classes))

    def flat(self) -> Tensor:
        """float64 (folds, classes * F + classes)."""
        return torch.cat([self.weight.flatten(1), self.bias], dim=1).double()

    def like(self, numbers: Tensor) -> _Solution:
        """The solution of this shape that `numbers` are, as `flat` gives them."""
        classes = self.bias.shape[1]
        weight, bias = numbers[:, :-classes].float(), numbers[:, -classes:].float()
        return _Solution(weight.view(self.weight.shape), bias)

    def logits(self, values: Tensor) -> Tensor:
        """(images, folds, classes) in one product over all folds: several times quicker than one each.

        With rows of weights, not columns, the few of one head are multiplied four times quicker as well.
        """
        rows = functional.linear(values, self.weight.flatten(0, 1), self.bias.flatten())
        return rows.view(len(values), *self.bias.shape)


def fit_head(head: nn.Module, data: LabelledFeatures, *, strength: float, seed: int) -> None:
    """Fit `head` in place: "linear" by L-BFGS to the optimum, "mlp" by some hundred steps of AdamW."""
    if isinstance(getattr(head, "hidden", None), nn.Linear):
        _fit_mlp(head, data, seed)
        return
    dense = head.dense
    assert isinstance(dense, nn.Linear), "a linear head is one dense layer"
    standard = _Standard.of(data.values)
    start = _Solution.zeros(1, data.classes, data.values.shape[-1])
    ones = torch.ones(1, len(data))
    solved = _minimise(start, standard.apply(data.values), data, ones, strength)
    standard.fold_into(dense, solved.weight[0], solved.bias[0])


def choose_strength(data: LabelledFeatures, *, seed: int, folds: int = FOLDS) -> Choice:
    """The strength with the least loss on held-out images; what belongs together is held out together."""
    fold_of = stratified_group_folds(data.labels.numpy(), data.groups, folds=folds, seed=seed)
    used = int(fold_of.max()) + 1
    if used < 2:
        return Choice(WITHOUT_CHOICE, math.nan, math.nan, 0)
    count = 1 if used * data.values.shape[-1] * data.classes > MAX_FOLD_NUMBERS else used
    held_out = torch.from_numpy(fold_of)[None] == torch.arange(count)[:, None]  # (folds, images)
    values = _Standard.of(data.values[:1]).apply(data.values[:1])  # views change the choice little
    solution = _Solution.zeros(count, data.classes, values.shape[-1])
    best, worse = Choice(WITHOUT_CHOICE, math.inf, math.nan, count), 0
    for strength in STRENGTHS:
        solution = _minimise(solution, values, data, (~held_out).float(), strength, choosing=True)
        losses, right = _held_out_figures(solution, values[0], data, held_out)
        loss, accuracy = float(np.nanmean(losses)), float(np.nanmean(right))
        worse = worse + 1 if loss >= best.loss else 0
        if loss < best.loss:
            best = Choice(strength, loss, accuracy, count, losses, right)
        if worse == WORSE_IN_A_ROW:
            break
    return best


def stratified_group_folds(
    labels: NDArray[np.int64], groups: Sequence[str], *, folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each image: groups stay whole, classes are spread as evenly as that allows.

    Largest groups first, each into the fold that has least of its most frequent class. No more folds than the
    rarest class has groups; a single fold (all 0) where that is one. labels: (images,) class indices, or
    (images, classes) of 0 and 1.
    """
    if labels.ndim == 2:
        return _folds_of_label_sets(labels > 0.5, groups, folds=folds, seed=seed)
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((group_of.max() + 1, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    per_class = (counts > 0).sum(axis=0)
    folds = max(1, min(folds, int(per_class[per_class > 0].min())))
    order = np.random.default_rng(draw_seed(seed, "folds")).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((folds, counts.shape[1]), np.int64)
    fold_of_group = np.zeros(len(counts), np.int64)
    for group in order:
        main = counts[group].argmax()
        fold = np.lexsort((filled.sum(axis=1), filled[:, main]))[0]
        fold_of_group[group] = fold
        filled[fold] += counts[group]
    return fold_of_group[group_of]


def _folds_of_label_sets(
    has: NDArray[np.bool_], groups: Sequence[str], *, folds: int, seed: int
) -> NDArray[np.int64]:
    """As `stratified_group_folds`: groups with the rarest label first, each into the fold that lacks it."""
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((group_of.max() + 1, has.shape[1] + 1), np.int64)  # the last: images without any label
    np.add.at(counts, group_of, np.column_stack([has, ~has.any(axis=1)]))
    folds = max(1, min(folds, len(counts)))
    totals = counts.sum(axis=0)
    rarest = np.where(counts > 0, totals, len(has) + 1).argmin(axis=1)
    order = np.random.default_rng(draw_seed(seed, "folds")).permutation(len(counts))
    order = order[np.lexsort((-counts[order].sum(axis=1), totals[rarest[order]]))]
    filled, fold_of_group = np.zeros((folds, counts.shape[1]), np.int64), np.zeros(len(counts), np.int64)
    for group in order:
        fold = np.lexsort((filled.sum(axis=1), filled[:, rarest[group]]))[0]
        fold_of_group[group] = fold
        filled[fold] += counts[group]
    return fold_of_group[group_of]


def head_logits(head: nn.Module, features: Tensor) -> Tensor:
    """float32 (images, classes) of a head in evaluation mode on features (images, F)."""
    modes = head.training
    weight = next(head.parameters())
    try:
        with torch.inference_mode():
            logits: Tensor = head.eval()(features.to(weight.device, torch.float32)).cpu()
    finally:
        head.train(modes)
    return logits


def _minimise(
    start: _Solution,
    values: Tensor,
    data: LabelledFeatures,
    part: Tensor,
    strength: float,
    *,
    choosing: bool = False,
) -> _Solution:
    """The dense layers that minimise mean loss + strength/2 |W|².

    All folds are solved at once: they share no weight, so the minimum of their sum is that of each.
    `values` (views, images, F); `part` (folds, images) is 1 where an image trains that fold. `choosing`
    stops well before the optimum.
    """
    flat = values.reshape(-1, values.shape[-1])  # (views * images, F)
    targets = soft_targets(data.labels, data.classes).repeat(len(values), 1)
    shares = (part / part.sum(1, keepdim=True)).repeat(1, len(values)) / len(values)  # each row sums to 1

    begin = start.flat()

    def objective(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        solution = start.like(torch.from_numpy(numbers).view_as(begin))
        solution = _Solution(*(part.requires_grad_(True) for part in solution))
        logits = solution.logits(flat)
        losses = torch.stack([data.loss(fold, targets) for fold in logits.unbind(1)])
        total = (losses * shares).sum() + strength / 2 * solution.weight.square().sum()
        gradient = _Solution(*torch.autograd.grad(total, solution))
        return float(total.detach()), gradient.flat().numpy().ravel()

    small = values.numel() <= ONE_CORE_NUMBERS
    # one thread for the steps as well: they are short, and their last bits depend on the number of threads
    with threadpool_limits(1, "blas"), one_thread_each() if small else nullcontext():
        found = minimize(
            objective,
            begin.numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": CHOICE_ITERATIONS if choosing else FINAL_ITERATIONS,
                "ftol": CHOICE_TOLERANCE if choosing else FINAL_TOLERANCE,
                "gtol": GRADIENT_TOLERANCE,
                "maxcor": REMEMBERED_STEPS,
            },
        )
    return start.like(torch.from_numpy(found.x).view_as(begin))


def _held_out_figures(
    solution: _Solution, values: Tensor, data: LabelledFeatures, held_out: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loss (weighted as the training, not smoothed) and right or not, (images,); NaN: never held out."""
    losses = torch.full((len(data),), math.nan, dtype=torch.float64)
    right = losses.clone()
    for fold, out in zip(solution.logits(values).unbind(1), held_out, strict=True):
        logits = fold[out]
        targets = soft_targets(data.labels[out], data.classes)
        losses[out] = data.loss.unsmoothed()(logits, targets).double()
        right[out] = image_figures(logits, data.labels[out])[1].double()
    return losses.numpy(), right.numpy()


def _fit_mlp(head: nn.Module, data: LabelledFeatures, seed: int) -> None:
    """Cosine-annealed AdamW from the head's own start; dropout and order are f(seed, step)."""
    standard = _Standard.of(data.values)
    values, targets = standard.apply(data.values), soft_targets(data.labels, data.classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=MLP_RATE, weight_decay=MLP_DECAY)
    head.train()
    for step in range(MLP_STEPS):
        optimizer.param_groups[0]["lr"] = MLP_RATE * 0.5 * (1 + math.cos(math.pi * step / MLP_STEPS))
        torch.manual_seed(draw_seed(seed, "mlp head", step))
        chosen = torch.randint(0, len(data), (min(MLP_BATCH, len(data)),))
        view = torch.randint(0, len(values), chosen.shape)
        losses = data.loss(head(values[view, chosen]), targets[chosen])
        optimizer.zero_grad()
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    hidden = head.hidden
    assert isinstance(hidden, nn.Linear), "an mlp head starts with a dense layer"
    standard.fold_into(hidden, hidden.weight.detach(), hidden.bias.detach())
