"""Answers as a file: .csv, .jsonl or .parquet."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.predict.predictor import Answer

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


def write_answers(path: Path, answers: Sequence[Answer], *, top_k: int = 1) -> None:
    """One row an image: path,label,predicted,confidence, further ranks, p_<class>...; failed ones left out.

    The name decides: .csv, .jsonl or .parquet. `label` is empty, so that the columns are those of
    `predictions/*.csv`. Probabilities have 9 significant digits in text.
    """
    _WRITERS[path.suffix](path, [answer for answer in answers if not answer.error], top_k)


def _columns(classes: Sequence[str], top_k: int) -> list[str]:
    further = [f"{word}_{rank}" for rank in range(2, top_k + 1) for word in ("predicted", "confidence")]
    return ["path", "label", "predicted", "confidence", *further, *(f"p_{label}" for label in classes)]


def _row(answer: Answer, top_k: int) -> list[Any]:
    ranked = [value for pair in answer.top(top_k) for value in pair]
    return [answer.path, "", *ranked, *answer.probabilities.tolist()]


def _write_csv(path: Path, answers: Sequence[Answer], top_k: int) -> None:
    header = _columns(answers[0].classes if answers else (), top_k)
    write_spreadsheet(path, header, [_row(answer, top_k) for answer in answers])


def write_spreadsheet(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV for people: no cell is run as a formula, and Excel shows letters beyond ASCII as they are.

    Excel takes a CSV for UTF-8 only where it begins with a byte order mark. So files with such letters get
    one; others stay plain, and so do names that are no UTF-8, of which the mark would say what is not so.
    """
    from saccade.run_folder import csv_bytes, write_bytes

    def cell(value: Any) -> str:
        return f"{value:.9g}" if isinstance(value, float) else spreadsheet_safe(value)

    data = csv_bytes(header, [[cell(value) for value in row] for row in rows])
    write_bytes(path, data if data.isascii() or not _is_utf8(data) else codecs.BOM_UTF8 + data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _write_jsonl(path: Path, answers: Sequence[Answer], top_k: int) -> None:
    from saccade.run_folder import write_text

    write_text(path, "".join(_json_line(answer, top_k) for answer in answers))


def _json_line(answer: Answer, top_k: int) -> str:
    import json

    values = {
        "path": answer.path,
        "predicted": answer.predicted,
        "confidence": answer.confidence,
        "top": [{"label": label, "probability": probability} for label, probability in answer.top(top_k)],
        "probabilities": dict(zip(answer.classes, answer.probabilities.tolist(), strict=True)),
    }
    utf8 = answer.path.isascii() or answer.path == answer.path.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(values, ensure_ascii=not utf8) + "\n"  # bytes that are no UTF-8 stay valid JSON


def _write_parquet(path: Path, answers: Sequence[Answer], top_k: int) -> None:
    import io

    from saccade.run_folder import write_bytes

    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    header = _columns(answers[0].classes if answers else (), top_k)
    rows = [_row(replace(answer, path=_utf8(answer.path)), top_k) for answer in answers]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    write_bytes(path, file.getvalue())


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
