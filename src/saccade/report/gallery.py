"""Pictures of a page: each image decoded once, by all cores, while the page is put together."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType

from saccade.images.decoder import DEFAULT_LIMITS, Limits
from saccade.images.thumbnails import THUMBNAIL_PIXELS, Heat, ReadImage, Thumbnail, thumbnail
from saccade.threads import usable_cores


class Coming:
    """The thumbnail of the image at `path`, which may still be in the making; `made` waits for it."""

    def __init__(self, path: str, future: Future[Thumbnail]) -> None:
        self.path, self._future = path, future

    @property
    def made(self) -> Thumbnail:
        return self._future.result()


class Gallery:
    """Gives the thumbnail of an image by its path; use it as a context, since it has threads.

    `at_hand`: whether there are images at all.

    >>> with Gallery(None) as picture:
    ...     picture("a.jpg").made.missing
    'image not at hand'
    """

    def __init__(self, read_image: ReadImage | None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.at_hand = read_image is not None
        self._make = partial(thumbnail, read_image=read_image, limits=limits)
        self._workers = ThreadPoolExecutor(usable_cores())
        self._pictures: dict[tuple[str, int, Heat | None], Coming] = {}

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.shutdown(cancel_futures=True)

    def __call__(self, path: str, *, side_pixels: int = THUMBNAIL_PIXELS, heat: Heat | None = None) -> Coming:
        """The image, its long side at most `side_pixels`, with a heat over it where one is given."""
        key = (path, side_pixels, heat)
        if key not in self._pictures:
            making = self._workers.submit(self._make, path, side_pixels=side_pixels, heat=heat)
            self._pictures[key] = Coming(path, making)
        return self._pictures[key]
