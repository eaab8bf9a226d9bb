"""Where weights come from, and whether their licence is one that needs no question."""

from __future__ import annotations

import re
from dataclasses import dataclass

from saccade.errors import ModelError

# at the beginning, or in brackets at the end: "a network of somebody (Apache-2.0)"
PERMISSIVE = re.compile(r"(^|\()(apache|mit|bsd)\b[^()]*(\)$|$)", re.IGNORECASE)
UNKNOWN = "unknown"  # published weights for which nobody states a licence


@dataclass(frozen=True, slots=True)
class Origin:
    """`source` is a package, a published name with its tag, or a path; `licence` "" where a file states none.

    `sha256` of the weights file, where it is known beforehand.

    >>> Origin("timm/resnet18.a1_in1k", "apache-2.0").is_permissive
    True
    >>> Origin("timm/convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0").is_permissive
    False
    """

    source: str
    licence: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        return f"weights: {self.source}, licence {self.licence or 'not stated'}"

    @property
    def is_permissive(self) -> bool:
        """Apache, MIT or BSD; or a file of the user's own, which states none."""
        return not self.licence or bool(PERMISSIVE.search(self.licence))

    def as_json(self) -> dict[str, str]:
        values = {"source": self.source, "licence": self.licence}
        return {**values, "sha256": self.sha256} if self.sha256 else values

    def check_licence(self, accepted: str) -> None:
        """Raise ModelError unless the licence is permissive, or the one that was accepted by its name.

        >>> Origin("timm/convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0").check_licence("CC-BY-NC-4.0")
        """
        if not self.is_permissive and self.licence.lower() != accepted.lower():
            got = f", and {accepted} was accepted" if accepted else ""
            raise ModelError(
                f"the licence of the weights {self.source} is not Apache, MIT or BSD: {self.licence}{got}",
                hint=f"read it, and accept it with --accept-licence {self.licence}; or choose other weights",
            )
