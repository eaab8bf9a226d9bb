"""Schedules against torch's own, and the properties no schedule may break."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saccade.training.schedules import SCHEDULES, Plateau, Span, growing_side, learning_rate


def torch_rates(scheduler_class, steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = scheduler_class(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def our_rates(schedule: str, span: Span) -> list[float]:
    return [learning_rate(step, base=0.4, schedule=schedule, span=span) for step in range(span.steps)]


def test_cosine_is_torchs_without_warm_up():
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 30, T_max=30)
    assert our_rates("cosine", Span(epochs=6, steps_per_epoch=5)) == pytest.approx(expected, abs=1e-12)


def test_step_is_torchs():
    expected = torch_rates(torch.optim.lr_scheduler.StepLR, 30, step_size=10, gamma=0.3)
    span = Span(epochs=6, steps_per_epoch=5, step_epochs=2, step_factor=0.3)
    assert our_rates("step", span) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("milestones", [(2, 4), (1,), ()])
def test_multi_step_is_torchs(milestones):
    usual = milestones or (3, 4)  # half and three quarters of six epochs
    expected = torch_rates(
        torch.optim.lr_scheduler.MultiStepLR, 30, milestones=[5 * m for m in usual], gamma=0.3
    )
    span = Span(epochs=6, steps_per_epoch=5, milestones=milestones, step_factor=0.3)
    assert our_rates("multi_step", span) == pytest.approx(expected, abs=1e-12)


def test_exponential_is_torchs():
    expected = torch_rates(torch.optim.lr_scheduler.ExponentialLR, 30, gamma=0.8 ** (1 / 5))
    span = Span(epochs=6, steps_per_epoch=5, decay_factor=0.8)
    assert our_rates("exponential", span) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.5])
def test_polynomial_is_torchs(power):
    expected = torch_rates(torch.optim.lr_scheduler.PolynomialLR, 30, total_iters=30, power=power)
    span = Span(epochs=6, steps_per_epoch=5, decay_power=power)
    assert our_rates("polynomial", span) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_cosine_restarts_is_torchs(growth):
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, 80, T_0=10, T_mult=growth)
    span = Span(epochs=16, steps_per_epoch=5, restart_epochs=2, restart_growth=growth)
    assert our_rates("cosine_restarts", span) == pytest.approx(expected, abs=1e-12)


def test_polynomial_and_restarts_are_timms_too():
    scheduler = pytest.importorskip("timm.scheduler")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    polynomial = scheduler.PolyLRScheduler(optimizer, t_initial=30, power=1.5, t_in_epochs=False)
    restarts = scheduler.CosineLRScheduler(optimizer, t_initial=10, cycle_limit=9, t_in_epochs=False)
    span = Span(epochs=6, steps_per_epoch=5, decay_power=1.5, restart_epochs=2)
    assert our_rates("polynomial", span) == pytest.approx([polynomial._get_lr(t)[0] for t in range(30)])
    assert our_rates("cosine_restarts", span) == pytest.approx([restarts._get_lr(t)[0] for t in range(30)])


@pytest.mark.parametrize("epochs", [4, 6, 20])
def test_one_cycle_is_torchs_and_has_a_rise_of_its_own(epochs):
    expected = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR, 5 * epochs, max_lr=0.4, total_steps=5 * epochs
    )
    span = Span(epochs=epochs, steps_per_epoch=5, warmup_epochs=2)
    assert our_rates("one_cycle", span) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES.keys() - {"one_cycle"}))
def test_warm_up_rises_in_even_steps_to_the_full_rate(schedule):
    rates = our_rates(schedule, Span(epochs=10, steps_per_epoch=4, warmup_epochs=1.5))
    assert rates[:6] == pytest.approx([0.4 * (i + 1) / 6 for i in range(6)])
    assert rates[6] == pytest.approx(0.4, rel=0.01)


def test_warm_up_takes_at_most_half_of_a_phase():
    rates = our_rates("constant", Span(epochs=1, steps_per_epoch=4, warmup_epochs=5))
    assert rates == pytest.approx([0.2, 0.4, 0.4, 0.4])


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    epochs=st.integers(1, 30),
    steps_per_epoch=st.integers(1, 20),
    warmup=st.floats(0, 40),
)
def test_every_rate_is_above_zero_and_at_most_the_base(schedule, epochs, steps_per_epoch, warmup):
    span = Span(epochs, steps_per_epoch, warmup)
    rates = our_rates(schedule, span)
    assert len(rates) == epochs * steps_per_epoch
    assert all(0 < rate <= 0.4 * (1 + 1e-12) for rate in rates)


@given(
    losses=st.lists(st.floats(0.01, 10), min_size=1, max_size=40),
    patience=st.integers(0, 4),
    drop=st.sampled_from([0.1, 0.5, 0.9]),
    min_lr=st.sampled_from([0.0, 1e-9, 0.03, 0.1, 0.4, 0.5]),
)
def test_plateau_is_torchs(losses, patience, drop, min_lr):
    base = 0.4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=drop, patience=patience, min_lr=min_lr, eps=0
    )
    plateau, span = Plateau(), Span(epochs=len(losses) + 1, steps_per_epoch=1)
    for epoch, loss in enumerate(losses, start=1):
        reference.step(loss)
        plateau = plateau.after(loss, patience=patience, drop=drop, lowest=min_lr / base)
        rate = learning_rate(epoch, base=base, schedule="plateau", span=span, plateau_factor=plateau.factor)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES.keys() - {"plateau"}))
@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5])
def test_a_plateau_lowers_the_rate_of_no_other_schedule(schedule, warmup):
    span = Span(epochs=6, steps_per_epoch=5, warmup_epochs=warmup, step_epochs=2)
    rates = [
        learning_rate(step, base=0.4, schedule=schedule, span=span, plateau_factor=0.125)
        for step in range(span.steps)
    ]
    assert rates == our_rates(schedule, span)


def test_a_loss_that_is_no_number_never_is_the_plateaus_best():
    plateau = Plateau().after(math.nan, patience=3, drop=0.5)
    assert plateau.best == math.inf
    assert plateau.bad_epochs == 1


def test_images_grow_in_steps_of_32_and_are_whole_after_three_quarters():
    sides = [growing_side(epoch / 20, start=0.57, full=224) for epoch in range(20)]
    assert sides[0] == 128
    assert sides == sorted(sides)
    assert {side % 32 for side in sides} == {0}
    assert set(sides[15:]) == {224}
    assert growing_side(0.0, start=0.0, full=100) == 100
    assert growing_side(0.0, start=0.57, full=32) == 32
    assert growing_side(0.9, start=0.57, full=100) == 100


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_no_step_of_a_pace_is_above_the_rate(schedule):
    span = Span(epochs=4, steps_per_epoch=10, warmup_epochs=1)
    rates = [
        learning_rate(step / 7, base=0.1, schedule=schedule, span=span) for step in range(7 * span.steps)
    ]
    assert max(rates) <= 0.1 * (1 + 1e-12), "steps between the last of the warm-up and the first after it too"
