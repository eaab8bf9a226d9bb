"""Groups from file names: what `--group-pattern` finds in a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from saccade.errors import SourceError
from saccade.records import ImageRecord
from saccade.sources.naming import some


def with_groups(records: Iterable[ImageRecord], pattern: str) -> tuple[ImageRecord, ...]:
    r"""Records with the group that `pattern` finds in their path: its first group, or the whole match.

    A path in which nothing is found stops the run, because an image without its group could leak;
    a pattern that may match nothing, such as `(\d+)_|`, leaves such images without a group.

    >>> with_groups([ImageRecord("cat/12_a.jpg", "cat")], r"(\d+)_")[0].group
    '12'
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SourceError(
            f"--group-pattern is no regular expression: {pattern!r} ({error})", hint="correct it"
        ) from None
    done, failed = [], []
    for record in records:
        group = _group_in(record.path, compiled)
        if group is None:
            failed.append(record.path)
        else:
            done.append(replace(record, group=group))
    if failed:
        raise SourceError(
            f"--group-pattern {pattern!r} finds no group in {len(failed):,} of "
            f"{len(failed) + len(done):,} paths: {some(failed, most=5)}",
            hint="widen it, or end it with | to leave such images without a group",
        )
    return tuple(done)


def _group_in(path: str, pattern: re.Pattern[str]) -> str | None:
    """The first match that is not empty; "" when all are, None when there is none."""
    group = None
    for match in pattern.finditer(path):
        group = (match.group(1) if pattern.groups else match.group()) or ""
        if group:
            return group
    return group
