"""Runs within a larger one (a fold, a trial of a search): they begin with what is known of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saccade.pipeline.division import FOLDS
from saccade.recipe import Recipe
from saccade.records import ImageRecord
from saccade.run_folder import RunFolder


def begin_within(
    whole: RunFolder,
    run: RunFolder,
    records: Iterable[ImageRecord],
    recipe: Recipe,
    *,
    command: Sequence[str],
    comment: str,
    **changes: Any,
) -> None:
    """Write the first files of `run`: audit and environment are those of `whole`, with `changes`.

    `command` makes the files again.
    """
    audit: Mapping[str, Any] = {key: found for key, found in whole.read_audit().items() if key != FOLDS}
    record = whole.read_record().replaced(
        command=tuple(command),
        callbacks=(),
        finished=False,
        evidence={},
        diagnosis=None,
        promises={},
        seconds=None,
        **changes,
    )
    with run.begun():
        run.note_command(command)
        run.write_dataset(records)
        run.write_audit(audit)
        run.write_record(record)
        run.write_recipe(recipe, comment=comment)
