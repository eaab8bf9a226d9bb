"""Several processes that train together: what they tell each other, over torch.distributed.

Process 0 leads. Before each thing that all do together it says what comes, as JSON over gloo; the others wait
for its word, however long that takes. Sums go over nccl where each process has a GPU, else over gloo.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from saccade.errors import TrainingError
from saccade.processes import Place
from saccade.runtime import in_threads

PATIENCE = timedelta(days=30)  # how long helpers wait for a word
MEETING = timedelta(minutes=5)  # until all have come
TIMEOUT = timedelta(minutes=30)  # for what all do at the same time
WORD_BYTES, LENGTH_BYTES = 2048, 8
INTERFACE = "GLOO_SOCKET_IFNAME"

Word = dict[str, Any]


class Over(Exception):
    """Process 0 has ended its command, with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"process 0 has ended with exit code {code}")
        self.code = code


class Team:
    """The processes, as each of them sees them.

    `threads`: with how many each computes what all do together; 0 leaves that as it is. `who_is_gone` names a
    process that has ended too early, where that can be known. `remedy` is what to do then.
    """

    def __init__(self, place: Place, *, threads: int = 0) -> None:
        self.place, self.threads = place, threads
        self.who_is_gone: Callable[[], str] = lambda: ""
        self.remedy = "give the same command again: it goes on from the last checkpoint"
        self.busy_since = 0.0
        self._broken = False
        self._words: Any = None

    def join(self, *, backend: str, store: Callable[[], dist.Store]) -> None:  # type: ignore[name-defined]
        """Meet the others in the store that each of them opens."""
        number, count = self.place.number, self.place.count
        near = _loopback() if self.place.near else contextlib.nullcontext()
        try:
            with self.exchange(), near:
                found = store()
                found.set(f"here-{number}", "")
                found.wait([f"here-{other}" for other in range(count)], MEETING)
                found.set_timeout(TIMEOUT)
                dist.init_process_group(backend, store=found, timeout=TIMEOUT, rank=number, world_size=count)
                self._words = dist.new_group(backend="gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise self._stuck("the processes could not meet", error) from None

    def leave(self) -> None:
        """Close the connections, if they still stand."""
        if not self._broken and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def clean(self) -> bool:
        """Whether all stand where they can hear the next word."""
        return not self._broken and not self.busy_since

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """What all do together, inside. Where an error ends it, the others are stuck in the middle of it."""
        self.busy_since = time.monotonic()
        yield
        self.busy_since = 0.0

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Within it this process uses its share of the machine's cores."""
        with in_threads(self.threads) if self.threads else contextlib.nullcontext():
            yield

    # -- words -------------------------------------------------------------------------------------------

    def tell(self, word: Word) -> None:
        """Process 0 says what comes."""
        with self.exchange():
            text = json.dumps(word).encode()
            head, room = bytearray(WORD_BYTES), WORD_BYTES - LENGTH_BYTES
            head[:LENGTH_BYTES] = len(text).to_bytes(LENGTH_BYTES, "big")
            head[LENGTH_BYTES : LENGTH_BYTES + min(room, len(text))] = text[:room]
            self._broadcast(torch.frombuffer(head, dtype=torch.uint8))
            if len(text) > room:
                self._broadcast(torch.frombuffer(bytearray(text[room:]), dtype=torch.uint8))

    def hear(self) -> Word:
        """A helper waits for what comes; raises Over at the end of the command."""
        head = torch.zeros(WORD_BYTES, dtype=torch.uint8)
        self._broadcast(head)
        data = head.numpy().tobytes()
        length, text = int.from_bytes(data[:LENGTH_BYTES], "big"), data[LENGTH_BYTES:]
        if length > len(text):
            rest = torch.zeros(length - len(text), dtype=torch.uint8)
            self._broadcast(rest)
            text += rest.numpy().tobytes()
        word: Word = json.loads(text[:length])
        if word["do"] == "end":
            raise Over(word["code"])
        return word

    # -- numbers -----------------------------------------------------------------------------------------

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place, bit for bit the same on each."""
        self._together(dist.all_reduce, tensor)
        return tensor

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """What process 0 has in these tensors, into those of all."""
        parts = [_bytes_of(tensor) for tensor in tensors]
        if not parts:
            return
        whole = torch.cat(parts)
        self._broadcast(whole)
        if not self.place.leads:
            sizes = [len(part) for part in parts]
            for tensor, found in zip(tensors, torch.split(whole, sizes), strict=True):
                # a copy, because memory of one type cannot be read as another where it begins anywhere
                values = found.clone().view(tensor.dtype).view(tensor.shape)
                with torch.no_grad():
                    tensor.copy_(values)

    def collect(self, numbers: Sequence[int], rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows of all processes in the order of their numbers, on process 0; empty on the others.

        Raises TrainingError unless each number from 0 on comes exactly once.
        """
        if not self.place.leads:
            self._send(torch.tensor([len(numbers), rows.shape[1] if len(numbers) else 0]))
            if len(numbers):
                self._send(torch.tensor(numbers))
                self._send(torch.from_numpy(np.ascontiguousarray(rows)))
            return rows[:0]
        parts = [(np.asarray(numbers, np.int64), rows)]
        parts += [self._received(number) for number in range(1, self.place.count)]
        order = np.concatenate([own for own, _ in parts])
        if not np.array_equal(np.sort(order), np.arange(len(order))):
            raise TrainingError(
                f"{len(order)} images came from {self.place.count} processes, but not each exactly once",
                hint="please report this",
            )
        values = np.concatenate([found for _, found in parts if len(found)])
        sorted_: NDArray[np.float32] = values[np.argsort(order)]
        return sorted_

    def _received(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        size = self._take(torch.zeros(2, dtype=torch.int64), number).tolist()
        if not size[0]:
            return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        numbers = self._take(torch.zeros(size[0], dtype=torch.int64), number)
        return numbers.numpy(), self._take(torch.zeros(size), number).numpy()

    # -- torch.distributed -------------------------------------------------------------------------------

    def _broadcast(self, tensor: Tensor) -> None:
        self._together(dist.broadcast, tensor, 0, group=self._words)

    def _send(self, tensor: Tensor) -> None:
        self._together(dist.send, tensor, 0, group=self._words)

    def _take(self, tensor: Tensor, number: int) -> Tensor:
        self._together(dist.recv, tensor, number, group=self._words)
        return tensor

    def _together(self, do: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return do(*given, **named)
        except RuntimeError as error:
            raise self._stuck("another process has gone", error) from None

    def _stuck(self, what: str, error: Exception) -> TrainingError:
        self._broken = True
        first_line = str(error).strip().partition("\n")[0]
        who = self.who_is_gone() or f"{what} ({first_line})"
        return TrainingError(f"{who}: {self.place} cannot go on", hint=self.remedy)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").reshape(-1).contiguous().view(torch.uint8)


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Within it gloo listens on this machine's own interface, which nobody else reaches."""
    names = [name for _, name in socket.if_nameindex()] if hasattr(socket, "if_nameindex") else []
    own = next((name for name in ("lo", "lo0") if name in names), "")
    if not own or INTERFACE in os.environ:
        yield
        return
    os.environ[INTERFACE] = own
    try:
        yield
    finally:
        del os.environ[INTERFACE]
