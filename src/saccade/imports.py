"""Imports without what comes along unasked: torch's compiler, and a telemetry that forks.

Training here does not use torch's compiler. Importing it costs 0.9 s of one core before the first training
step (torch 2.15; n = 7 starts each, 3.6 against 4.5 s). Three libraries load it while they are imported:
torchvision asks it whether it works here, timm marks functions that it must not touch, and lightning-fabric
imports its class of compiled modules. So these answers are put off until they matter.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
TELEMETRY = "openvino_telemetry"
STARTS_ANEW = "lightning_fabric"  # which cannot be imported again on top of half of it
TRIED = (2, 15)  # the newest torch that the tests run with, as constraints.txt says; a newer one gets it all


def import_training_libraries() -> None:
    """torch and its companions, quickly; versions that ask more of the compiler get all of it."""
    import torch

    tried = tuple(map(int, torch.__version__.split(".")[:2])) <= TRIED
    try:
        with compiler_put_off() if tried else contextlib.nullcontext():
            _import_companions()
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == STARTS_ANEW]:
            del sys.modules[name]
        _import_companions()


def _import_companions() -> None:
    import lightning_fabric  # noqa: F401
    import timm  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401


@contextlib.contextmanager
def compiler_put_off() -> Iterator[None]:
    """Inside, what is asked of torch's compiler is answered without it, and rightly once it is needed."""
    import torch

    if COMPILER in sys.modules:
        yield
        return
    stand_ins = _stand_ins()
    own_disable = torch.compiler.disable
    sys.modules.update(stand_ins)
    torch.compiler.disable = functools.partial(_disabled_once_called, own_disable)
    try:
        yield
    finally:
        torch.compiler.disable = own_disable
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def import_openvino() -> Any:
    """openvino with its own stub in place of its telemetry.

    The telemetry forks this process to send. OpenBLAS ends its threads before a fork, and numpy, computing
    in another thread just then, waits for them for ever (seen once in a few dozen trainings). Nor is it
    anybody's business what is computed here.
    """
    if "openvino" not in sys.modules:
        there = {TELEMETRY: sys.modules[TELEMETRY]} if TELEMETRY in sys.modules else {}
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # as if it were not installed
        try:
            import openvino  # noqa: F401
        finally:
            del sys.modules[TELEMETRY]
            sys.modules.update(there)
    return sys.modules["openvino"]


class _IfCompiled(type):
    """The type of a class whose instances are those of the compiler's own class, once that is loaded."""

    def __instancecheck__(cls, instance: object) -> bool:
        own = getattr(sys.modules.get(COMPILER), cls.__name__, None)
        return own is not None and own is not cls and isinstance(instance, own)


class OptimizedModule(metaclass=_IfCompiled):
    """Stands for `torch._dynamo.OptimizedModule`."""


def _stand_ins() -> dict[str, ModuleType]:
    """The two modules that something is imported from."""
    package, utilities = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    package.__path__ = []
    package.utils = utilities  # type: ignore[attr-defined]
    package.OptimizedModule = OptimizedModule  # type: ignore[attr-defined]
    utilities.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    return {module.__name__: module for module in (package, utilities)}


def _is_compile_supported(device: str) -> Any:
    """torch's own answer."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device)


def _disabled_once_called(
    disable: Callable[..., Any], function: Callable[..., Any] | None = None, *options: Any, **named: Any
) -> Callable[..., Any]:
    """`torch.compiler.disable`, carried out when the function is called for the first time."""
    if function is None:
        return functools.partial(_disabled_once_called, disable, **named)

    @functools.cache
    def disabled() -> Callable[..., Any]:
        made: Callable[..., Any] = disable(function, *options, **named)
        return made

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return disabled()(*arguments, **keywords)

    return call
