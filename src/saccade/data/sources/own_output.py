"""Folders that saccade itself wrote: runs and audits, which may lie inside the data and are no class."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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

    A folder with images of its own is never one: an audit may be written into a class folder.
    """
    if not marks:
        return frozenset()
    with_images = {image.rpartition("/")[0] for image in images}
    own = {folder for folder, names in marks.items() if folder not in with_images and _tells(set(names))}
    if "" in own:  # the root itself; it may have other images, then the audit was written beside them
        return frozenset() if with_images else frozenset({""})
    while parents := {_parent(folder) for folder in own} - own - {""}:
        grown = own | {parent for parent in parents if _holds_only(parent, own, folders, with_images)}
        if grown == own:
            break
        own = grown
    return frozenset(folder for folder in own if _parent(folder) not in own)


def _tells(names: set[str]) -> bool:
    run = "recipe.toml" in names and len(names & _RUN) > 1
    return run or names >= _AUDIT or names == {_LOCK}  # a run that begins right now has a lock alone


def _holds_only(
    parent: str, own: Collection[str], folders: Collection[str], with_images: Collection[str]
) -> bool:
    below = [folder for folder in {*folders, *with_images} if folder.startswith(f"{parent}/")]
    inside = [any(folder == known or folder.startswith(f"{known}/") for known in own) for folder in below]
    return parent not in with_images and all(inside)


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]
