"""From a location to audited data to a split: list, decode once, say what is wrong, divide without leaks."""

from __future__ import annotations

import os
from pathlib import Path

from saccade.config import Recipe
from saccade.data.audit import audit, audit_as_json
from saccade.data.images import Limits
from saccade.data.scan import scan
from saccade.data.sources import load_source
from saccade.data.split import split, write_split_csv
from saccade.records import Audit, Dataset, Finding, Split
from saccade.run_folder import write_json
from saccade.terminal import Terminal

SHOWN_FINDINGS = 8
SHOWN_PATHS = 20


def cache_folder() -> Path:
    """Where measurements are kept between commands: $XDG_CACHE_HOME/saccade, else ~/.cache/saccade."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "saccade"


def limits_of(recipe: Recipe) -> Limits:
    """What the decoder may accept, from the recipe."""
    return Limits(max_pixels=recipe.data.max_pixels, background=recipe.data.background)


def list_data(location: str, recipe: Recipe) -> Dataset:
    """What lies at `location`, listed and labelled, nothing decoded yet."""
    return load_source(
        location,
        group=recipe.split.group or None,
        group_pattern=recipe.split.group_pattern or None,
        drop_empty=recipe.data.drop_empty,
    )


def examine(
    dataset: Dataset, recipe: Recipe, terminal: Terminal, *, verify: bool = False, cache: bool = True
) -> Audit:
    """Decode every image once and search for what is wrong."""
    place = cache_folder() if cache else None
    with terminal.progress("reading images") as progress:
        scanned = scan(dataset, limits=limits_of(recipe), cache=place, verify=verify, progress=progress)
    with terminal.progress("searching near-duplicates", "pairs") as progress:
        return audit(scanned.dataset, scanned.measurements, progress=progress)


def divide(audited: Audit, recipe: Recipe) -> Split:
    """Train, validation and test, with nothing that belongs together in two of them."""
    return split(
        audited,
        validation=recipe.split.validation,
        test=recipe.split.test,
        seed=recipe.seed,
        repair=recipe.split.repair,
        allow_leaks=recipe.split.allow_leaks,
    )


def audit_data(
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    *,
    out: str = "",
    verify: bool = False,
    cache: bool = True,
) -> Audit:
    """`saccade audit`: print what one can act on, and write audit.json where `out` names a folder."""
    audited = examine(list_data(location, recipe), recipe, terminal, verify=verify, cache=cache)
    say_data(audited.dataset, terminal)
    say_findings(audited, terminal, most=SHOWN_PATHS)
    if out:
        folder = Path(out)
        write_json(folder / "audit.json", audit_as_json(audited))
        terminal.say(f"Written   {folder / 'audit.json'}")
    return audited


def split_data(location: str, recipe: Recipe, terminal: Terminal, *, out: str) -> Split:
    """`saccade split`: write a list that is itself a data set."""
    audited = examine(list_data(location, recipe), recipe, terminal)
    say_data(audited.dataset, terminal)
    say_findings(audited, terminal)
    made = divide(audited, recipe)
    say_split(made, terminal)
    write_split_csv(made, Path(out))
    terminal.say(f"Written   {out}")
    return made


# -- words ---------------------------------------------------------------------------------------


def say_data(dataset: Dataset, terminal: Terminal) -> None:
    """How many images of which class are in use, and how many were left out."""
    counts = dataset.counts()
    listed = ", ".join(f"{label} {count:,}" for label, count in list(counts.items())[:12])
    more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
    left_out = len(dataset.records) - len(dataset.used())
    terminal.say(
        f"Data      {len(dataset.used()):,} images in {len(counts)} classes ({listed}{more})"
        + (f"; {left_out:,} left out" if left_out else "")
    )
    ignored = sum(dataset.ignored.values())
    if ignored:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dataset.ignored.items()))
        terminal.say(f"          ignored by rule: {reasons}")


def say_findings(audited: Audit, terminal: Terminal, *, most: int = SHOWN_FINDINGS) -> None:
    """The gravest findings first, each with what to do."""
    counts = {s: sum(f.severity == s for f in audited.findings) for s in ("error", "warning", "info")}
    words = ", ".join(
        f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count
    )
    terminal.say(f"Audit     {words or 'nothing found'}")
    shown = [finding for finding in audited.findings if finding.severity != "info"][:most]
    for finding in shown:
        terminal.say(f"  {finding.severity:<8}{_line(finding)}")
    left = counts["error"] + counts["warning"] - len(shown)
    if left > 0:
        terminal.say(f"  and {left} more, all of them in audit.json")


def _line(finding: Finding) -> str:
    return f"{finding.message}. {finding.remedy}"


def say_split(made: Split, terminal: Terminal) -> None:
    """How many images each part has, what could not be met, and whether anything crosses."""
    parts = {part: len(made.dataset.used(part)) for part in ("train", "validation", "test")}
    sizes = ", ".join(f"{part} {count:,}" for part, count in parts.items() if count)
    kept = "nothing that belongs together stands in two parts" if made.promise_kept else _crossing(made)
    terminal.say(f"Split     {sizes}; {kept}")
    for reason in made.reasons:
        terminal.say(f"          {reason}")


def _crossing(made: Split) -> str:
    what = []
    if made.crossing:
        what.append(f"{len(made.crossing)} pairs of near-duplicates")
    if made.crossing_groups:
        what.append(f"{len(made.crossing_groups)} groups")
    return f"LEAK: {' and '.join(what)} stand in two parts of the given split (--repair-split moves them)"
