"""--out with an address: a command writes on this disk, and what it wrote is uploaded once it has finished.

An upload that fails loses nothing: the same command only uploads, since a note beside the output says which
command has finished.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from saccade.cli.commands import demo, index, search, split, train, typed_words
from saccade.errors import RecipeError, RunError, SaccadeError
from saccade.files import file_size, files_below, lock_file, parse_json, read_text
from saccade.processes import of_launcher
from saccade.sources.addresses import above, is_remote
from saccade.sources.outputs import check_output, place_of, upload
from saccade.terminal import Terminal, counted

Command = Callable[..., int | None]
_ON_THIS_DISK = ("sort_into", "contact_sheet", "plot", "slurm_script")  # what else is written
_GO_ON_FROM_THE_OUTPUT = (split, index)
_FINISHED = ".finished.json"
_LEFT_HERE = ("checkpoints", "debug")  # of a run


def uploading(command: Command, given: inspect.BoundArguments) -> Command:
    """The command itself, or where --out is an address, one that uploads what the command writes there.

    Raises RecipeError for addresses where none can be.
    """
    for name in _ON_THIS_DISK:
        if is_remote(str(given.arguments.get(name) or "")):
            raise RecipeError(
                f"--{name.replace('_', '-')} takes a name on this disk, got {given.arguments[name]}",
                hint="only --out may be an address",
            )
    if resumed := given.arguments.get("resume"):
        address = _address_of(resumed)
        return _in_its_place(_run, command, address, resumed) if address else command
    address = str(given.arguments.get("out") or "")
    if not is_remote(address):
        return command
    if command is train:
        return _in_its_place(_run, command, address, "")
    if command in (search, demo):
        raise RecipeError(
            f"saccade {command.__name__} writes into a folder while it runs, got --out {address}",
            hint="give --out a folder on this disk, and copy that when it is finished",
        )
    return _in_its_place(_files, command, address)


def _in_its_place(run: Callable[..., int], command: Command, *more: str) -> Command:
    return functools.update_wrapper(functools.partial(run, command, *more), command)


# -- files -------------------------------------------------------------------------------------------------


def _files(command: Command, address: str, *arguments: Any, **flags: Any) -> int:
    """What the command writes beside and below a place on this disk, uploaded, and removed here."""
    terminal = Terminal()
    check_output(address)
    place = place_of(address)
    with _locked(place.parent, address):
        code = _finished_before(place, terminal)
        if code is None:
            terminal.say(f"Output    in {place.parent} until it is uploaded to {address}")
            if command in _GO_ON_FROM_THE_OUTPUT:
                _take_earlier(address, place)
            code = command(*arguments, **{**flags, "out": str(place)}) or 0
            _note_finished(place, code)
        _upload(_with_addresses(place, address), address, terminal)
        shutil.rmtree(place.parent)
    return code


@contextlib.contextmanager
def _locked(folder: Path, address: str) -> Iterator[None]:
    """Within it no other command writes for the same address; raises RunError while one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+b") as file:
        if not lock_file(file.fileno()):
            raise RunError(
                f"another saccade is writing for {address}, in {folder}",
                hint="wait until it has ended, or give --out another address",
            )
        yield


def _take_earlier(address: str, place: Path) -> None:
    """The output of an earlier command, which this one renews."""
    from saccade.sources.remote import fetch

    if not fetch(address, place):
        place.unlink(missing_ok=True)


def _finished_before(place: Path, terminal: Terminal) -> int | None:
    """The exit code of the same command where only its upload is still to be made; else None."""
    note = place.parent / _FINISHED
    try:
        found = parse_json(read_text(note))
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note.stat().st_mtime))
    except (OSError, ValueError):
        return None
    if found.get("command") != _this_command():
        _empty(place.parent)  # of files that this command may not write anew
        return None
    terminal.say(
        f"Output    finished by the same command, {ended}; only its upload is left (to begin anew, remove "
        f"{place.parent})"
    )
    return int(found["code"])


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _note_finished(place: Path, code: int) -> None:
    from saccade.run_folder import json_bytes, write_bytes

    write_bytes(place.parent / _FINISHED, json_bytes({"command": _this_command(), "code": code}))


def _this_command() -> list[str]:
    return [os.getcwd(), *typed_words.get()]


def _with_addresses(place: Path, address: str) -> list[tuple[Path, str]]:
    """Each file with its address; the one that --out names comes last."""
    beside = [path for path in files_below(place.parent) if path.parent == place.parent and path != place]
    pairs = [(path, f"{above(address)}/{path.name}") for path in beside if not path.name.startswith(".")]
    if place.is_dir():
        inside = files_below(place)
        return pairs + [(path, f"{address}/{path.relative_to(place).as_posix()}") for path in inside]
    return [*pairs, (place, address)] if place.exists() else pairs


# -- runs --------------------------------------------------------------------------------------------------


def _run(command: Command, address: str, resumed: str, *arguments: Any, **flags: Any) -> int:
    """A run that is trained in a folder on this disk, and uploaded when it is finished."""
    digest = hashlib.sha256(address.encode()).hexdigest()[:6]  # two addresses may read alike
    name = re.sub(r"[^\w.-]+", "-", address)
    folder = Path(resumed or Path("runs", f"{name}-{digest}"))
    out = {} if resumed else {"out": str(folder)}
    if not of_launcher().leads:
        return command(*arguments, **{**flags, **out}) or 0
    terminal = Terminal()
    check_output(address)
    terminal.say(f"Run       in {folder}, uploaded to {address} when it is finished")
    code = command(*arguments, **{**flags, **out}) or 0
    if _is_finished(folder):
        _upload(_of_run(folder, address), address, terminal, f"; checkpoints stay in {folder}")
    return code


def _is_finished(folder: Path) -> bool:
    from saccade.run_folder import RunFolder

    run = RunFolder(folder)
    return run.environment.exists() and run.read_record().finished


def _of_run(folder: Path, address: str) -> list[tuple[Path, str]]:
    """Each file of a finished run with its address; manifest.json, which names all, comes last."""
    names = [path.relative_to(folder) for path in files_below(folder)]
    kept = [name for name in names if not _stays(name.parts)]
    kept.sort(key=lambda name: name.as_posix() == "manifest.json")
    return [(folder / name, f"{address}/{name.as_posix()}") for name in kept]


def _stays(parts: Sequence[str]) -> bool:
    return any(part in _LEFT_HERE or part.startswith(".") for part in parts)


def _address_of(run: str) -> str:
    """The address that a run is uploaded to when it is finished; "" without one."""
    from saccade.run_folder import RunFolder

    try:
        words = RunFolder(Path(run)).read_record().command
    except (SaccadeError, OSError):
        return ""  # the command itself says what is wrong with the run
    named = [after for word, after in itertools.pairwise(words) if word == "--out"]
    named += [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
    return next((address for address in named if is_remote(address)), "")


# -- uploads -----------------------------------------------------------------------------------------------


def _upload(files: Sequence[tuple[Path, str]], address: str, terminal: Terminal, more: str = "") -> None:
    total = sum(path.stat().st_size for path, _ in files)
    with terminal.progress("uploading", "files") as progress:
        for done, (path, target) in enumerate(files, start=1):
            upload(path, target)
            progress(done, len(files))
    terminal.say(f"Uploaded  {address} ({counted(len(files), 'file')}, {file_size(total)}{more})")
