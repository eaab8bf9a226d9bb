"""What stands after the model on a command line: images, folders, patterns and lists, as single paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from saccade.errors import SourceError
from saccade.sources.lists import FolderLookup, find, folder_of_paths
from saccade.sources.naming import as_text, natural_key
from saccade.sources.registry import is_list
from saccade.sources.tables import Columns, Table, read_parquet_table, read_text_table, with_usual_names
from saccade.terminal import printable


def named_inputs(words: Iterable[str], columns: Columns) -> list[str]:
    """Files and folders that `words` name: patterns are expanded, lists are read; order stays.

    columns: which column of a list names the files, and the folder they begin in. Raises SourceError for a
    list that cannot be read.

    >>> named_inputs(["photos/red/?.png", "none.jpg"], Columns())[-2:]
    ['photos/red/9.png', 'none.jpg']
    """
    return [path for word in words for path in _paths_of(word, columns)]


def _paths_of(word: str, columns: Columns) -> Iterable[str]:
    if is_list(word):
        return _paths_in_list(Path(word), columns)
    return expanded(word)


def expanded(pattern: str) -> list[str]:
    """The files and folders that a pattern with * ? [ ] or ** means, for shells that leave that to us.

    What exists by exactly this name means itself; so does a pattern that nothing matches.
    """
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    if "**" in pattern:  # which also matches the folders on the way, whose images would come twice
        found = [path for path in found if not os.path.isdir(path)]
    return sorted(found, key=natural_key) or [pattern]


def _paths_in_list(path: Path, columns: Columns) -> Iterator[str]:
    """The files that a list names; those that do not exist as they are written."""
    where = printable(str(path))
    table = read_parquet_table(path) if path.suffix.lower() == ".parquet" else read_text_table(path)
    table = with_usual_names(table, columns, where)
    _require_paths(table, where)
    root = folder_of_paths(path, columns.root)
    lookup = FolderLookup(root)
    for _, row in table.rows:
        name = as_text(row["path"]).strip()
        yield os.path.join(root, find(name, lookup)[0] or name)


def _require_paths(table: Table, where: str) -> None:
    if table.problems:
        raise SourceError(f"{where}: {table.problems[0]}", hint="correct that line")
    if "path" not in table.columns:
        raise SourceError(
            f"{where}: no column path; its columns are: {', '.join(map(printable, table.columns)) or 'none'}",
            hint="say which one names the images with --path-column",
        )
