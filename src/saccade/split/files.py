"""`split.csv`: the parts as a list that is itself a data set, and can be kept while the data grow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from saccade.errors import SplitError
from saccade.records import PARTS, Dataset, Split
from saccade.run_folder import read_csv, write_csv

COLUMNS = ("path", "label", "part", "group")


def write_split_csv(split: Split, path: Path | str) -> None:
    """Write path,label,part,group of every used image, atomically.

    Paths are relative to the file's own folder, with forward slashes (with `../` where the images do
    not lie below it).
    """
    target = Path(path)
    to_root = way_to_root(target, split.dataset.root)
    records = split.dataset.used()
    write_csv(target, COLUMNS, ([to_root + r.path, r.label, r.part, r.group] for r in records))


def read_split_csv(path: Path | str, dataset: Dataset) -> dict[str, str]:
    """The part of each image an earlier `split.csv` lists, by its path in `dataset`; for `fixed=`.

    Raises SplitError when the file is no such list.
    """
    source = Path(path)
    to_root = way_to_root(source, dataset.root)
    rows = read_csv(source)
    if rows and not {"path", "part"} <= set(rows[0]):
        raise SplitError(f"{source} is no split: it has no columns path and part; give --out another name")
    folder, root = Path(os.path.realpath(source.parent)), Path(os.path.realpath(dataset.root))
    return {_from_root(row["path"], to_root, folder, root): row["part"] for row in rows if row["part"]}


def checked_parts(fixed: Mapping[str, str]) -> Mapping[str, str]:
    """The same mapping; raises SplitError where a part has an unknown name."""
    wrong = sorted({part for part in fixed.values() if part not in PARTS})
    if wrong:
        raise SplitError(
            f"the earlier split names unknown parts {', '.join(map(repr, wrong))}; "
            f"parts are called {', '.join(PARTS)}: rename them there"
        )
    return fixed


def way_to_root(csv_file: Path, root: Path) -> str:
    """What leads from the CSV's folder to the data's root: "", "photos/", "../photos/"."""
    way = Path(os.path.relpath(os.path.realpath(root), os.path.realpath(csv_file.parent))).as_posix()
    return "" if way == "." else f"{way}/"


def _from_root(path: str, to_root: str, folder: Path, root: Path) -> str:
    if path.startswith(to_root):
        return path[len(to_root) :]
    return Path(os.path.relpath(folder / path, root)).as_posix()  # written by hand, another way round
