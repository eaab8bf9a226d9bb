"""What the files of a folder must hold: the SHA-256 and size of each, in one file that is checked itself.

A file is announced here before it is put in place. Until the next write both are right: what stood there
before, and what was announced. So a process may be killed at any moment, and no file looks damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from saccade.files import json_text

NAME = "manifest.json"
SCHEMA = 1


class Content(NamedTuple):
    """What a file holds, in short."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` by name below the folder, with forward slashes. `writing` is what was announced last (a file,
    or the files of a folder), which may not be in place yet. `command` is what makes them
    again."""

    files: Mapping[str, Content] = field(default_factory=dict)
    writing: Mapping[str, Content] = field(default_factory=dict)
    command: tuple[str, ...] = ()

    def accepts(self, name: str, found: Content) -> bool:
        """Whether a file of this name may hold that."""
        return found in (self.files.get(name), self.writing.get(name))

    def problem(self, name: str, found: Content) -> str:
        """What is wrong with a file, in words; "" for nothing."""
        if self.accepts(name, found):
            return ""
        known = self.files.get(name) or self.writing.get(name)
        if known is None:
            return "it is not in the manifest"
        if found.size != known.size:
            return f"{found.size:,} bytes instead of {known.size:,}"
        return f"its SHA-256 is {found.sha256[:12]} instead of {known.sha256[:12]}"

    def announcing(self, name: str, content: Content) -> Manifest:
        """With one more file that is about to be written; `settled` comes first."""
        return replace(self, writing={name: content})

    def announcing_folder(self, name: str, contents: Mapping[str, Content]) -> Manifest:
        """With a folder that is about to be put in place whole: what else was in it is forgotten before."""
        kept = {
            known: content
            for known, content in self.files.items()
            if known in contents or not known.startswith(f"{name}/")
        }
        return replace(self, files=kept, writing=dict(contents))

    def settled(self, found: Mapping[str, Content]) -> Manifest:
        """With the announced file counted in where `found` shows it in place, else forgotten."""
        arrived = {name: content for name, content in self.writing.items() if found.get(name) == content}
        return replace(self, files={**self.files, **arrived}, writing={})

    def without(self, name: str) -> Manifest:
        """Without a file, which was removed."""
        return replace(
            self,
            files={known: content for known, content in self.files.items() if known != name},
            writing={known: content for known, content in self.writing.items() if known != name},
        )

    def made_by(self, command: Sequence[str]) -> Manifest:
        return replace(self, command=tuple(command))

    def to_text(self) -> str:
        """JSON with a SHA-256 over the rest, so that damage to the manifest itself is seen."""
        body: dict[str, Any] = {
            "schema": SCHEMA,
            "command": list(self.command),
            "files": _entries(self.files),
            "writing": _entries(self.writing),
        }
        return json_text({**body, "sha256": _checksum(body)})

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """What `to_text` wrote; raises ValueError for anything else."""
        try:
            body = dict(json.loads(text))
            if body.pop("sha256") != _checksum(body) or body["schema"] != SCHEMA:
                raise ValueError("its SHA-256 does not match")
            files, writing = ({n: Content(**c) for n, c in body[key].items()} for key in ("files", "writing"))
            return cls(files, writing, tuple(body["command"]))
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def _entries(files: Mapping[str, Content]) -> dict[str, dict[str, Any]]:
    return {name: content._asdict() for name, content in sorted(files.items())}


def _checksum(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
