"""What can be given to a Predictor: images by path, in memory, or where a container keeps them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from saccade.artefact import Image
from saccade.errors import ImageError, SourceError
from saccade.images import given
from saccade.images.decoder import Limits, decode
from saccade.preprocess import RGB, PixelFormat
from saccade.records import Storage
from saccade.sources.addresses import is_remote
from saccade.sources.remote import RemoteStorage
from saccade.sources.storage import FolderStorage, Stored, read_ahead

if TYPE_CHECKING:
    from saccade.sources.listing import Listing


Content = str | ImageError | Stored | Any
Input = tuple[str, Content]  # (name, path | stored | array | Pillow image | bytes | open file | why not)


def inputs_of(
    images: Any, *, listings: dict[str, Listing] | None = None, pixels: PixelFormat = RGB
) -> Iterator[Input]:
    """Every single image of what was given, with a name: its path, or `image 3` by position.

    `listings` receives what was found in each folder; `pixels` is what the model takes.
    """
    several = _several(images, pixels)
    read_npy = not pixels.is_colour
    for position, image in enumerate([images] if several is None else several):
        if isinstance(image, str | os.PathLike):
            yield from inputs_at(os.fsdecode(image), {} if listings is None else listings, read_npy=read_npy)
        else:
            yield f"image {position}", image


def _several(images: Any, pixels: PixelFormat) -> Iterable[Any] | None:
    """What to go through one by one; None for a single image."""
    if isinstance(images, np.ndarray):
        if images.dtype.kind in "OSU" or images.shape == (0,):  # names, or images of different sizes
            return list(images.ravel().tolist())
        return images if images.ndim == 4 or _gray_stack(images, pixels) else None
    single = isinstance(images, str | os.PathLike) or given.is_encoded(images)
    return None if single or not isinstance(images, Iterable) else images


def _gray_stack(images: NDArray[Any], pixels: PixelFormat) -> bool:
    """(images, height, width), where it can be nothing else: neither RGB nor planes of colour."""
    if not pixels.is_colour:
        return pixels.count == 1 and images.ndim == 3 and images.shape[2] not in (1, 3)
    return images.ndim == 3 and images.shape[2] not in (1, 3, 4) and images.shape[0] not in (1, 3, 4)


def inputs_at(path: str, listings: dict[str, Listing], *, read_npy: bool = False) -> Iterator[Input]:
    """The path itself, or every image below it where it is a folder; hidden ones are passed over."""
    if is_remote(path):
        yield from _inputs_elsewhere(path, listings, read_npy=read_npy)
        return
    from saccade.sources.listing import list_folder

    if not os.path.isdir(path):
        yield path, path
        return
    try:
        listings[path] = list_folder(Path(path), read_npy=read_npy)
    except SourceError as error:
        yield path, ImageError(error.problem, "Allow it with: chmod u+rx FOLDER")
        return
    if not listings[path].files:
        yield path, ImageError("a folder without images", "Give a folder that holds some")
    for file in listings[path].files:
        inside = os.path.join(path, file)
        yield inside, inside


def _inputs_elsewhere(address: str, listings: dict[str, Listing], *, read_npy: bool) -> Iterator[Input]:
    from saccade.sources.inputs import given_by

    for found in given_by([address], read_npy=read_npy):
        if found.listing:
            listings[found.word] = found.listing
        yield from found.inputs()


def pixels_of(name: str, content: Content, limits: Limits) -> Image | ImageError:
    """uint8 (height, width, 3), or why there are none; never raises for what an image holds."""
    try:
        if isinstance(content, ImageError):
            return content
        if isinstance(content, Stored):
            return decode(content.storage.read(content.path), limits=limits, name=name).pixels
        if isinstance(content, str):
            return decode(read_file(content, limits), limits=limits, name=name).pixels
        return given.pixels(given.take(content, limits), limits)
    except ImageError as error:
        return error


def begun(inputs: Sequence[Input]) -> list[Input]:
    """The same inputs, of which those are being read now that lie where reading means waiting."""
    waits = [content if _is_object(content) else None for _, content in inputs]
    paths: dict[Storage, list[str]] = {}
    for stored in filter(None, waits):
        paths.setdefault(stored.storage, []).append(stored.path)
    ahead = {storage: read_ahead(storage, some) for storage, some in paths.items()}
    return [
        (name, Stored(ahead[stored.storage], stored.path) if stored else content)
        for (name, content), stored in zip(inputs, waits, strict=True)
    ]


def _is_object(content: Content) -> TypeGuard[Stored]:
    return isinstance(content, Stored) and isinstance(content.storage, RemoteStorage)


def taken(content: Content, limits: Limits) -> Content:
    """The content, safe to be decoded by another thread while the caller goes on."""
    if isinstance(content, str | Stored | ImageError):
        return content
    try:
        return given.take(content, limits)
    except ImageError as error:
        return error


def held_bytes(content: Content) -> int:
    """Memory that a content takes which `taken` returned; 0 for what is read later."""
    if isinstance(content, bytes):
        return len(content)
    if isinstance(content, given.Snapshot):
        return content.image.width * content.image.height * len(content.image.getbands())
    return content.nbytes if isinstance(content, np.ndarray) else 0


def read_file(path: str, limits: Limits) -> bytes:
    """The file's bytes; raises ImageError when it is not there, not a file, or too large."""
    if not os.path.lexists(path):
        raise ImageError("there is no such file", "Check the path")
    return FolderStorage(Path(), max_bytes=limits.max_bytes, outside=True).read(path)
