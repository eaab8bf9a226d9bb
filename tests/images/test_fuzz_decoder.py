"""Damaged files, a few hundred of the 20,000 that `benchmarks/fuzz_decoder.py` makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fuzz_decoder.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    specification = importlib.util.spec_from_file_location("fuzz_decoder", BENCHMARK)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_only_image_errors_and_no_output(fuzz: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings are errors in this run; `run` raises for any other exception, and for more than a second."""
    outcomes, longest = fuzz.run(300, seed=1)
    assert sum(outcomes.values()) == 300
    assert outcomes["refused"] >= 150
    assert outcomes["decoded"] + outcomes["noted"] >= 30
    assert longest <= fuzz.MOST_SECONDS
    assert capfd.readouterr() == ("", "")


def test_the_seed_files_are_sound_and_many(fuzz: ModuleType) -> None:
    files = fuzz.seed_files()
    packages = ("pillow_heif", "pillow_jxl")
    assert len(files) == 30 + 2 * sum(importlib.util.find_spec(name) is not None for name in packages)
    for name, data in files.items():
        assert fuzz.decode(data).pixels.size, name


def test_mutations_are_a_function_of_the_seed(fuzz: ModuleType) -> None:
    first, again, other = (list(fuzz.mutations(30, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
