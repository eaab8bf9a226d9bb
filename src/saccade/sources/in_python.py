"""Images and labels that were given in Python, as a folder that is a data set like any other.

    inputs.json       where the paths of the list begin, and the type of the labels
    images.csv        path,label[,part][,group]
    000000-....png    an image that was given as array, Pillow image, bytes or open file

Arrays and Pillow images are stored without loss as PNG, or as .npy where the recipe declares their channels;
the bytes of image files stay as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from saccade.errors import LEFT_OUT, ImageError, OtherRunError, SourceError
from saccade.images import given
from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.records import Dataset
from saccade.sources.lists import load_given
from saccade.sources.naming import some
from saccade.sources.storage import FolderStorage
from saccade.sources.tables import read_text_table
from saccade.terminal import printable

ABOUT, LIST = "inputs.json", "images.csv"
_ENDINGS = {
    b"\xff\xd8": ".jpg",
    b"\x89P": ".png",
    b"RI": ".webp",
    b"GI": ".gif",
    b"II": ".tif",
    b"MM": ".tif",
    b"\x93N": ".npy",
}


def is_inputs(folder: Path) -> bool:
    return (folder / ABOUT).is_file() and (folder / LIST).is_file()


def load_inputs(folder: Path, *, min_classes: int = 2) -> Dataset:
    """The data set in a folder that `write_inputs` made."""
    from saccade.run_folder import read_json

    several = bool(read_json(folder / ABOUT).get("several", False))
    table = read_text_table(folder / LIST)
    return load_given(table, root_of_inputs(folder), several=several, min_classes=min_classes)


def root_of_inputs(folder: Path) -> Path:
    """The folder in which the paths of these images begin."""
    from saccade.run_folder import read_json

    return folder / str(read_json(folder / ABOUT).get("root", "."))


def kind_of_labels(location: str | Path) -> str:
    """The type that labels had for the user: "str", or "int" or "bool" where they were given in Python."""
    from saccade.run_folder import read_json

    folder = Path(location)
    return str(read_json(folder / ABOUT).get("labels", "str")) if is_inputs(folder) else "str"


def write_inputs(
    folder: Path,
    images: Sequence[Any],
    labels: Sequence[str],
    *,
    kind: str = "str",
    several: bool = False,
    groups: Sequence[str] = (),
    parts: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Make `folder` a data set of images (paths, or what `images.given` takes) with a label each.

    several: each label is a set of names, as `saccade.label_sets` writes it.
    Raises SourceError, naming them, for images that are not there or are none, and RunError where the
    folder holds other images.
    """
    from saccade.run_folder import csv_bytes, json_bytes  # brings pydantic, which predicting does without

    paths = all(isinstance(image, str) for image in images)
    root = _common_folder(images) if paths else folder.absolute()
    contents = {} if paths else _contents(images, limits)
    names = [os.path.relpath(image, root) for image in images] if paths else list(contents)
    columns: dict[str, Sequence[str]] = {
        "path": [name.replace(os.sep, "/") for name in names],
        "label": labels,
    }
    columns |= {"part": parts} if parts else {}
    columns |= {"group": groups} if groups else {}
    rows = list(zip(*columns.values(), strict=True))
    about: dict[str, Any] = {"root": str(root) if paths else ".", "labels": kind}
    about |= {"several": True} if several else {}
    _write(folder, csv_bytes(list(columns), rows), json_bytes(about), contents)
    return folder


def _write(folder: Path, listed: bytes, about: bytes, contents: dict[str, bytes]) -> None:
    from saccade.run_folder import write_bytes

    if is_inputs(folder):
        if ((folder / LIST).read_bytes(), (folder / ABOUT).read_bytes()) != (listed, about):
            raise OtherRunError(
                f"{folder.parent} holds a run of other images or labels", hint="give out= a new folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    write_bytes(folder / LIST, listed)
    write_bytes(folder / ABOUT, about)  # last: the folder is whole now


def _common_folder(paths: Sequence[str]) -> Path:
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        folders = sum(os.path.isdir(path) for path in absent)
        what = "are folders" if folders == len(absent) else "do not exist"
        raise SourceError(
            f"{len(absent):,} of the {len(paths):,} images {what}: {some(absent, most=3)}",
            hint="correct the paths (root= says where they begin), or leave these out",
        )
    folders_of = {os.path.dirname(os.path.abspath(path)) for path in paths}
    try:
        return Path(os.path.commonpath(folders_of))
    except ValueError:
        raise SourceError("the images lie on several drives", hint="copy them to one") from None


def _contents(images: Sequence[Any], limits: Limits) -> dict[str, bytes]:
    """File name -> bytes, in order; the name holds a hash, so that the list tells which images they are."""
    found, problems = {}, []
    for position, image in enumerate(images):
        try:
            data = _encoded(image, limits)
        except ImageError as error:
            problems.append(f"image {position}: {error}".replace(LEFT_OUT, ". "))
            continue
        ending = _ENDINGS.get(data[:2], ".image")
        found[f"{position:06d}-{hashlib.sha256(data).hexdigest()[:12]}{ending}"] = data
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        shown = printable(problems[0])
        raise SourceError(
            f"{len(problems):,} of {len(images):,} images cannot be used: {shown}{more}",
            hint="correct them, or leave them out together with their labels",
        )
    return found


def _encoded(image: Any, limits: Limits) -> bytes:
    if isinstance(image, str):
        return FolderStorage(Path(), max_bytes=limits.max_bytes, outside=True).read(image)
    taken = given.take(image, limits)
    if isinstance(taken, bytes):
        return taken
    file, pixels = io.BytesIO(), given.pixels(taken, limits)
    if limits.pixels.is_colour:
        Pillow.fromarray(pixels).save(file, "PNG", compress_level=1)
    else:
        np.save(file, pixels, allow_pickle=False)
    return file.getvalue()
