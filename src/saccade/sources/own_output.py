"""Folders that saccade itself wrote: runs and audits, which may lie inside the data and are no class."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

_LOCK = ".lock"
_RUN = frozenset({"recipe.toml", "environment.json", "dataset.csv", _LOCK})
_AUDIT = frozenset({"audit.json", "audit.html"})


def is_mark(name: str) -> bool:
    """Whether a file of this name may tell such a folder."""
    return name in _RUN or name in _AUDIT


def own_folders(
    marks: Mapping[str, Collection[str]], folders: Collection[str], images: Collection[str]
) -> frozenset[str]:
    """The topmost folders that hold nothing but runs and audits, "" for the root; `marks` tell them.

    A folder with images of its own is never one, and what may have been put into any folder (an audit, a
    lock) tells nothing where images lie below: a class or a part would be lost.
    """
    if not marks:
        return frozenset()
    with_images = {image.rpartition("/")[0] for image in images}
    above_images = {folder for inner in with_images for folder in _with_parents(inner)}
    own = {
        folder
        for folder, names in marks.items()
        if folder not in with_images
        and (_is_run(names) or (_may_be_anywhere(names) and folder not in above_images))
    }
    if "" in own:  # the root itself; it may have other images, then the audit was written beside them
        return frozenset() if with_images else frozenset({""})
    while parents := {_parent(folder) for folder in own} - own - {""}:
        grown = own | {parent for parent in parents if _holds_only(parent, own, folders, with_images)}
        if grown == own:
            break
        own = grown
    return frozenset(folder for folder in own if _parent(folder) not in own)


def _is_run(names: Collection[str]) -> bool:
    return "recipe.toml" in names and len(_RUN.intersection(names)) > 1


def _may_be_anywhere(names: Collection[str]) -> bool:
    """Whether these are an audit's files, or the lock that a run has alone when it begins."""
    return _AUDIT.issubset(names) or set(names) == {_LOCK}


def _with_parents(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = _parent(folder)
    yield ""


def _holds_only(
    parent: str, own: Collection[str], folders: Collection[str], with_images: Collection[str]
) -> bool:
    below = [folder for folder in {*folders, *with_images} if folder.startswith(f"{parent}/")]
    inside = [any(folder == known or folder.startswith(f"{known}/") for known in own) for folder in below]
    return parent not in with_images and all(inside)


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]
