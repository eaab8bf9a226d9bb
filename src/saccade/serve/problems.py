"""What the server refuses: each with its status, a fixed word for the metrics, and what is wrong in words."""

from __future__ import annotations

from collections.abc import Mapping

from saccade.errors import ImageError


class Refused(Exception):
    """A request that gets no prediction.

    `reason` is one of few fixed words, a label of the metrics. The message goes to the client, so it holds
    no path of this machine.
    """

    def __init__(
        self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})


class QueueFull(Refused):
    """More work is waiting than `--queue` allows."""

    def __init__(self) -> None:
        super().__init__(503, "queue_full", "the queue is full; try again", {"Retry-After": "1"})


class DeadlinePassed(Refused):
    """The request was not answered within `--timeout`; what had not begun of it was not run."""

    def __init__(self) -> None:
        super().__init__(504, "deadline", "not answered in time; the server is busy, try again")


class HungUp(Refused):
    """The client is gone. Nobody reads the status, 499 as in other servers' logs."""

    def __init__(self) -> None:
        super().__init__(499, "hung_up", "the client closed the connection")


class TooManyPixels(ImageError):
    """An image above `--max-pixels`, found in its header."""

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return TooManyPixels, (self.reason, self.remedy)


def refused_image(error: ImageError) -> Refused:
    """One image that cannot be used, as the answer to its request.

    >>> refused_image(ImageError("no image", "Send a JPEG")).status
    400
    """
    if isinstance(error, TooManyPixels):
        return Refused(413, "too_many_pixels", image_words(error))
    return Refused(400, "bad_image", image_words(error))


def image_words(error: ImageError) -> str:
    """Why an image cannot be used, and the remedy, for a client."""
    return f"{error.reason}. {error.remedy}"
