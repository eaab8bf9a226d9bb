"""The file that a path in a list means, also where the list was written on another system.

Windows writes backslashes and tells no case; macOS writes accents in another Unicode form. A file that is
found in such a way is used when there is one only.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from saccade.files import is_utf8


class Lookup(Protocol):
    """Where the files of a list lie."""

    def exists(self, path: str) -> bool:
        """Whether there is a file of exactly this path."""
        ...

    def alike(self, path: str) -> list[str]:
        """Paths of files that differ from this one in Unicode form or case only."""
        ...


class FolderLookup:
    """Files below a folder, or beside it (../); each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._names: dict[str, dict[str, list[str]]] = {}

    def exists(self, path: str) -> bool:
        return os.path.isfile(os.path.join(self._root, path))

    def alike(self, path: str) -> list[str]:
        found = [""]
        for piece in path.split("/"):
            found = [
                f"{folder}/{name}" if folder else name
                for folder in found
                for name in ([piece] if piece in ("..", ".") else self._inside(folder).get(form(piece), []))
            ]
        return [candidate for candidate in found if self.exists(candidate)]

    def _inside(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = defaultdict(list)
            try:
                for name in os.listdir(os.path.join(self._root, folder)):
                    names[form(name)].append(name)
            except OSError:
                names.clear()
            self._names[folder] = names
        return self._names[folder]


class Unseen:
    """Objects in a bucket: each is taken to be there, and is set aside where it cannot be read."""

    def exists(self, path: str) -> bool:
        return True

    def alike(self, path: str) -> list[str]:
        return []


class MemberLookup:
    """Members of an archive."""

    def __init__(self, members: Collection[str]) -> None:
        self._members = members
        self._forms: dict[str, list[str]] | None = None

    def exists(self, path: str) -> bool:
        return path in self._members

    def alike(self, path: str) -> list[str]:
        if self._forms is None:
            self._forms = defaultdict(list)
            for name in self._members:
                self._forms[form(name)].append(name)
        return self._forms.get(form(path), [])


# What spreadsheets write where they are not asked for UTF-8, the usual one first.
SPREADSHEET_ENCODINGS = {"cp1252": "Windows-1252", "cp1250": "Windows-1250", "mac_roman": "Mac Roman"}


def form(name: str) -> str:
    """The same for names that differ in Unicode form or case only."""
    return unicodedata.normalize("NFC", name).casefold()


def find(path: str, lookup: Lookup) -> tuple[str, str]:
    """The path of the file that `path` means and how it differs from it; ("", why) without one."""
    if lookup.exists(path):
        return path, ""
    forward = os.path.normpath(path.replace("\\", "/"))
    if forward != path and lookup.exists(forward):
        return forward, "backslashes"
    alike = lookup.alike(forward)
    same_case = [name for name in alike if _nfc(name) == _nfc(forward)]
    if len(same_case or alike) == 1:
        return (same_case or alike)[0], "Unicode form" if same_case else "upper and lower case"
    if alike:
        return "", f"{len(alike)} files differ from it in upper and lower case only"
    if not is_utf8(path):
        return _find_by_encoding(forward, lookup) or ("", "no such file, and the list is not UTF-8 here")
    return "", "no such file (its backslashes read as /)" if forward != path else "no such file"


def _find_by_encoding(path: str, lookup: Lookup) -> tuple[str, str] | None:
    """The file that the path's bytes name in an encoding of spreadsheets; None without one."""
    data = path.encode("utf-8", "surrogateescape")
    for encoding, name in SPREADSHEET_ENCODINGS.items():
        with contextlib.suppress(UnicodeDecodeError):
            found, _ = find(data.decode(encoding), lookup)
            if found:
                return found, f"encoding ({name})"
    return None


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
