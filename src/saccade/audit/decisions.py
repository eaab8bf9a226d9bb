"""What a person decided about findings of an earlier audit: `audit-decisions.csv`, respected the next time.

    path,other,decision
    roses/a.jpg,tulips/b.jpg,not a duplicate     the two are different pictures
    roses/c.jpg,,keep                            looked at; right as it is, and its label too
    roses/d.jpg,,drop                            leave it out

Paths are those of the audit, relative to the data's root.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from saccade.errors import DataError
from saccade.files import read_text

DECISIONS_NAME = "audit-decisions.csv"
NOT_A_DUPLICATE, KEEP, DROP = "not a duplicate", "keep", "drop"
WORDS = (NOT_A_DUPLICATE, KEEP, DROP)
COLUMNS = ("path", "other", "decision")
_MOST_PROBLEMS = 20
# What to do where different things look alike: one wording for the audit and the split.
WAYS_ON_ALIKE = (
    "use --no-split.near_duplicates, with --group or --group-pattern for what belongs together (part number, "
    "day, place), or part single pairs in audit-decisions.csv: path,other,not a duplicate"
)


@dataclass(frozen=True, slots=True)
class Decisions:
    """`apart` are pairs that are no duplicates, `kept` and `dropped` single paths."""

    apart: frozenset[frozenset[str]] = frozenset()
    kept: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()

    def parted(self, first: str, second: str) -> bool:
        """Whether these two were said to be different pictures."""
        return frozenset((first, second)) in self.apart

    @property
    def paths(self) -> frozenset[str]:
        """Every path that a decision names."""
        return self.kept | self.dropped | frozenset(path for pair in self.apart for path in pair)

    def __len__(self) -> int:
        return len(self.apart) + len(self.kept) + len(self.dropped)


NO_DECISIONS = Decisions()


def decisions_beside(root: Path) -> Path | None:
    """The data's own decisions file, if there is one."""
    path = root / DECISIONS_NAME
    return path if path.is_file() else None


def read_decisions(path: Path) -> Decisions:
    """Decisions of a CSV; raises DataError that lists every row that does not hold, by line."""
    try:
        text = read_text(path, encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"the decisions file {path} cannot be read ({reason}); check the path") from None
    return parse_decisions(text, where=str(path))


def parse_decisions(text: str, *, where: str) -> Decisions:
    """Decisions of a CSV's text; `where` names it in the DataError."""
    problems: list[str] = []
    apart: set[frozenset[str]] = set()
    single: dict[str, tuple[str, int]] = {}  # path -> decision, line
    for line, row in _rows(text, where):
        row_path, other, word = (row[name] for name in COLUMNS)
        problem = _problem(row_path, other, word)
        earlier, earlier_line = single.get(row_path, (word, 0))
        if problem:
            problems.append(f"line {line}: {problem}")
        elif word == NOT_A_DUPLICATE:
            apart.add(frozenset((row_path, other)))
        elif earlier != word:
            problems.append(f"line {line}: {row_path!r} is to {word}, but line {earlier_line} says {earlier}")
        else:
            single[row_path] = (word, line)
    if problems:
        raise DataError(_all_problems(problems, where))
    kept = frozenset(path for path, (word, _) in single.items() if word == KEEP)
    dropped = frozenset(path for path, (word, _) in single.items() if word == DROP)
    return Decisions(frozenset(apart), kept, dropped)


def _rows(text: str, where: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells of each row that is not blank."""
    first_line = text.partition("\n")[0]
    delimiter = ";" if ";" in first_line and "," not in first_line else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="more", strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = [name for name in ("path", "decision") if name not in names]
        if missing:
            columns = " and ".join(missing)
            raise DataError(
                f"{where}: line 1: no column {columns}; the first line must be: {','.join(COLUMNS)}"
            )
        reader.fieldnames = names
        for row in reader:
            cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
            if any(cells.values()):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num}: not valid CSV ({error}); correct it") from None


def _problem(path: str, other: str, word: str) -> str:
    if not path:
        return "no path; name the image that is decided about"
    if word not in WORDS:
        close = difflib.get_close_matches(word.lower(), WORDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(WORDS)}"
        return f"unknown decision {word!r}; {hint}"
    if word == NOT_A_DUPLICATE and other in ("", path):
        return f"{NOT_A_DUPLICATE!r} needs a second image; name it in the column 'other'"
    return ""


def _all_problems(problems: list[str], where: str) -> str:
    shown = "; ".join(problems[:_MOST_PROBLEMS])
    more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
    return f"{where}: {len(problems)} rows do not hold: {shown}{more}"
