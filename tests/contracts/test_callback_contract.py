"""Our own callbacks keep the callback contract, and the contract finds one that does not."""

from __future__ import annotations

import io

import pytest
import torch

from saccade.terminal import Terminal
from saccade.testing import check_callback
from saccade.training import Callback, TerminalProgress


class DrawsAndScribbles(Callback):
    """Draws random numbers and overwrites the weights it was shown: neither may matter."""

    def on_step(self, progress) -> None:
        torch.rand(7)

    def on_epoch_end(self, state, row) -> None:
        for tensor in state.weights().values():
            tensor.zero_()


class Meddler(Callback):
    """Reaches around what it is given."""

    def on_epoch_end(self, state, row) -> None:
        (job,) = (cell.cell_contents for cell in state.weights.__closure__)
        with torch.no_grad():
            job.classifier.head[1].bias += 0.1


@pytest.mark.parametrize(
    "make",
    [Callback, DrawsAndScribbles, lambda: TerminalProgress(Terminal(stream=io.StringIO()))],
    ids=["base", "draws", "terminal"],
)
def test_callbacks_only_watch(make):
    check_callback(make)


def test_a_callback_that_changes_the_weights_is_found():
    with pytest.raises(AssertionError, match="it may only watch"):
        check_callback(Meddler)


def test_the_terminal_is_told_every_epoch():
    stream = io.StringIO()
    check_callback(lambda: TerminalProgress(Terminal(stream=stream)))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "epoch   1 head" in lines[0]
    assert "epoch   3 finetune" in lines[2]
    assert "validation loss" in lines[2]
