"""Muon against the definition by singular values, and against torch's own SGD."""

from __future__ import annotations

import torch

from saccade.plan import OptimizerPlan
from saccade.testing.tiny import tiny_classifier
from saccade.training.muon import Muon, nesterov, newton_schulz
from saccade.training.optimizers import build_optimizer


def test_orthogonalised_has_the_singular_vectors_and_values_near_one() -> None:
    matrix = torch.randn(24, 90, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ newton_schulz(matrix) @ right.T
    off_diagonal = values - torch.diag(values.diagonal())
    assert off_diagonal.abs().max() < 1e-3
    assert values.diagonal().min() > 0.6
    assert values.diagonal().max() < 1.3


def test_a_tall_matrix_is_done_lying_down() -> None:
    matrix = torch.randn(70, 12, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(newton_schulz(matrix), newton_schulz(matrix.T).T)


def test_without_filters_it_is_torchs_sgd() -> None:
    ours, theirs = (torch.nn.Linear(4, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    muon = Muon([{"params": list(ours.parameters()), "rate_share": 2.0}], lr=0.05, momentum=0.8)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.8, nesterov=True)
    for seed in range(4):
        images = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        for network, optimizer in ((ours, muon), (theirs, sgd)):
            optimizer.zero_grad()
            torch.autograd.backward(network(images).square().sum())
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_filters_keep_their_length_and_step_by_a_share_of_it() -> None:
    filters = torch.nn.Parameter(torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(2)))
    before, length = filters.detach().clone(), filters.detach().norm()
    optimizer = Muon([{"params": [filters], "orthogonal": True}], lr=0.1, momentum=0.6)
    filters.grad = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    optimizer.step()
    share = (filters.detach() - before).norm() / length
    assert 0.07 < share < 0.13  # the rate, times singular values near 1
    optimizer.step()
    filters.grad = torch.zeros_like(filters)
    optimizer.step()
    assert 0.8 < filters.detach().norm() / length < 1.2


def test_the_recipes_muon_knows_filters_head_and_vectors_apart() -> None:
    optimizer = build_optimizer(tiny_classifier(), 0.24, OptimizerPlan("muon"))
    kinds = [(group["orthogonal"], group["rate_share"]) for group in optimizer.param_groups]
    assert kinds == [(True, 1.0), (False, 2.8), (False, 0.22)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(tiny_classifier().parameters())
    )


def test_nesterov_looks_ahead() -> None:
    buffer = torch.tensor([1.0])
    assert torch.allclose(nesterov(torch.tensor([2.0]), buffer, 0.5), torch.tensor([2.0 + 0.5 * 2.5]))
    assert buffer == 2.5
