"""Heads on frozen features, against scikit-learn; folds, folding of the standardisation, reproducibility."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from saccade.features import heads
from saccade.features.heads import (
    STRENGTHS,
    LabelledFeatures,
    choose_strength,
    fit_head,
    head_logits,
    stratified_group_folds,
)
from saccade.models.network import make_head
from saccade.training.losses import CROSS_ENTROPY, Loss, inverse_frequency, log_loss_and_accuracy

CLASSES, WIDTH = 3, 12


def features(
    images: int = 90,
    *,
    spread: float = 1.5,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    loss: Loss = CROSS_ENTROPY,
) -> LabelledFeatures:
    """Clouds around one point a class, on scales from 0.05 to 20."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    values = (centres[labels] + spread * rng.normal(size=(images, WIDTH))) * np.logspace(-1.3, 1.3, WIDTH) + 5
    names = tuple(groups) if groups else tuple(map(str, range(images)))
    tensor = torch.tensor(values, dtype=torch.float32)[None]
    return LabelledFeatures(tensor, torch.from_numpy(labels), names, CLASSES, loss)


def standardised(values: np.ndarray) -> np.ndarray:
    """Of (images, F): deviations as if 20 more images had shown their median, and at least a tenth of it."""
    deviation = values.std(axis=0)
    median = np.sort(deviation)[(len(deviation) - 1) // 2]
    shrunk = np.sqrt((len(values) * deviation**2 + 20 * median**2) / (len(values) + 20))
    return (values - values.mean(axis=0)) / np.maximum(shrunk, 0.1 * median)


def fitted(
    data: LabelledFeatures, strength: float, *, kind: str = "linear", seed: int = 0
) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = make_head(kind, WIDTH, CLASSES, dropout=0.2)
        fit_head(head, data, strength=strength, seed=seed)
    return head


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
def test_the_linear_head_is_scikit_learns_logistic_regression(strength: float) -> None:
    data = features()
    values, labels = data.values[0].double().numpy(), data.labels.numpy()
    scaled = standardised(values)
    reference = LogisticRegression(C=1 / (strength * len(data)), max_iter=2000, tol=1e-8)
    reference.fit(scaled, labels)
    ours = head_logits(fitted(data, strength), data.values[0]).softmax(1).numpy()
    np.testing.assert_allclose(ours, reference.predict_proba(scaled), atol=2e-3)


def test_class_weights_are_scikit_learns_balanced() -> None:
    data = features(spread=3.0).subset([*range(60), *range(60, 90, 3)])
    weights = inverse_frequency(torch.bincount(data.labels).tolist())
    weighted = LabelledFeatures(data.values, data.labels, data.groups, CLASSES, Loss(class_weights=weights))
    scaled = standardised(data.values[0].double().numpy())
    reference = LogisticRegression(C=1 / (0.1 * len(data)), class_weight="balanced", max_iter=2000, tol=1e-8)
    expected = reference.fit(scaled, data.labels.numpy()).predict_proba(scaled)
    ours = head_logits(fitted(weighted, 0.1), data.values[0]).softmax(1).numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    plain = head_logits(fitted(data, 0.1), data.values[0]).softmax(1).numpy()
    assert abs(plain - expected).max() > 0.02


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_the_head_minimises_the_loss_that_is_asked_for(name: str) -> None:
    """No small step to any side comes to less: what scikit-learn has no solver for."""
    loss = Loss(name, 2.0)
    data = features(loss=loss)
    raw = data.values[0].double().numpy()
    scaled = torch.tensor(standardised(raw))
    deviation = torch.tensor(raw.std(axis=0) / standardised(raw).std(axis=0))
    targets = torch.nn.functional.one_hot(data.labels, CLASSES).float()
    head = fitted(data, 0.1)
    weight = head.dense.weight.detach() * deviation  # type: ignore[union-attr,operator]
    bias = head_logits(head, data.values[0])[0] - weight @ scaled[0]

    def objective(weight: torch.Tensor) -> float:
        return float(loss(scaled @ weight.T + bias, targets).mean() + 0.05 * weight.square().sum())

    steps = torch.randn(20, *weight.shape, generator=torch.Generator().manual_seed(0)) * 0.02
    assert all(objective(weight + step) > objective(weight) for step in steps)


def test_label_smoothing_makes_the_head_less_sure() -> None:
    sure, smoothed = (
        head_logits(fitted(features(loss=Loss(smoothing=share)), 0.001), features().values[0])
        .softmax(1)
        .amax(1)
        .mean()
        for share in (0.0, 0.2)
    )
    assert smoothed < sure - 0.05


def test_views_of_an_image_count_as_one_image() -> None:
    data = features()
    twice = LabelledFeatures(data.values.repeat(2, 1, 1), data.labels, data.groups, CLASSES)
    once, doubled, weaker = (
        head_logits(fitted(some, strength), data.values[0]).softmax(1)
        for some, strength in ((data, 0.1), (twice, 0.1), (data, 0.05))
    )
    assert (once - doubled).abs().max() < 1e-3  # solved to a tolerance: other processors add up differently
    assert (once - weaker).abs().max() > 0.02, "what counting them twice would come to"


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_same_seed_gives_the_same_bits(kind: str) -> None:
    one, two = (fitted(features(), 0.1, kind=kind).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("numbers", "same"), [(heads.ONE_CORE_NUMBERS, True), (0, False)])
def test_a_small_fit_keeps_to_one_core(monkeypatch: pytest.MonkeyPatch, numbers: int, same: bool) -> None:
    cores: set[int] = set()

    class Seen(Loss):
        def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            cores.add(torch.get_num_threads())
            return CROSS_ENTROPY(logits, targets)

    monkeypatch.setattr(heads, "ONE_CORE_NUMBERS", numbers)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fitted(features(loss=Seen()), 0.1)
        assert cores == {1 if same else 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_mlp_learns_what_no_line_can_tell() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (600, WIDTH)) * 50 + 3
    labels = ((values[:, 0] > 3) ^ (values[:, 1] > 3)).astype(np.int64)
    tensor = torch.tensor(values, dtype=torch.float32)[None]
    data = LabelledFeatures(tensor, torch.from_numpy(labels), tuple(map(str, range(600))), CLASSES)
    accuracies = {
        kind: float(
            (head_logits(fitted(data, 0.01, kind=kind), tensor[0]).argmax(1) == data.labels).double().mean()
        )
        for kind in ("linear", "mlp")
    }
    assert accuracies["mlp"] > 0.85
    assert accuracies["linear"] < 0.65


def test_more_noise_asks_for_a_stronger_penalty() -> None:
    clear, noisy = (
        choose_strength(features(240, spread=spread, seed=1), seed=0).strength for spread in (0.3, 6.0)
    )
    assert noisy > clear
    assert {clear, noisy} <= set(STRENGTHS)


def test_the_accuracy_said_is_that_of_new_images() -> None:
    data, new = features(600, spread=2.0, seed=1), features(3000, spread=2.0, seed=2)
    choice = choose_strength(data, seed=0)
    logits = head_logits(fitted(data, choice.strength), new.values[0])
    assert choice.folds == 5
    assert abs(float((logits.argmax(1) == new.labels).double().mean()) - choice.accuracy) < 0.05


def test_copies_in_one_group_do_not_flatter() -> None:
    """Ten copies of each noisy image: told apart by group the accuracy is honest, otherwise near 1."""
    base = features(30, spread=6.0)
    rows = list(range(30)) * 10
    values, labels = base.values[:, rows], base.labels[rows]
    together = LabelledFeatures(values, labels, tuple(str(row) for row in rows), CLASSES)
    apart = LabelledFeatures(values, labels, tuple(map(str, range(300))), CLASSES)
    assert choose_strength(apart, seed=0).accuracy > 0.95
    assert choose_strength(together, seed=0).accuracy < 0.8


def test_too_few_images_to_hold_any_out() -> None:
    choice = choose_strength(features(6, groups=["a", "b", "c", "a", "b", "c"]), seed=0)
    assert choice.folds == 0
    assert np.isnan(choice.accuracy)
    assert torch.isfinite(head_logits(fitted(features(3), choice.strength), features(3).values[0])).all()


def test_a_feature_that_never_changes_does_no_harm() -> None:
    data = features()
    data.values[..., 0] = 7.0
    assert torch.isfinite(head_logits(fitted(data, 0.1), data.values[0])).all()


def test_folds_keep_groups_whole_and_classes_even() -> None:
    labels = np.arange(300) % CLASSES
    groups = [f"{label}-{index // 12}" for index, label in enumerate(labels)]
    fold = stratified_group_folds(labels, groups, folds=5, seed=0)
    assert {len({int(fold[i]) for i in range(300) if groups[i] == name}) for name in set(groups)} == {1}
    counts = np.array([[((fold == f) & (labels == c)).sum() for c in range(CLASSES)] for f in range(5)])
    assert counts.sum() == 300
    assert counts.max() - counts.min() <= 4
    assert (fold == stratified_group_folds(labels, groups, folds=5, seed=0)).all()
    assert (fold != stratified_group_folds(labels, groups, folds=5, seed=1)).any()


def test_no_more_folds_than_the_rarest_class_has_groups() -> None:
    labels = np.array([0] * 50 + [1] * 3)
    assert stratified_group_folds(labels, list(map(str, range(53))), folds=5, seed=0).max() == 2


def wide(images: int, *, dead: int, spread: float, seed: int, alive: bool = False) -> LabelledFeatures:
    """Sixty features, of which the last `dead` hardly vary in training images and do in others (`alive`)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, 60))
    values = centres[labels] + 2.0 * rng.normal(size=(images, 60))
    if dead:
        values[:, -dead:] = 0.3 + (1.0 if alive else spread) * rng.normal(size=(images, dead))
    tensor = torch.tensor(values, dtype=torch.float32)[None]
    names = tuple(map(str, range(images)))
    return LabelledFeatures(tensor, torch.from_numpy(labels), names, CLASSES)


@pytest.mark.parametrize(
    ("kind", "dead", "spread"),
    [
        ("mlp", 20, 1e-5),
        *(("linear", dead, spread) for dead in (1, 20) for spread in (1e-2, 1e-3, 1e-5, 1e-7, 0.0)),
    ],
)
def test_features_that_hardly_vary_in_training_do_not_outvote_the_others(
    kind: str, dead: int, spread: float
) -> None:
    data = wide(90, dead=dead, spread=spread, seed=0)
    new = wide(300, dead=dead, spread=spread, seed=1, alive=True)
    head = make_head(kind, 60, CLASSES, dropout=0.2)
    fit_head(head, data, strength=0.1, seed=0)
    train, other = (head_logits(head, some.values[0]) for some in (data, new))
    loss, accuracy = log_loss_and_accuracy(other.numpy(), new.labels.numpy())
    assert loss < 2.5 * np.log(CLASSES), f"it was {loss:.0f}, on training images it is below 1"
    assert accuracy > 0.5
    assert log_loss_and_accuracy(train.numpy(), data.labels.numpy())[0] < 1


@pytest.mark.parametrize("images", [15, 30, 60])
def test_few_images_tell_little_of_how_much_a_feature_varies(images: int) -> None:
    """Rarely lit features: most training sets see them dark, and new images come with them lit."""

    def lit(count: int, seed: int) -> LabelledFeatures:
        rng = np.random.default_rng(seed)
        data = wide(count, dead=0, spread=0, seed=seed)
        rare = rng.random((count, 400)) < 0.05
        dark = 1e-4 * rng.normal(size=(count, 400))
        more = torch.tensor(np.where(rare, rng.normal(2, 1, (count, 400)), dark), dtype=torch.float32)[None]
        return LabelledFeatures(torch.cat([data.values, more], -1), data.labels, data.groups, CLASSES)

    data, new = lit(images, 0), lit(300, 1)
    head = make_head("linear", 460, CLASSES, dropout=0.0)
    fit_head(head, data, strength=0.1, seed=0)
    loss = log_loss_and_accuracy(head_logits(head, new.values[0]).numpy(), new.labels.numpy())[0]
    assert loss < 3 * np.log(CLASSES)
