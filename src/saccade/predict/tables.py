"""Answers as a file: .csv, .jsonl or .parquet."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from saccade.errors import RecipeError
from saccade.predict.predictor import Answer

_T = TypeVar("_T")
_VALUES_A_BLOCK = 100_000
FORMULA_STARTS = "=+-@\t\r"


def spreadsheet_safe(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula: one ' in front, which `from_spreadsheet` drops.

    Quotes alone do not help: spreadsheets drop them and run the formula (OWASP, "CSV Injection").

    >>> spreadsheet_safe("=1+1"), spreadsheet_safe("tulip"), spreadsheet_safe("'=1")
    ("'=1+1", 'tulip', "''=1")
    """
    return f"'{text}" if _looks_like_formula(text) else text


def from_spreadsheet(text: str) -> str:
    """What `spreadsheet_safe` was given."""
    return text[1:] if text.startswith("'") and _looks_like_formula(text) else text


def _looks_like_formula(text: str) -> bool:
    bare = text.lstrip("'")
    return bare[:1] in tuple(FORMULA_STARTS)


def check_out(out: str) -> None:
    """Refuse a file name that nothing can be written to, before any work is done."""
    if Path(out).suffix not in _WRITERS:
        raise RecipeError(f"unknown ending of --out: {out}", hint=f"choose from: {', '.join(_WRITERS)}")
    if Path(out).suffix == ".parquet":
        _pyarrow()


def write_answers(path: Path, answers: Iterable[Answer], *, top_k: int = 1) -> None:
    """One row an image: path,label,predicted,confidence, further ranks, p_<class>...; failed ones left out.

    The name decides: .csv, .jsonl or .parquet. `label` is empty, so that the columns are those of
    `predictions/*.csv`. Probabilities have 9 significant digits in text. `answers` is gone through more than
    once and never held.
    """
    _WRITERS[path.suffix](path, _Good(answers), top_k)


class _Good:
    """Answers without an error, as often as they are asked for."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = answers

    def __iter__(self) -> Iterator[Answer]:
        return (answer for answer in self._answers if not answer.error)

    @property
    def classes(self) -> tuple[str, ...]:
        return next((answer.classes for answer in self), ())


def _columns(classes: Sequence[str], top_k: int) -> list[str]:
    further = [f"{word}_{rank}" for rank in range(2, top_k + 1) for word in ("predicted", "confidence")]
    return ["path", "label", "predicted", "confidence", *further, *(f"p_{label}" for label in classes)]


def _row(answer: Answer, top_k: int) -> list[Any]:
    ranked = [value for pair in answer.top(top_k) for value in pair]
    return [answer.path, "", *ranked, *answer.probabilities.tolist()]


def _write_csv(path: Path, answers: _Good, top_k: int) -> None:
    header = _columns(answers.classes, top_k)
    texts = (answer.path for answer in answers)  # classes stand in the header
    rows = (_row(answer, top_k) for answer in answers)
    _write_rows(path, header, rows, marked=_needs_mark(itertools.chain(header, texts)))


def write_spreadsheet(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV for people: no cell is run as a formula, and Excel shows letters beyond ASCII as they are.

    Excel takes a CSV for UTF-8 only where it begins with a byte order mark. So files with such letters get
    one; others stay plain, and so do names that are no UTF-8, of which the mark would say what is not so.
    `rows` is gone through twice.
    """
    texts = (value for row in rows for value in row if isinstance(value, str))
    _write_rows(path, header, rows, marked=_needs_mark(itertools.chain(header, texts)))


def _write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, marked: bool) -> None:
    from saccade.run_folder import csv_bytes, replacing

    def cell(value: Any) -> str:
        return f"{value:.9g}" if isinstance(value, float) else spreadsheet_safe(value)

    with replacing(path) as file:
        file.write((codecs.BOM_UTF8 if marked else b"") + csv_bytes(None, [header]))
        for block in _blocks(rows, len(header)):
            file.write(csv_bytes(None, [[cell(value) for value in row] for row in block]))


def _blocks(rows: Iterable[_T], columns: int) -> Iterator[list[_T]]:
    rows = iter(rows)
    while block := list(itertools.islice(rows, max(100, min(20_000, _VALUES_A_BLOCK // columns)))):
        yield block


def _needs_mark(texts: Iterable[str]) -> bool:
    """Whether there are letters beyond ASCII, and all is UTF-8."""
    beyond = False
    for text in texts:
        if not text.isascii():
            beyond = True
            if not _is_utf8(text):
                return False
    return beyond


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _write_jsonl(path: Path, answers: _Good, top_k: int) -> None:
    from saccade.run_folder import replacing

    with replacing(path) as file:
        for block in _blocks(answers, max(1, len(answers.classes))):
            file.write("".join(_json_line(answer, top_k) for answer in block).encode("utf-8"))


def _json_line(answer: Answer, top_k: int) -> str:
    import json

    values = {
        "path": answer.path,
        "predicted": answer.predicted,
        "confidence": answer.confidence,
        "top": [{"label": label, "probability": probability} for label, probability in answer.top(top_k)],
        "probabilities": dict(zip(answer.classes, answer.probabilities.tolist(), strict=True)),
    }
    text = json.dumps(values, ensure_ascii=False)
    return (text if _is_utf8(text) else json.dumps(values)) + "\n"  # names that are no UTF-8 stay valid JSON


def _write_parquet(path: Path, answers: _Good, top_k: int) -> None:
    from saccade.run_folder import replacing

    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    header = _columns(answers.classes, top_k)
    texts = {"path", "label", *(name for name in header[: 2 + 2 * top_k] if name.startswith("predicted"))}
    kinds = [pyarrow.string() if name in texts else pyarrow.float64() for name in header]
    schema = pyarrow.schema(list(zip(header, kinds, strict=True)))
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for block in _blocks(answers, len(header)):
            rows = [_row(replace(answer, path=_utf8(answer.path)), top_k) for answer in block]
            columns = [pyarrow.array(c, kind) for c, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        from saccade.errors import MissingExtraError

        raise MissingExtraError("pyarrow", "train", "writing a .parquet file") from None
    return pyarrow


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
