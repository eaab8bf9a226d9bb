"""What a run started from, for its documents: the pretrained weights, and the data by name and content."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from saccade.report.facts import Facts
from saccade.terminal import printable

# as SPDX spells them: https://spdx.org/licenses
SPDX = (
    *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0"),
    *("CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0"),
)
PUBLISHED = ("timm/", "torchvision/")  # before the name of weights; else it is a file's or a package's
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Weights:
    """The pretrained weights: a published name, a package with its version, or the name of a file.

    `licence` "" where none is stated, `sha256` "" where the file's is not known. `is_file`: a file was given.
    """

    source: str
    licence: str
    sha256: str
    is_file: bool = False

    @property
    def name_and_version(self) -> tuple[str, str]:
        """A package's version stands behind its name; other weights have none."""
        package = None if self.is_file else re.fullmatch(r"(\S+) (\S+)", self.source)
        return (package[1], package[2]) if package else (self.source, "")

    @property
    def spdx(self) -> str:
        """The licence's identifier; "" where it has none, or none that is known here."""
        return next((name for name in SPDX if name.lower() == self.licence.lower()), "")

    @property
    def hub_name(self) -> str:
        """The model's name on the Hugging Face Hub, where timm's published weights stand; else ""."""
        return self.source if re.fullmatch(r"timm/[\w.-]+", self.source) else ""


def weights_of(facts: Facts) -> Weights | None:
    """None where the network was trained from scratch, or the run does not tell."""
    resolved = facts.record.resolved
    stored: Mapping[str, Any] = facts.model.get("training", {}).get("weights", {})
    source = str(stored.get("source") or resolved.get("model.weights_source", ""))
    if not source or resolved.get("model.pretrained") is False:
        return None
    licence = stored.get("licence") or resolved.get("model.weights_licence", "")
    sha256 = stored.get("sha256") or resolved.get("model.weights_sha256", "")
    name = _without_folders(source)
    is_file = name != source or bool(resolved.get("model.weights"))
    return Weights(name, str(licence), str(sha256), is_file)


def _without_folders(source: str) -> str:
    return source if source.startswith(PUBLISHED) else PurePath(source).name or source


def data_name(facts: Facts) -> str:
    """The last part of where the data lay: a document that is passed on tells no more of a disk."""
    location = facts.record.data.rstrip("/")
    return one_line(PurePath(location).name or location) or "images"


def without_folders(text: str, facts: Facts) -> str:
    """A text of the run with the names of data and weights in the place of where they lie on its disk."""
    weights = facts.recipe.model.weights if facts.recipe else ""
    places = {facts.record.root, facts.record.data, weights if PurePath(weights).is_absolute() else ""}
    for place in sorted(places, key=len, reverse=True):
        if PurePath(place).name:
            text = text.replace(place, PurePath(place).name)
    return text


def images_by_part(facts: Facts) -> dict[str, int]:
    """Images in use, by part."""
    return dict(Counter(record.part for record in facts.dataset if record.used and record.part))


def one_line(text: str) -> str:
    """Text that a file of another kind can hold: one line, everything visible, valid in UTF-8."""
    return printable(" ".join(text.split()))
