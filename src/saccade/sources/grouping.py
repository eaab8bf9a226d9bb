"""Groups from file names: what `--group-pattern` finds in a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from saccade.errors import SourceError
from saccade.records import ImageRecord
from saccade.sources.naming import some

SHOWN_PATHS = 5


def with_groups(records: Iterable[ImageRecord], pattern: str) -> tuple[ImageRecord, ...]:
    r"""Records with the group that `pattern` finds in their path: its first group, or the whole match.

    A path in which nothing is found stops the run, because an image without its group could leak;
    a pattern that may match nothing, such as `(\d+)_|`, leaves such images without a group.

    >>> with_groups([ImageRecord("cat/12_a.jpg", "cat")], r"(\d+)_")[0].group
    '12'
    """
    compiled = compiled_pattern(pattern)
    done, failed = [], []
    for record in records:
        group = group_in(record.path, compiled)
        if group is None:
            failed.append(record.path)
        else:
            done.append(replace(record, group=group))
    if failed:
        raise no_group(pattern, failed[:SHOWN_PATHS], len(failed), len(failed) + len(done))
    return tuple(done)


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression; raises SourceError for what is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SourceError(
            f"--group-pattern is no regular expression: {pattern!r} ({error})", hint="correct it"
        ) from None


def no_group(pattern: str, first: Sequence[str], failed: int, total: int) -> SourceError:
    """The refusal of paths without a group, of which the first are named."""
    more = f" and {failed - len(first):,} more" if failed > len(first) else ""
    return SourceError(
        f"--group-pattern {pattern!r} finds no group in {failed:,} of {total:,} paths: {some(first)}{more}",
        hint="widen it, or end it with | to leave such images without a group",
    )


def group_in(path: str, pattern: re.Pattern[str]) -> str | None:
    """The first match that is not empty; "" when all are, None when there is none."""
    group = None
    for match in pattern.finditer(path):
        group = (match.group(1) if pattern.groups else match.group()) or ""
        if group:
            return group
    return group
