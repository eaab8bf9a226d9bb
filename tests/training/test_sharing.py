"""What each of several processes computes of a batch, without processes: rows, masks, BatchNorm."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from saccade.training.global_batch import GlobalBatch, Rows
from saccade.training.learner import even_parts
from saccade.training.sharing import pieces


@given(st.integers(1, 70), st.integers(0, 40), st.integers(1, 6))
def test_every_row_of_a_batch_counts_once(images: int, at_once: int, processes: int) -> None:
    all_pieces = [pieces(images, at_once, number, processes) for number in range(processes)]
    counted = [row for own in all_pieces for piece in own if piece.counts for row in piece.rows]
    assert sorted(counted) == list(range(images))
    alone = [range(images)[part] for part in even_parts(images, at_once or images)]
    assert [piece.whole for piece in all_pieces[0]] == alone, "BatchNorm sees what it sees in one process"
    for together in zip(*all_pieces, strict=True):
        assert len({piece.whole for piece in together}) == 1, "all are at the same piece"
        assert all(len(piece.rows) for piece in together), "none computes nothing, which layers may not bear"
        rows = [row for piece in together if piece.counts for row in piece.rows]
        assert rows == list(together[0].whole), "slices are contiguous, in the order of the processes"


class Circle:
    """Threads that add up tensors, each waiting for the others."""

    def __init__(self, count: int) -> None:
        self.barrier, self.given = threading.Barrier(count), [torch.zeros(0)] * count

    def adding(self, number: int) -> Callable[[Tensor], Tensor]:
        def add_up(tensor: Tensor) -> Tensor:
            self.given[number] = tensor.clone()
            self.barrier.wait(timeout=20)
            tensor.copy_(torch.stack(self.given).sum(0))
            self.barrier.wait(timeout=20)
            return tensor

        return add_up

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        found: list[Any] = [None] * len(self.given)

        def one(number: int) -> None:
            found[number] = work(number)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def rows_of(
    number: int, processes: int, images: int, add_up: Callable[[Tensor], Tensor] | None = None
) -> Rows:
    start, stop = (images * turn // processes for turn in (number, number + 1))
    return Rows(start, stop, images, number, processes, add_up or (lambda tensor: tensor))


def normed() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 7))
    return nn.Sequential(network, nn.BatchNorm1d(7, affine=False)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("reduced", [False, True])
def test_batch_norm_over_processes_is_that_of_the_whole_batch(processes: int, reduced: bool) -> None:
    images = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 5
    images = images.to(memory_format=torch.channels_last)
    weights = torch.randn(10, 7, generator=torch.Generator().manual_seed(2))

    def learnt(network: nn.Module, part: slice) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            answers = network(images[part])
        (answers.float() * weights[part]).sum().backward()
        return answers.detach().float()

    whole, circle = normed(), Circle(processes)
    copies = [copy.deepcopy(whole) for _ in range(processes)]
    expected = learnt(whole, slice(0, 10))

    def work(number: int) -> Tensor:
        rows = rows_of(number, processes, 10, circle.adding(number))
        network = copies[number]
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced), GlobalBatch(rows):
            answers = network(images[rows.start : rows.stop])
        (answers.float() * weights[rows.start : rows.stop]).sum().backward()
        return answers.detach().float()

    tolerance = {"atol": 0.2, "rtol": 0.1} if reduced else {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(torch.cat(circle.run(work)), expected, **tolerance)
    for name, buffer in whole.named_buffers():
        held = [dict(network.named_buffers())[name] for network in copies]
        assert all(torch.equal(other, held[0]) for other in held), f"{name} is the same on each"
        if not reduced:
            torch.testing.assert_close(held[0], buffer, atol=1e-5, rtol=1e-5)
    if not reduced:
        for name, parameter in whole.named_parameters():
            parts = [dict(network.named_parameters())[name].grad for network in copies]
            torch.testing.assert_close(sum(parts), parameter.grad, atol=2e-4, rtol=1e-3, msg=name)


def drop_path(values: Tensor) -> Tensor:
    return values * values.new_empty((len(values), 1, 1, 1)).bernoulli_(0.7).div_(0.7)


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda values: functional.dropout(values, 0.3),
    "dropout of features": lambda values: functional.dropout(values.flatten(1), 0.3),
    "dropout2d": lambda values: functional.dropout2d(values, 0.3),
    "drop path": drop_path,
    "parts of images": lambda values: functional.dropout(values.reshape(-1, 4), 0.5),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_masks_are_those_of_the_whole_batch_bit_for_bit(
    name: str, order: torch.memory_format, processes: int
) -> None:
    images = torch.randn(9, 4, 6, 6, generator=torch.Generator().manual_seed(1)).contiguous(
        memory_format=order
    )

    def drawn(number: int) -> list[Tensor]:
        torch.manual_seed(7)
        rows = rows_of(number, processes, 9)
        with GlobalBatch(rows):
            # the second follows the first's random numbers
            return [MASKS[name](images[rows.start : rows.stop]) for _ in range(2)]

    torch.manual_seed(7)
    whole = [MASKS[name](images) for _ in range(2)]
    for expected, parts in zip(whole, zip(*map(drawn, range(processes)), strict=True), strict=True):
        assert torch.equal(torch.cat(parts), expected)


def test_evaluation_is_left_alone() -> None:
    images, network = torch.randn(4, 3, 8, 8), normed().eval()
    with GlobalBatch(rows_of(0, 2, 8)):
        assert torch.equal(network(images), network(images))
        assert torch.equal(functional.dropout(images, 0.5, training=False), images)
