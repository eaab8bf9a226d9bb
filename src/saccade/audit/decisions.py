"""A person's decisions about findings of an earlier audit or report, respected the next time.

They stand in `audit-decisions.csv` beside the data, and in the file that the recipe names:

    path,other,decision,new_label
    roses/a.jpg,tulips/b.jpg,not a duplicate,     the two are different pictures
    roses/c.jpg,,keep,                            looked at; right as it is, and its label too
    roses/d.jpg,,drop,                            leave it out
    roses/e.jpg,,relabel,tulips                   its label is to be another

Paths are those of the audit, relative to the data's root. The columns other and new_label may be absent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from saccade.errors import DataError
from saccade.files import read_file
from saccade.records import Dataset, ImageRecord
from saccade.sources.lookup import MemberLookup, find
from saccade.sources.naming import as_text
from saccade.sources.tables import Table, parse_text_table
from saccade.spreadsheet import from_spreadsheet
from saccade.terminal import counted

DECISIONS_NAME = "audit-decisions.csv"
NOT_A_DUPLICATE, KEEP, DROP, RELABEL = "not a duplicate", "keep", "drop", "relabel"
WORDS = (NOT_A_DUPLICATE, KEEP, DROP, RELABEL)
COLUMNS = ("path", "other", "decision")
_COLUMNS_READ = (*COLUMNS, "new_label")
_MOST_PROBLEMS = 20


class NewLabel(NamedTuple):
    """The label an image is to have, and which line of which file says so."""

    label: str
    line: int
    file: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """`apart`: pairs that are not duplicates; `kept`, `dropped` and `relabelled`: single paths.

    `name` is what the decisions are called: the name of their file.
    """

    apart: frozenset[frozenset[str]] = frozenset()
    kept: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    relabelled: Mapping[str, NewLabel] = field(default_factory=dict)
    name: str = field(default=DECISIONS_NAME, compare=False)

    def parted(self, first: str, second: str) -> bool:
        """Whether the decisions separate these two images."""
        return frozenset((first, second)) in self.apart

    @property
    def single(self) -> frozenset[str]:
        """Every path that is decided about by itself."""
        return self.kept | self.dropped | self.relabelled.keys()

    @property
    def paths(self) -> frozenset[str]:
        """Every path that a decision names."""
        return self.single | frozenset(path for pair in self.apart for path in pair)

    def over(self, earlier: Decisions) -> Decisions:
        """Both; about an image for which they differ, these win."""
        if not earlier:
            return self
        return Decisions(
            self.apart | earlier.apart,
            self.kept | (earlier.kept - self.single),
            self.dropped | (earlier.dropped - self.single),
            {p: new for p, new in earlier.relabelled.items() if p not in self.single} | dict(self.relabelled),
            name=" and ".join(dict.fromkeys((earlier.name, self.name))),
        )

    def __len__(self) -> int:
        return len(self.apart) + len(self.kept) + len(self.dropped) + len(self.relabelled)


NO_DECISIONS = Decisions()


# -- reading ---------------------------------------------------------------------------------------------


def decisions_beside(root: Path) -> Path | None:
    """The data's own decisions file, if there is one."""
    path = root / DECISIONS_NAME
    return path if path.is_file() else None


def read_decisions(path: Path) -> Decisions:
    """Decisions of a CSV; raises DataError that lists every row that does not hold, by line."""
    try:
        data = read_file(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"the decisions file {path} cannot be read ({reason})", hint="check the path"
        ) from None
    return _decisions(parse_text_table(data, str(path)), str(path))


def parse_decisions(text: str, *, where: str) -> Decisions:
    """Decisions of a CSV's text; `where` names it in the DataError."""
    return _decisions(parse_text_table(text.encode("utf-8", "surrogateescape"), where), where)


class _Single(NamedTuple):
    """What is decided about one image."""

    word: str
    line: int
    new_label: str

    @property
    def said(self) -> str:
        return f"{self.word} to {self.new_label!r}" if self.word == RELABEL else self.word


def _decisions(table: Table, where: str) -> Decisions:
    problems = [*table.problems]
    apart: set[frozenset[str]] = set()
    singles: dict[str, _Single] = {}
    for line, (path, other, word, new_label) in _rows(table, where):
        if path and not word:
            continue  # a row of the template about which nothing is decided
        made = _Single(word, line, new_label)
        earlier = singles.get(path, made)
        if problem := _problem(path, other, made):
            problems.append(f"line {line}: {problem}")
        elif word == NOT_A_DUPLICATE:
            apart.add(frozenset((path, other)))
        elif earlier.said != made.said:
            problems.append(
                f"line {line}: {path!r} is to {made.said}, but line {earlier.line} says {earlier.said}"
            )
        else:
            singles[path] = made
    if problems:
        raise _unusable(where, problems)
    kept, dropped = (frozenset(p for p, made in singles.items() if made.word == w) for w in (KEEP, DROP))
    new = {p: NewLabel(s.new_label, s.line, where) for p, s in singles.items() if s.word == RELABEL}
    return Decisions(frozenset(apart), kept, dropped, new, name=Path(where).name)


def _unusable(where: str, problems: Sequence[str]) -> DataError:
    more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    return DataError(
        f"{where}: {counted(len(problems), 'row')} cannot be used",
        *problems[:_MOST_PROBLEMS],
        *more,
        hint="correct these rows, or delete them",
    )


def _rows(table: Table, where: str) -> Iterator[tuple[int, list[str]]]:
    """Line number, and path, other, decision and new label of each row."""
    named = {name.lower(): name for name in table.columns}
    if missing := [name for name in ("path", "decision") if name not in named]:
        columns = " and ".join(missing)
        raise DataError(
            f"{where}: line 1: no column {columns}", hint=f"the first line must be: {','.join(COLUMNS)}"
        )
    for line, row in table.rows:
        cells = [as_text(row.get(named.get(name, ""))).strip() for name in _COLUMNS_READ]
        if any(cells):
            yield line, [from_spreadsheet(cell) for cell in cells]


def _problem(path: str, other: str, made: _Single) -> str:
    if not path:
        return "no path; name the image that is decided about"
    if made.word not in WORDS:
        close = difflib.get_close_matches(made.word.lower(), WORDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(WORDS)}"
        return f"unknown decision {made.word!r}; {hint}"
    if made.word == NOT_A_DUPLICATE and other in ("", path):
        return f"{NOT_A_DUPLICATE!r} needs a second image; name it in the column 'other'"
    if made.word == RELABEL and not made.new_label:
        return f"{RELABEL!r} needs a label; name it in the column 'new_label'"
    return ""


# -- applying --------------------------------------------------------------------------------------------


def meant(decisions: Decisions, paths: Iterable[str]) -> Decisions:
    """The decisions with the `paths` of the data that they mean; names that mean none stay.

    A name may differ from its file as in a list: backslashes, Unicode form, case, a spreadsheet's encoding.

    >>> sorted(meant(Decisions(kept=frozenset({"A.jpg", "gone.jpg"})), ["a.jpg"]).kept)
    ['a.jpg', 'gone.jpg']
    """
    lookup = MemberLookup(frozenset(paths))
    path_of = {name: find(name, lookup)[0] or name for name in decisions.paths}
    apart = frozenset(frozenset(path_of[name] for name in pair) for pair in decisions.apart)
    kept, dropped = (frozenset(path_of[n] for n in names) for names in (decisions.kept, decisions.dropped))
    relabelled = {path_of[name]: new for name, new in decisions.relabelled.items()}
    return replace(decisions, apart=apart, kept=kept, dropped=dropped, relabelled=relabelled)


def relabelled(dataset: Dataset, decisions: Decisions) -> Dataset:
    """The data set with the labels that the decisions give.

    Raises DataError, which names file and line, for a path or a class that the data lack: an image would
    else go on under the label that was found wrong.
    """
    if not decisions.relabelled:
        return dataset
    there = {record.path: _with_label(record, decisions) for record in dataset.records}
    problems: dict[str, list[str]] = {}
    for path, new in decisions.relabelled.items():
        if problem := _lacking(path, there.get(path), dataset.classes):
            problems.setdefault(new.file, []).append(f"line {new.line}: {problem}")
    for file, lines in problems.items():
        raise _unusable(file, lines)
    return dataset.with_records(there.values())


def _lacking(path: str, record: ImageRecord | None, classes: Sequence[str]) -> str:
    """What the data lack of an image with its new label; "" where it is all there."""
    if record is None:
        return f"no image {path!r} in the data"
    unknown = [label for label in record.labels if label not in classes]
    if not unknown:
        return ""
    close = difflib.get_close_matches(unknown[0], classes, n=1)
    return f"no class {unknown[0]!r} in the data{f'; did you mean {close[0]!r}?' if close else ''}"


def _with_label(record: ImageRecord, decisions: Decisions) -> ImageRecord:
    new = decisions.relabelled.get(record.path)
    return replace(record, label=new.label) if new else record


# -- afterwards ------------------------------------------------------------------------------------------


class Decided(NamedTuple):
    """A decision about a single image that an audit has carried out; labels where it changed them."""

    path: str
    word: str
    label: str = ""
    new_label: str = ""


_WORD_OF = {"kept": KEEP, "relabelled": RELABEL, "dropped": DROP}  # kind of finding -> decision


def decided_in(audit: Mapping[str, Any]) -> tuple[Decided, ...]:
    """What was decided about single images when the audit in this `audit.json` was made."""
    done = [found for found in audit.get("findings", ()) if found["kind"] in _WORD_OF]
    return tuple(
        Decided(path, _WORD_OF[found["kind"]], *found.get("figure", {}).get("labels", {}).get(path, ()))
        for found in done
        for path in found["paths"]
    )


def parted_in(audit: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Pairs that were decided to be no duplicates when the audit in this `audit.json` was made."""
    done = (found for found in audit.get("findings", ()) if found["kind"] == "parted")
    return tuple((first, second) for found in done for first, second in found["figure"]["pairs"])
