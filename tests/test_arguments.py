"""Messages that name flags, in the words of `ImageClassifier`."""

from __future__ import annotations

import pytest

from saccade.arguments import in_python

SAID = {
    "give --out a new folder, or the same settings": "give out= a new folder, or the same settings",
    "use --method full, or --method tail or finetune": 'use method="full", or method="tail" or finetune',
    "ask for fewer parts (--split.test 0)": "ask for fewer parts (split__test=0)",
    "--no-pretrained and --weights a/b.pt exclude": 'pretrained=False and weights="a/b.pt" exclude',
    "give a file with --weights FILE.": 'give a file with weights="FILE".',
    "with --train.class-weights, or add --repair-split to": 'with train__class_weights="auto", or add '
    "repair_split=True to",
    "or --no-train.class_weights to weigh none": 'or train__class_weights="none" to weigh none',
    "leave --precision at auto": "leave precision= at auto",
    "more rate (--finetune-lr 1e-4)": "more rate (finetune_lr=1e-4)",
    "say where they are with --data": "say where they are with --data",
    "saccade export runs/a --out b": "saccade export runs/a --out b",
}


@pytest.mark.parametrize("text", SAID)
def test_flags_become_arguments(text: str) -> None:
    assert in_python(text) == SAID[text]
