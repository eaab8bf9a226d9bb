"""`--sort-into`: photos in a folder for each class; none is overwritten or lost, no original is changed."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import DataError, RecipeError
from saccade.predict.predictor import Answer
from saccade.spreadsheet import write_spreadsheet
from saccade.terminal import counted

if TYPE_CHECKING:
    from saccade.terminal import Terminal

LIST, FAILED = "sorted.csv", "failed.csv"  # files in the target, beside the folders
_MOST_NAME_BYTES = 120
# Windows keeps these for devices, also with an extension behind them
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_target(
    folder: Path, photos: Iterable[str], sources: Iterable[str] = (), *, link: bool = False
) -> None:
    """Refuse a folder that photos cannot be sorted into, before any work is done.

    sources: folders that the photos were found in; copies there would be found the next time.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"--sort-into {folder} is not a folder", hint="give the name of a new folder")
    real = Path(os.path.realpath(folder))
    paths = [Path(os.path.realpath(photo)) for photo in photos]
    inside = next((path for path in paths if path.is_relative_to(real)), None)
    if inside:
        raise RecipeError(
            f"--sort-into {folder} holds photos that are to be sorted: {inside}",
            hint="give a folder beside them",
        )
    around = next((source for source in sources if real.is_relative_to(os.path.realpath(source))), None)
    if around:
        raise RecipeError(
            f"--sort-into {folder} lies in {around}, whose photos are to be sorted",
            hint="give a folder beside it",
        )
    if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise RecipeError(
            f"--sort-into {folder} is not empty",
            hint="give a new folder, so that nothing in it is mixed with these photos",
        )
    if not link:
        _check_space(real, sum(path.stat().st_size for path in paths if path.is_file()))


def _check_space(folder: Path, needed: int) -> None:
    above = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise RecipeError(
            f"--sort-into {folder} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free there",
            hint="give a folder on another disk, or add --link, which copies nothing",
        )


class Sorter:
    """Keeps of each answer what is needed to put its photo into the folder of its class, in the end."""

    def __init__(self, folder: Path, classes: tuple[str, ...], *, link: bool = False) -> None:
        self.folder, self.classes, self.link = folder, classes, link
        self._answered: dict[str, tuple[str, int, float]] = {}  # place -> path, class, confidence
        self._failed: list[tuple[str, str]] = []
        self._taken = 0

    def take(self, answer: Answer) -> None:
        """One answer; a photo that was given twice is placed once."""
        self._taken += 1
        if answer.error:
            self._failed.append((answer.path, answer.error))
            return
        winner = int(answer.probabilities.argmax())
        self._answered[os.path.abspath(answer.path)] = (answer.path, winner, answer.confidence)

    def place(self, terminal: Terminal) -> None:
        """Copy (or link) each photo that was answered into the folder of its class, and list where it went.

        Photos that could not be read go nowhere; they are listed beside.
        """
        folders = folder_names(self.classes) if self._answered else {}
        names = _Names()
        rows: list[list[Any]] = []
        with terminal.progress("linking" if self.link else "copying") as progress:
            for place, (path, winner, confidence) in self._answered.items():
                label = self.classes[winner]
                copy = names.free(folders[label], os.path.basename(place))
                _place(place, self.folder / copy, link=self.link)
                rows.append([path, copy, label, confidence])
                progress(len(rows), len(self._answered))
        write_spreadsheet(self.folder / LIST, ("path", "copy", "predicted", "confidence"), rows)
        if self._failed:
            write_spreadsheet(self.folder / FAILED, ("path", "reason"), self._failed)
        self._report(terminal, folders)

    def _report(self, terminal: Terminal, folders: dict[str, str]) -> None:
        counts = Counter(self.classes[winner] for _, winner, _ in self._answered.values())
        terminal.say(*_summary(self.folder, counts, folders))
        if self._failed:
            terminal.say(f"{len(self._failed):,} could not be read and are in no folder")
        if twice := self._taken - len(self._failed) - len(self._answered):
            terminal.say(f"{twice:,} given more than once, placed once")


def _summary(folder: Path, counts: Counter[str], folders: dict[str, str]) -> Iterator[str]:
    photos = counted(counts.total(), "photo")
    yield f"{photos} in {counted(len(counts), 'folder')} of {folder}, listed in {folder / LIST}"
    for label, name in folders.items():
        if counts[label]:
            renamed = f" (class {label!r}, which cannot be a folder's name)" if label != name else ""
            yield f"  {counts[label]:>7,}  {name}{renamed}"


def _place(source: str, target: Path, *, link: bool) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(source)
        else:
            _copy(source, target)
    except OSError as error:
        raise DataError(
            f"{source} cannot be {'linked' if link else 'copied'} to {target} ({error.strerror})",
            hint="leave --link out to copy instead" if link else "free some space or permissions there",
        ) from None


def _copy(source: str, target: Path) -> None:
    """Contents, times and permissions; where that is stopped half-way, no half a photo is left."""
    with open(source, "rb") as original, open(target, "xb") as copy:  # x: nothing is ever overwritten
        try:
            shutil.copyfileobj(original, copy, 1 << 20)
        except BaseException:
            target.unlink()
            raise
    shutil.copystat(source, target)


# -- names -----------------------------------------------------------------------------------------------


def folder_names(classes: Iterable[str]) -> dict[str, str]:
    """Class -> the name of its folder, valid on Windows, macOS and Linux, no two alike there.

    >>> folder_names(["tulip", "a/b", "a:b", "CON", ".."])
    {'tulip': 'tulip', 'a/b': 'a_b', 'a:b': 'a_b-2', 'CON': '_CON', '..': '_'}
    """
    names = _Names((LIST, FAILED))
    return {label: names.free("", _safe(label)) for label in classes}


def _safe(label: str) -> str:
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f]', "_", label)
    name = name.encode("utf-8", "replace")[:_MOST_NAME_BYTES].decode("utf-8", "ignore").rstrip(". ")
    unfit = not name or name.startswith(".") or _RESERVED.fullmatch(name)  # a dot in front hides the folder
    return f"_{name}" if unfit else name


class _Names:
    """Gives each file a name that no other one has, on disks that do not tell case or accents' encoding."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def free(self, folder: str, name: str) -> str:
        """`folder/name` with forward slashes; with -2, -3, ... before the extension where it is taken."""
        stem, dot, extension = name.rpartition(".")
        if not stem:
            stem, dot, extension = name, "", ""
        number = 1
        while True:
            tried = name if number == 1 else f"{stem}-{number}{dot}{extension}"
            place = f"{folder}/{tried}" if folder else tried
            key = unicodedata.normalize("NFC", place).casefold()
            if key not in self._taken:
                self._taken.add(key)
                return place
            number += 1
