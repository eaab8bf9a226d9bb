"""Answers as a file: .csv, .jsonl or .parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError
from saccade.files import is_utf8
from saccade.label_sets import join_labels
from saccade.predict.predictor import Answer
from saccade.spreadsheet import in_blocks, needs_mark, write_rows


def check_out(out: str) -> None:
    """Refuse a file name that nothing can be written to, before any work is done."""
    if Path(out).suffix not in _WRITERS:
        raise RecipeError(f"unknown ending of --out: {out}", hint=f"choose from: {', '.join(_WRITERS)}")
    if Path(out).suffix == ".parquet":
        _pyarrow()


def write_answers(path: Path, answers: Iterable[Answer], *, top_k: int = 1) -> None:
    """One row an image: path,label,predicted,confidence, further ranks, abstained,unfamiliar,unfamiliarity,
    label_set, p_<class>...; failed ones left out.

    Of a model that names several labels there is no confidence, and predicted is as `cat,dog`, which is a
    list in .jsonl. What the model does not tell is empty: unfamiliar, unfamiliarity, label_set.

    The name decides: .csv, .jsonl or .parquet. `label` is empty; `predictions/*.csv` has the same columns but
    the four from abstained to label_set. Probabilities have 9 significant digits in text. `answers` is gone
    through more than once and never held.
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


def _columns(classes: Sequence[str], top_k: int, *, several: bool) -> dict[str, type]:
    """Names, each with what its values are."""
    columns: dict[str, type] = {"path": str, "label": str, "predicted": str}
    if not several:
        columns["confidence"] = float
        for rank in range(2, top_k + 1):
            columns |= {f"predicted_{rank}": str, f"confidence_{rank}": float}
    columns |= {"abstained": bool, "unfamiliar": bool, "unfamiliarity": float, "label_set": str}
    return columns | dict.fromkeys((f"p_{label}" for label in classes), float)


def _row(answer: Answer, top_k: int) -> list[Any]:
    several = answer.thresholds is not None
    ranked = [answer.predicted] if several else [value for pair in answer.top(top_k) for value in pair]
    labels = None if answer.label_set is None else join_labels(answer.label_set)
    decided = [*_decided(answer).values(), labels]
    return [answer.path, "", *ranked, *decided, *answer.probabilities.tolist()]


def _decided(answer: Answer) -> dict[str, Any]:
    """Whether to believe the answer; None for what the model does not tell."""
    known = answer.unfamiliar is not None
    return {
        "abstained": answer.abstained,
        "unfamiliar": answer.unfamiliar,
        "unfamiliarity": answer.unfamiliarity if known else None,
    }


def _write_csv(path: Path, answers: _Good, top_k: int) -> None:
    classes, several = answers.columns
    header = list(_columns(classes, top_k, several=several))
    texts = (answer.path for answer in answers)  # classes stand in the header
    rows = ([_cell(value) for value in _row(answer, top_k)] for answer in answers)
    write_rows(path, header, rows, marked=needs_mark(itertools.chain(header, texts)))


def _cell(value: Any) -> Any:
    """As text where it is neither number nor text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


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
    values |= {**_decided(answer), "label_set": answer.label_set}
    values["probabilities"] = dict(zip(answer.classes, answer.probabilities.tolist(), strict=True))
    text = json.dumps(values, ensure_ascii=False)
    return (text if is_utf8(text) else json.dumps(values)) + "\n"  # names that are no UTF-8 stay valid JSON


def _write_parquet(path: Path, answers: _Good, top_k: int) -> None:
    from saccade.run_folder import replacing

    pyarrow = _pyarrow()
    import pyarrow.parquet as parquet

    classes, several = answers.columns
    header = _columns(classes, top_k, several=several)
    of_type = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    kinds = [of_type[kind] for kind in header.values()]
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
