"""Answers as a file: .csv, .jsonl or .parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.files import is_utf8
from saccade.predict.predictor import Answer
from saccade.spreadsheet import in_blocks, needs_mark, write_rows


def check_out(out: str) -> None:
    """Refuse a file name that nothing can be written to, before any work is done."""
    if Path(out).suffix not in _WRITERS:
        raise RecipeError(f"unknown ending of --out: {out}", hint=f"choose from: {', '.join(_WRITERS)}")
    if Path(out).suffix == ".parquet":
        _pyarrow()


def write_answers(path: Path, answers: Iterable[Answer], *, top_k: int = 1) -> None:
    """One row an image: path,label,predicted,confidence, further ranks, p_<class>...; failed ones left out.

    Of a model that names several labels: path,label,predicted,p_<class>..., with `cat,dog` as predicted,
    which is a list in .jsonl.

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
    def columns(self) -> tuple[tuple[str, ...], bool]:
        """The classes, and whether an image may have several of them."""
        return next(((answer.classes, answer.thresholds is not None) for answer in self), ((), False))


def _columns(classes: Sequence[str], top_k: int, *, several: bool) -> list[str]:
    if several:
        return ["path", "label", "predicted", *(f"p_{label}" for label in classes)]
    further = [f"{word}_{rank}" for rank in range(2, top_k + 1) for word in ("predicted", "confidence")]
    return ["path", "label", "predicted", "confidence", *further, *(f"p_{label}" for label in classes)]


def _row(answer: Answer, top_k: int) -> list[Any]:
    if answer.thresholds is not None:
        return [answer.path, "", answer.predicted, *answer.probabilities.tolist()]
    ranked = [value for pair in answer.top(top_k) for value in pair]
    return [answer.path, "", *ranked, *answer.probabilities.tolist()]


def _write_csv(path: Path, answers: _Good, top_k: int) -> None:
    classes, several = answers.columns
    header = _columns(classes, top_k, several=several)
    texts = (answer.path for answer in answers)  # classes stand in the header
    rows = (_row(answer, top_k) for answer in answers)
    write_rows(path, header, rows, marked=needs_mark(itertools.chain(header, texts)))


def _write_jsonl(path: Path, answers: _Good, top_k: int) -> None:
    from saccade.run_folder import replacing

    with replacing(path) as file:
        for block in in_blocks(answers, max(1, len(answers.columns[0]))):
            file.write("".join(_json_line(answer, top_k) for answer in block).encode("utf-8"))


def _json_line(answer: Answer, top_k: int) -> str:
    import json

    values: dict[str, Any] = {"path": answer.path, "predicted": answer.predicted}
    if answer.thresholds is not None:
        values["predicted"] = answer.labels
    else:
        values["confidence"] = answer.confidence
        values["top"] = [{"label": label, "probability": share} for label, share in answer.top(top_k)]
    values["probabilities"] = dict(zip(answer.classes, answer.probabilities.tolist(), strict=True))
    text = json.dumps(values, ensure_ascii=False)
    return (text if is_utf8(text) else json.dumps(values)) + "\n"  # names that are no UTF-8 stay valid JSON


def _write_parquet(path: Path, answers: _Good, top_k: int) -> None:
    from saccade.run_folder import replacing

    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    classes, several = answers.columns
    header = _columns(classes, top_k, several=several)
    texts = {
        "path",
        "label",
        *(name for name in header[: 2 + (1 if several else 2 * top_k)] if name.startswith("predicted")),
    }
    kinds = [pyarrow.string() if name in texts else pyarrow.float64() for name in header]
    schema = pyarrow.schema(list(zip(header, kinds, strict=True)))
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for block in in_blocks(answers, len(header)):
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
