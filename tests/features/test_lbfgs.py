"""Several convex problems at once: each to its own minimum, as if it were alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade.features.lbfgs import minimise

OPTIONS = {"iterations": 200, "tolerance": 0.0, "gradient_tolerance": 1e-9, "remembered": 10}
SIZE = 12


def quadratics(conditions: list[float]) -> tuple[Tensor, Tensor]:
    """Symmetric matrices (problems, n, n) with these ratios of the largest to the least curvature; minima."""
    random = torch.Generator().manual_seed(0)
    shape = (len(conditions), SIZE, SIZE)
    turned, _ = torch.linalg.qr(torch.randn(shape, generator=random, dtype=torch.float64))
    curvatures = torch.stack([torch.logspace(0, torch.tensor(c).log10(), SIZE) for c in conditions]).double()
    matrices = turned @ torch.diag_embed(curvatures) @ turned.transpose(1, 2)
    return matrices, torch.randn(shape[:2], generator=random, dtype=torch.float64)


def about(matrices: Tensor, minima: Tensor) -> tuple[list[int], object]:
    asked: list[int] = []

    def objective(numbers: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(1)
        away = numbers - minima
        gradient = (matrices @ away[:, :, None])[:, :, 0]
        return 1000 + 0.5 * (away * gradient).sum(1), gradient

    return asked, objective


def test_each_problem_comes_to_its_own_minimum() -> None:
    matrices, minima = quadratics([1.0, 30.0, 1000.0])
    _, objective = about(matrices, minima)
    found = minimise(objective, torch.zeros(3, SIZE), **OPTIONS)  # type: ignore[arg-type]
    assert (found - minima).abs().max() < 1e-6


def test_a_problem_does_not_depend_on_those_beside_it() -> None:
    matrices, minima = quadratics([30.0, 1000.0])
    _, together = about(matrices, minima)
    _, alone = about(matrices[1:], minima[1:])
    start = torch.ones(2, SIZE)
    both = minimise(together, start, **{**OPTIONS, "iterations": 15})  # type: ignore[arg-type]
    one = minimise(alone, start[1:], **{**OPTIONS, "iterations": 15})  # type: ignore[arg-type]
    torch.testing.assert_close(both[1:], one, rtol=1e-9, atol=1e-9)


def test_a_problem_that_has_ended_stays_while_others_go_on() -> None:
    matrices, minima = quadratics([30.0, 1000.0])
    options = {**OPTIONS, "tolerance": 1e-5}  # a hundredth, of values about a thousand
    (asked_both, together), (asked_one, alone) = about(matrices, minima), about(matrices[:1], minima[:1])
    both = minimise(together, torch.ones(2, SIZE), **options)  # type: ignore[arg-type]
    one = minimise(alone, torch.ones(1, SIZE), **options)  # type: ignore[arg-type]
    assert len(asked_one) < len(asked_both)
    torch.testing.assert_close(both[:1], one, rtol=1e-9, atol=1e-9)


def test_it_remembers_what_steps_taught() -> None:
    """Steepest descent needs hundreds of steps where the curvatures differ by a thousand."""
    matrices, minima = quadratics([1000.0])
    left = {}
    for remembered in (0, 12):
        _, objective = about(matrices, minima)
        options = {**OPTIONS, "iterations": 60, "remembered": remembered}
        found = minimise(objective, torch.zeros(1, SIZE), **options)  # type: ignore[arg-type]
        left[remembered] = float((found - minima).norm())
    assert left[12] < 0.02 * left[0]


def test_at_the_minimum_nothing_moves() -> None:
    matrices, minima = quadratics([30.0])
    asked, objective = about(matrices, minima)
    assert torch.equal(minimise(objective, minima, **OPTIONS), minima)  # type: ignore[arg-type]
    assert len(asked) == 1


@pytest.mark.parametrize("tolerance", [1e-2, 1e-8])
def test_it_ends_once_steps_gain_too_little(tolerance: float) -> None:
    matrices, minima = quadratics([100.0])
    asked, objective = about(matrices, minima)
    minimise(objective, torch.zeros(1, SIZE), **{**OPTIONS, "tolerance": tolerance})  # type: ignore[arg-type]
    assert len(asked) < 60
    if tolerance > 1e-3:
        assert len(asked) < 8, "a thousandth of the value is more than these steps gain"


def test_a_slope_that_only_rounding_makes_ends_it() -> None:
    def rough(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones(len(numbers), dtype=torch.float64), torch.ones_like(numbers)

    start = torch.zeros(2, 3)
    assert torch.equal(minimise(rough, start, **OPTIONS), start.double())  # type: ignore[arg-type]
