"""Doors for parts from outside: registered by a call in Python, or entry points of installed packages.

| to add          | in Python                        | entry point group       | check in `saccade.testing` |
|-----------------|----------------------------------|-------------------------|----------------------------|
| an augmentation | `register_augmentation(name, f)` | `saccade.augmentations` | `check_augmentation`       |
| a backbone      | `register_backbone(name, f)`     | `saccade.backbones`     | `check_backbone`           |
| a callback      | `register_callback(factory)`     | `saccade.callbacks`     | `check_callback`           |
| a format        | `register_format(name, f)`       | `saccade.formats`       | `check_format`             |
| a source        | `register_source(name, f)`       | `saccade.sources`       | `check_source`             |

A package names its parts in its `pyproject.toml`:

    [project.entry-points."saccade.backbones"]
    acme_net = "acme.networks:acme_net"

A network or an augmentation may also be named by its function, `package.module:build`. Such a name is
imported only where the user says it: by a flag, in Python, or in SACCADE_BACKBONES and SACCADE_AUGMENTATIONS
(names with commas between them). A recipe file, a model or a run folder that names one runs nothing
(promise 10).

Nothing of another package is imported before somebody asks for a name that is not saccade's own, or, for
callbacks, before training starts. saccade's own names cannot be replaced.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

from saccade.errors import SaccadeError

Group = Literal["augmentations", "backbones", "callbacks", "formats", "sources"]

_registered: dict[Group, dict[str, Any]] = {group: {} for group in get_args(Group)}
_named_by_user: set[tuple[Group, str]] = set()


class _Functions(NamedTuple):
    """How functions of a group are named, and what they must be."""

    kind: str
    flag: str
    variable: str
    shape: str
    check: str


_FUNCTIONS: dict[Group, _Functions] = {
    "backbones": _Functions(
        "backbone",
        "--backbone",
        "SACCADE_BACKBONES",
        "build(classes, *, weights, **options) that returns a torch.nn.Module",
        "check_backbone",
    ),
    "augmentations": _Functions(
        "augmentation",
        "--augment.extra",
        "SACCADE_AUGMENTATIONS",
        "augment(image, rng) that returns an image",
        "check_augmentation",
    ),
}


def register_augmentation(name: str, augment: Callable[..., Any]) -> None:
    """Let `augment.extra` name `augment(image, rng) -> image`: uint8 (3, side, side), by `rng` alone."""
    _registered["augmentations"][name] = augment


def register_backbone(name: str, build: Callable[..., Any]) -> None:
    """Let `--backbone name` mean `build(classes, *, weights, **options) -> nn.Module`.

    Its last dense layer gives the logits. Parameters `image_size` and `head` are filled in where `build` has
    them. A second registration under the same name replaces the first, as in a notebook.
    """
    _registered["backbones"][name] = build


def register_callback(factory: Callable[[], Any]) -> None:
    """Let every training that starts in this process have a `saccade.training.Callback` from `factory()`."""
    _registered["callbacks"][f"{factory.__module__}.{factory.__qualname__}"] = factory


def register_format(name: str, format: Any) -> None:
    """Let `saccade export RUN --format name` write a `saccade.export.Format`."""
    _registered["formats"][name] = format


def register_source(name: str, load: Callable[..., Any]) -> None:
    """Let a location `name:REST` be read by `load(REST)`, which gives a `saccade.records.Dataset`."""
    _registered["sources"][name] = load


def function_name(build: Callable[..., Any]) -> str:
    """`module:name` of a function, as `--backbone` takes it.

    >>> function_name(accepted)
    'saccade.extensions:accepted'
    """
    named = build if hasattr(build, "__qualname__") else type(build)
    return f"{named.__module__}:{named.__qualname__}"


def register_function(function: Callable[..., Any], group: Group = "backbones") -> str:
    """Let `module:name` of this function mean it in this process; returns that name.

    Raises SaccadeError for a network instead of the function that makes it.
    """
    if group == "backbones":
        _refuse_network(function)
    name = function_name(function)
    _registered[group][name] = function
    return name


def _refuse_network(found: object) -> None:
    torch = sys.modules.get("torch")  # where there is a network, torch has been imported
    if torch and isinstance(found, torch.nn.Module):
        name = type(found).__name__
        raise SaccadeError(
            f"the backbone is a network (an instance of {name}), not a function that makes one",
            hint=f"give the class or a function build(classes), not a network: backbone={name}",
        )


def is_function_name(text: str) -> bool:
    """Whether a name is `module:function`.

    >>> is_function_name("acme.networks:build"), is_function_name("timm/resnet18")
    (True, False)
    """
    return ":" in text


def allow_function(name: object, group: Group = "backbones") -> None:
    """Remember that the user named this function, so that `named_function` may import it."""
    if isinstance(name, str) and is_function_name(name):
        _named_by_user.add((group, name))


def named_function(name: str, group: Group = "backbones") -> Callable[..., Any]:
    """The function `module:function`: one that was registered, or that the user named.

    Raises SaccadeError where it was named by a file, cannot be imported, or is not there.
    """
    if name in _registered[group]:
        found: Callable[..., Any] = _registered[group][name]
        return found
    kind, flag, variable, *_ = _FUNCTIONS[group]
    module, _, function = name.partition(":")
    if module == "__main__" or "<" in function:
        raise SaccadeError(
            f"{kind} {name} is a function of the script or notebook that trained with it, and not here",
            hint=f"put it into a module and use {flag} module:function, or give the function in Python",
        )
    if (group, name) not in _named_by_user and name not in os.environ.get(variable, "").split(","):
        raise SaccadeError(
            f"{kind} {name} is code, and no code runs because a file names it",
            hint=f"where you trust it: {flag} {name}, or {variable}={name} before the command",
        )
    return _imported(name, module, function, group)


def _imported(name: str, module: str, function: str, group: Group) -> Callable[..., Any]:
    """The only import by a name that is no entry point; the user typed that name."""
    # found before: what lies in this folder is not installed, and only `name` was asked for
    for known in _registered:
        _points(known)
    kind, _, _, shape, _ = _FUNCTIONS[group]
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` has it
    try:
        found = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # code of others may raise whatever it likes
        raise SaccadeError(
            f"{kind} {name}: {_why_not(error, module)}", hint=_naming_remedy(module, function)
        ) from error
    if group == "backbones":
        _refuse_network(found)
    if not callable(found):
        raise SaccadeError(
            f"{kind} {name} is a {type(found).__name__}, not a function", hint=f"name a function {shape}"
        )
    return found


def _why_not(error: BaseException, module: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
        return f"there is no module {error.name!r}"
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return f"the module {module!r} has no {error.name!r}"
    return f"importing it failed: {type(error).__name__}: {error}"


def _naming_remedy(module: str, function: str) -> str:
    if module.endswith(".py") or "/" in module:
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        return f"name the module, not the file: {dotted}:{function or 'build'}"
    return "give module:function, of a module in this folder or an installed package"


def names(group: Group) -> tuple[str, ...]:
    """Every name from outside, sorted; imports nothing of other packages."""
    return tuple(sorted({*_registered[group], *(point.name for point in _points(group))}))


def find(group: Group, name: str) -> Any | None:
    """The part of that name, imported on first use; None where nobody offers one.

    Raises SaccadeError, naming the package, where it cannot be imported or where two packages offer it.
    """
    if group in _FUNCTIONS and is_function_name(name):
        return named_function(name, group)
    return _registered[group].get(name) or _loaded(group, name)


def callbacks() -> tuple[Callable[[], Any], ...]:
    """A factory for each callback from outside: those of installed packages by name, then registered ones.

    Raises SaccadeError, naming the package, where one cannot be imported; so does a factory that fails.
    """
    offered = sorted(_points("callbacks"), key=lambda point: (point.name, _origin(point)))
    return (*(_guarded(point) for point in offered), *_registered["callbacks"].values())


def accepted(function: Callable[..., Any], **wanted: Any) -> dict[str, Any]:
    """Those of `wanted` that a function from outside has a parameter for.

    >>> accepted(lambda classes, image_size: None, image_size=64, head="mlp")
    {'image_size': 64}
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return wanted
    taken = {parameter.name for parameter in parameters}
    return {name: value for name, value in wanted.items() if name in taken}


@contextlib.contextmanager
def blaming(group: Group, name: str) -> Iterator[None]:
    """Within it an error of an installed package's part becomes a SaccadeError that names the package.

    Errors of parts that were registered in Python pass: whoever wrote them wants the traceback.
    """
    if is_function_name(name) and name not in _registered[group]:
        with _blaming_function(name, group):
            yield
        return
    point = None if name in _registered[group] else _point(group, name)
    with _blaming(point) if point else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _blaming_function(name: str, group: Group) -> Iterator[None]:
    try:
        yield
    except SaccadeError:
        raise
    except Exception as error:  # code of others may raise whatever it likes
        raise SaccadeError(
            f"{_FUNCTIONS[group].kind} {name} failed: {type(error).__name__}: {error}",
            hint=f"correct the function; saccade.testing.{_FUNCTIONS[group].check} says what it must keep to",
        ) from error


@cache
def _points(group: Group) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"saccade.{group}"))


def _point(group: Group, name: str) -> EntryPoint | None:
    offered = [point for point in _points(group) if point.name == name]
    if len(offered) > 1:
        raise SaccadeError(
            f"two packages offer {name!r} in saccade.{group}: {' and '.join(map(_origin, offered))}",
            hint="uninstall one of them",
        )
    return offered[0] if offered else None


@cache
def _loaded(group: Group, name: str) -> Any | None:
    point = _point(group, name)
    return _load(point) if point else None


def _load(point: EntryPoint) -> Any:
    with _blaming(point):
        return point.load()


def _guarded(point: EntryPoint) -> Callable[[], Any]:
    factory = _load(point)

    def make() -> Any:
        with _blaming(point):
            return factory()

    return make


@contextlib.contextmanager
def _blaming(point: EntryPoint) -> Iterator[None]:
    try:
        yield
    except SaccadeError:
        raise
    except (Exception, SystemExit) as error:  # code of others may raise whatever it likes
        package = point.dist.name if point.dist else "its package"
        raise SaccadeError(
            f"{_origin(point)} failed: entry point {point.name} = {point.value} of {point.group}: "
            f"{type(error).__name__}: {error}",
            hint=f"update {package}, or remove it: pip uninstall {package}",
        ) from error


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package without metadata"
