"""A user's whole path through the command line, on small real images."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from saccade.cli import commands, main

SMALL = ("--backbone", "small_cnn", "--image-size", "16", "--epochs", "1", "--batch-size", "16")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SACCADE_CACHE", raising=False)
    monkeypatch.setenv("SACCADE_TRACEBACK", "1")  # a defect must fail the test with its place


@pytest.fixture
def saccade(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Runs one command in this process, so that torch is imported once for many tests."""

    def run(*words: object) -> Answer:
        capfd.readouterr()
        monkeypatch.setattr(commands, "STARTED", time.monotonic())  # else a time limit is over already
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def saccade_process() -> Callable[..., Answer]:
    """Runs one command as a user does, in a process of its own."""

    def run(*words: object, timeout: float = 120, env: dict[str, str] | None = None) -> Answer:
        command = [sys.executable, "-m", "saccade.cli", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of timm's smallest test network as a file: random, but read like published ones."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("test_efficientnet", pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "test_efficientnet.safetensors"
    save_file(network.state_dict(), path, metadata={"arch": "test_efficientnet"})
    return path


def tiny_flags(weights: Path) -> Sequence[str]:
    return ("--backbone", "test_efficientnet", "--weights", str(weights), "--image-size", "32")
