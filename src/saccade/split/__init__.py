"""Leak-free parts: no group, near-duplicate cluster or copy ever stands on both sides of a split."""

from __future__ import annotations

from saccade.split.folding import fold_dataset, with_folds
from saccade.split.given import read_split_csv, write_split_csv
from saccade.split.making import refuse_few_images
from saccade.split.splitting import Folds, k_folds, split, verify, write_folds_csv

__all__ = [
    "Folds",
    "fold_dataset",
    "k_folds",
    "read_split_csv",
    "refuse_few_images",
    "split",
    "verify",
    "with_folds",
    "write_folds_csv",
    "write_split_csv",
]
