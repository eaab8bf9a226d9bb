"""What a request may cost. Every limit is a flag of `saccade serve`."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.errors import RecipeError
from saccade.images.decoder import Limits
from saccade.serve.problems import TooManyPixels
from saccade.threads import usable_cores

BODY_SECONDS = 10.0  # for the head and for the body of a request, so that slow clients do not stay


@dataclass(frozen=True)
class ServeLimits:
    """max_body: bytes of a body, as sent and decompressed. max_pixels: of one image. max_images: of one
    request. queue: images waiting or in work. timeout: seconds from a request's head to its answer.
    threads: images in work at once.
    """

    max_body: int = 10_000_000
    max_pixels: int = 25_000_000
    max_images: int = 32
    queue: int = 64
    timeout: float = 10.0
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("max_body", "max_pixels", "max_images", "queue", "timeout"):
            if not getattr(self, name) > 0:
                flag = f"--{name.replace('_', '-')}"
                raise RecipeError(
                    f"{flag} must be more than 0, got {getattr(self, name)}", hint="leave it out"
                )
        if self.threads < 0:
            raise RecipeError(f"--threads must not be negative, got {self.threads}", hint="leave it out")

    @property
    def workers(self) -> int:
        return self.threads or usable_cores()


@dataclass(frozen=True, slots=True)
class HttpLimits(Limits):
    """As `Limits`, with words for somebody who sends an image to a server."""

    def check_size(self, width: int, height: int) -> None:
        if min(width, height) > 0 and width * height > self.max_pixels:
            raise TooManyPixels(
                f"{width:,} x {height:,} pixels, more than this server's limit of {self.max_pixels:,}",
                "Scale it down before sending it",
            )
        # by its name: slots make a new class, which `super()` here would not know
        Limits.check_size(self, width, height)
