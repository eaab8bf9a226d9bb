"""Examples in docstrings run, and every public function has its arguments explained."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from PIL import Image

import saccade

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def modules_with_examples() -> list[str]:
    """Found in the source text, so that nothing heavy is imported to collect the tests."""
    found = []
    for module in pkgutil.walk_packages(saccade.__path__, "saccade.", onerror=lambda _: None):
        spec = importlib.util.find_spec(module.name)
        if spec is not None and spec.origin and ">>>" in Path(spec.origin).read_text("utf-8"):
            found.append(module.name)
    return sorted([*found, "saccade"])


def write_coloured(folder: Path, images: int, seed: int) -> None:
    """`images` pictures of each colour, no two alike: 32 pixels, coarse random brightness."""
    random = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(images):
            light = Image.fromarray(random.integers(60, 255, (5, 5), dtype=np.uint8))
            shade = np.asarray(light.resize((32, 32), Image.Resampling.BICUBIC)) / 255.0
            pixels = shade[..., None] * np.array(colour)
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / label / f"{number}.png")


@pytest.fixture(scope="module")
def example_folder(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run: photos/, new_photos/ and model.onnx, which knows the three colours."""
    folder = tmp_path_factory.mktemp("examples")
    write_coloured(folder / "photos", 16, seed=0)
    write_coloured(folder / "new_photos", 8, seed=1)
    make_model(folder / "model.onnx")
    return folder


@pytest.fixture
def _at_examples(example_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example_folder)
    monkeypatch.setenv("SACCADE_CACHE", str(example_folder / "cache"))
    return


MODULES = modules_with_examples()


def test_many_modules_have_examples() -> None:
    assert len(MODULES) > 20
    assert {"saccade", "saccade.classifier", "saccade.recipe.recipe", "saccade.predict.predictor"} <= set(
        MODULES
    )


@pytest.mark.usefixtures("_at_examples")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    """Those of one module share their names: a class's example makes what those of its methods use."""
    module = importlib.import_module(name)
    shared = dict(vars(module))
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    tested = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tested
    said: list[str] = []
    for test in tested:
        test.globs = shared
        runner.run(test, out=said.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


WITH_EXAMPLES = (
    *("saccade.recipe.reading", "saccade.recipe.docs", "saccade.evaluation.metrics"),
    *("saccade.evaluation.calibration", "saccade.evaluation.intervals"),
)


def public_functions(module: ModuleType) -> list[tuple[str, FunctionType]]:
    return [
        (name, member)
        for name, member in vars(module).items()
        if isinstance(member, FunctionType) and member.__module__ == module.__name__ and name[0] != "_"
    ]


def methods(owner: type) -> list[tuple[str, FunctionType]]:
    """Public methods and class methods that stand in the class itself, and the class under its own name."""
    found = [(name, getattr(member, "__func__", member)) for name, member in vars(owner).items()]
    return [(name, member) for name, member in found if isinstance(member, FunctionType) and name[0] != "_"]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_every_public_function_has_an_example(name: str) -> None:
    functions = public_functions(importlib.import_module(name))
    assert functions
    assert [short for short, function in functions if ">>>" not in (function.__doc__ or "")] == []


def test_every_public_name_explains_its_arguments() -> None:
    classes = [saccade.ImageClassifier, saccade.Predictor, saccade.Recipe]
    explained: list[tuple[str, str | None, object]] = [
        (f"{owner.__name__}.{name}", method.__doc__, method)
        for owner in classes
        for name, method in methods(owner)
    ]
    explained += [
        (owner.__name__, owner.__doc__, owner.__init__)  # type: ignore[misc]
        for owner in (saccade.ImageClassifier, saccade.Predictor)
    ]
    explained += [("load", saccade.load.__doc__, saccade.load)]
    for module in ("saccade.recipe.reading", "saccade.preprocess"):
        functions = public_functions(importlib.import_module(module))
        explained += [(name, function.__doc__, function) for name, function in functions]
    assert len(explained) > 25
    missing = [
        f"{name}: {argument}"
        for name, text, function in explained
        for argument in inspect.signature(function).parameters  # type: ignore[arg-type]
        if argument not in ("self", "cls", "handler") and not re.search(rf"\b{argument}\b", text or "")
    ]
    assert missing == []
