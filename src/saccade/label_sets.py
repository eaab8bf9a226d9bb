"""Sets of class names as one text: `cat,dog`; "" is the empty set. For images that may have several labels.

A name that holds a comma or a quote is quoted, as in a CSV file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

SEPARATOR = ","


def join_labels(labels: Iterable[str]) -> str:
    """The names as one text, in the order given; `split_labels` gives them back.

    >>> join_labels(["cat", "dog"]), join_labels([]), join_labels(["cat, wild", "dog"])
    ('cat,dog', '', '"cat, wild",dog')
    """
    names = list(labels)
    if not any(mark in name for name in names for mark in ('"', SEPARATOR, "\n", "\r")):
        return SEPARATOR.join(names)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def split_labels(text: str, delimiter: str = SEPARATOR) -> tuple[str, ...]:
    """The names in a text, without the spaces around them; empty names do not count, repeated ones do once.

    >>> split_labels("cat, dog"), split_labels(""), split_labels("a|b|a", "|")
    (('cat', 'dog'), (), ('a', 'b'))
    """
    if '"' not in text:
        names: Iterable[str] = text.split(delimiter)
    else:
        reader = csv.reader([text], delimiter=delimiter, skipinitialspace=True)
        names = next(reader, [])
    return tuple(dict.fromkeys(name for part in names if (name := part.strip())))
