"""The score of unfamiliar images: what its formula says, and that it tells far from near."""

import numpy as np
import pytest

from saccade.evaluation.unfamiliar import fit_unfamiliar, principal_basis, residual_norms


def naive_residuals(values, dimensions):
    """One image after the other, off the leading right singular vectors."""
    _, _, directions = np.linalg.svd(values, full_matrices=False)
    found = []
    for value in values:
        rest = value.copy()
        for direction in directions[:dimensions]:
            rest -= (value @ direction) * direction
        found.append(np.linalg.norm(rest))
    return np.array(found)


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_residuals_are_those_of_a_loop_over_singular_vectors(shape):
    values = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    basis = principal_basis(values, most=5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(residual_norms(values, basis), naive_residuals(values, 5), rtol=1e-9)


def test_as_few_directions_as_hold_the_share():
    values = np.diag([3.0, 2.0, 1.0])  # squares 9, 4, 1
    for share, count in ((0.6, 1), (0.9, 2), (0.95, 3), (1.0, 3)):
        assert principal_basis(values, explained=share).shape == (3, count)
    assert principal_basis(np.zeros((4, 3))).shape == (3, 0)


def drawn(images, seed, outside=0.0):
    """Images of features near four directions of 20, and `outside` of them."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(4, 20))
    strange = np.random.default_rng(98).normal(size=20)
    noise = 0.1 * random.normal(size=(images, 20))
    return 5 + random.normal(size=(images, 4)) @ directions + noise + outside * strange


def test_a_hundredth_of_usual_images_lie_above_1_and_all_strange_ones():
    fitted = fit_unfamiliar(drawn(300, 0), drawn(500, 1))
    usual, strange = fitted.scores(drawn(5000, 2)), fitted.scores(drawn(100, 3, outside=3.0))
    assert 0.002 < (usual > 1).mean() < 0.03
    assert (strange > 1).all()
    assert (fitted.images, fitted.held_out) == (300, 500)


def test_the_length_of_features_changes_no_score():
    fitted, images = fit_unfamiliar(drawn(100, 0), drawn(100, 1)), drawn(50, 2)
    lengths = np.geomspace(1e-3, 1e3, 50)[:, None]
    np.testing.assert_allclose(fitted.scores(images), fitted.scores(images * lengths), rtol=1e-6)
    assert np.isfinite(fitted.scores(np.zeros((1, 20)))).all()


def test_where_it_cannot_be_said_there_is_none():
    few, enough = drawn(10, 0), drawn(50, 1)
    assert fit_unfamiliar(few, enough) is None
    assert fit_unfamiliar(enough, few) is None
    assert fit_unfamiliar(np.zeros((50, 20)), np.zeros((50, 20))) is None
    assert fit_unfamiliar(enough * np.nan, enough) is None
    assert fit_unfamiliar(enough[:, :1], enough[:, :1]) is None
    random = np.random.default_rng(0)
    along = 1 + 0.01 * random.normal(size=(80, 1)) @ random.normal(size=(1, 20))
    hardly_beside = along + 1e-4 * random.normal(size=(80, 20))
    assert fit_unfamiliar(hardly_beside[:40], hardly_beside[40:]) is None
