"""How unlike the training images an image is: what its features hold beside the directions of theirs.

Features of the training images, each of length 1, lie near a subspace. What an image has outside of it,
nobody has taught the network. That part's length is the score; one matrix product gives it, so that it
travels in `model.onnx`. Length 1, because blank images have short features, whose residual is short, too.
The score is held apart from the confidence: that one is for mistakes among known classes.
Source: the residual of H. Wang et al., ViM: Out-Of-Distribution with Virtual-logit Matching, CVPR 2022,
arXiv:2203.10807.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXPLAINED = 0.9  # share of the variance that the subspace holds, if it takes
MOST_DIMENSIONS = 64  # at most: more tell little more, and the file grows by 4 bytes x features for each
LEAST_IMAGES = 20  # of fewer held-out images, no quantile says what is usual
QUANTILE = 0.99  # of held-out images lie below the score 1
_ROUNDING = 1e-12  # of the largest square: what is smaller is no direction
SMALLEST = 1e-6  # of a length: below it is rounding
SMALLEST_USUAL = 1e-2  # of a residual: of a smaller one, engines' rounding of features is a visible share


@dataclass(frozen=True, eq=False)
class Unfamiliar:
    """The score of features x (images, F): the length of z - z B B' over `usual`, z = x / |x| - `centre`.

    `basis` B (F, dimensions) has orthonormal columns. `usual` is what QUANTILE of the `held_out` images have
    at most. `images` is how many it was fitted on.
    """

    centre: Floats
    basis: Floats
    usual: float
    images: int
    held_out: int

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """(images,) at least 0; above 1 an image is unfamiliar."""
        return residual_norms(unit_length(features) - self.centre, self.basis) / self.usual


def unit_length(features: NDArray[np.floating]) -> Floats:
    """(images, F) each of length 1."""
    values = np.asarray(features, np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), SMALLEST))


def residual_norms(values: Floats, basis: Floats) -> Floats:
    """(images,) the length of what `values` (images, F) have outside the columns of `basis` (F, dimensions).

    >>> residual_norms(np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]])).tolist()
    [4.0]
    """
    return np.asarray(np.linalg.norm(values - (values @ basis) @ basis.T, axis=1))


def principal_basis(values: Floats, *, explained: float = 1.0, most: int = MOST_DIMENSIONS) -> Floats:
    """(F, dimensions) orthonormal directions of `values` (images, F), those with most of their squares first.

    As few as hold the share `explained` of the sum of squares, and at most `most`.
    """
    images, features = values.shape
    wide = features > images  # the smaller of both products has the same eigenvalues
    squares, vectors = np.linalg.eigh(values @ values.T if wide else values.T @ values)
    squares, vectors = np.maximum(squares[::-1], 0), vectors[:, ::-1]
    share = np.cumsum(squares) / max(float(squares.sum()), np.finfo(float).tiny)
    there = int((squares > squares[0] * _ROUNDING).sum())
    count = min(int(np.searchsorted(share, explained - 1e-9)) + 1, most, there)
    if wide:
        vectors = values.T @ vectors[:, :count] / np.sqrt(squares[:count])
    return np.asarray(vectors[:, :count])


def fit_unfamiliar(features: NDArray[np.floating], held_out: NDArray[np.floating]) -> Unfamiliar | None:
    """The score for images like those of `features` (images, F); None where that cannot be said.

    `held_out` (images, F) are of other images of the same kind, which say what is usual. There is none for
    too few images, nor where the training images already fill all, or nearly all, that features can be.
    """
    if len(features) < LEAST_IMAGES or len(held_out) < LEAST_IMAGES:
        return None
    if not (np.isfinite(features).all() and np.isfinite(held_out).all()):
        return None
    values = unit_length(features)
    centre = values.mean(axis=0)
    most = min(MOST_DIMENSIONS, min(values.shape) // 2)
    basis = principal_basis(values - centre, explained=EXPLAINED, most=most)
    residuals = residual_norms(unit_length(held_out) - centre, basis)
    usual = float(np.quantile(residuals, QUANTILE, method="higher"))
    if not (basis.shape[1] and usual > SMALLEST_USUAL):
        return None
    return Unfamiliar(centre, basis, usual, len(features), len(held_out))
