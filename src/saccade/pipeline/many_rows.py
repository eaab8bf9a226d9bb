"""`saccade split` of a list of so many rows that no command holds a record of each, and what it says."""

from __future__ import annotations

from pathlib import Path

from saccade.audit.decisions import decisions_beside
from saccade.errors import SplitError
from saccade.pipeline.words import finding_line, say_counts, say_parts
from saccade.recipe import Recipe
from saccade.sources import natural_key
from saccade.sources.addresses import is_remote
from saccade.sources.outputs import is_place
from saccade.sources.rows import CLUSTER, Rows, open_rows
from saccade.sources.tables import Columns
from saccade.split.streamed import RowSplit, split_rows
from saccade.terminal import Terminal, counted

SHOWN_REASONS = 12
MARKS = {"group": "group", CLUSTER: "cluster", "sha256": "SHA-256", "etag": "ETag with size"}


def split_many(
    location: str, columns: Columns, recipe: Recipe, terminal: Terminal, *, out: str, folds: int = 0
) -> None:
    """Divide a large list, and write it with its parts; an earlier one there is kept and added to.

    No image is read. Raises SplitError for what needs the images, or a record of each.
    """
    target = Path(out)
    rows = open_rows(location, columns, group_pattern=recipe.split.group_pattern)
    _refuse(rows, target, recipe, folds)
    with terminal.progress("dividing", "steps") as progress:
        made = split_rows(
            rows,
            validation=recipe.split.validation,
            test=recipe.split.test,
            seed=recipe.seed,
            repair=recipe.split.repair,
            allow_leaks=recipe.split.allow_leaks,
            earlier=target if target.exists() else None,
            progress=progress,
        )
    _say(made, rows, recipe, terminal)
    rows.write(target, made.parts, made.names, made.labels)
    if made.kept:
        terminal.say(f"          {made.kept:,} images kept the part they had in {out}")
    terminal.say(f"Written   {out}")


def _refuse(rows: Rows, target: Path, recipe: Recipe, folds: int) -> None:
    many = f"{rows.where} has {rows.count:,} rows: so long a list is divided without reading images"
    if target.suffix.lower() != ".parquet" or target.is_dir():
        raise SplitError(
            f"--out {target} is not the name of a .parquet file; {many}",
            hint="give a name that ends in .parquet",
        )
    if target.absolute() == rows.path:
        raise SplitError(f"--out {target} is the list that is to be divided", hint="give another name")
    if is_place(target) and not is_remote(rows.root):
        raise SplitError(
            f"{rows.where} names images on this disk, which a list at an address cannot name",
            hint="give --out a name on this disk, or name the address of the images with --root",
        )
    if folds or recipe.split.folds:
        raise SplitError(f"{many}, into parts only: no folds", hint="leave --folds out, or give fewer rows")
    if recipe.multi_label:
        raise SplitError(
            f"{many}, and with one label each: no --multi-label", hint="leave it out, or give fewer rows"
        )


# -- in words --------------------------------------------------------------------------------------------


def _say(made: RowSplit, rows: Rows, recipe: Recipe, terminal: Terminal) -> None:
    counts = dict(sorted(made.counts().items(), key=lambda item: natural_key(item[0])))
    say_counts(counts, rows.count - sum(counts.values()), terminal)
    for found in rows.findings:
        terminal.say(f"  {found.severity:<8}{finding_line(found)}")
    say_parts(made.sizes(), _remark(made), terminal)
    for line in (*_sets(made), *_not_done(made, rows, recipe)):
        terminal.say(f"          {line}")
    for reason in made.reasons[:SHOWN_REASONS]:
        terminal.say(f"          {reason}")
    if len(made.reasons) > SHOWN_REASONS:
        terminal.say(f"          and {len(made.reasons) - SHOWN_REASONS:,} more sentences of this kind")


def _remark(made: RowSplit) -> str:
    if made.crossing:
        sets = f"{counted(made.crossing, 'set')} that should stay together"
        return f"LEAK: {sets} cross the parts of the given split (--repair-split moves them)"
    words = " or ".join(word for mark, word in MARKS.items() if mark in made.joined)
    return f"no {words} is in two parts" if words else "each image stands alone"


def _sets(made: RowSplit) -> list[str]:
    joined = ", ".join(
        f"{made.joined[mark]:,} by {word}" for mark, word in MARKS.items() if made.joined.get(mark)
    )
    lines = []
    if joined:
        sets = counted(made.several, "set")
        lines.append(f"{sets} of several images; images joined to an earlier one: {joined}")
    if repeated := made.joined.get("path", 0):
        lines.append(f"{counted(repeated, 'row')} with the path of an earlier row: used once")
    if made.unlabelled:
        lines.append(f"{counted(made.unlabelled, 'image')} without a label: left out")
    return lines


def _not_done(made: RowSplit, rows: Rows, recipe: Recipe) -> list[str]:
    """What nobody has looked for, and the command that does."""
    lines = []
    if CLUSTER not in made.joined:
        lines.append(
            "images were not read, so near-duplicates and unreadable ones are unknown: `saccade audit` finds "
            "them, and `saccade split` of the folder or address itself keeps near-duplicates together, where "
            "records of all images fit in memory"
        )
    if made.untold:
        lines.append(
            f"of {counted(made.untold, 'image')} no hash is known, so copies of them are not either: "
            "`saccade index LOCATION --out FILE --hash` reads them"
        )
    if recipe.data.decisions or decisions_beside(Path(rows.root)):
        lines.append("decisions about findings (audit-decisions.csv) were not applied")
    return lines
