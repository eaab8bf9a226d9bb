"""Where an export is written: what it is called, and what may be replaced there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saccade.errors import RecipeError, RunError
from saccade.export import certify as certifying
from saccade.export.formats import Format
from saccade.pipeline.shares import PRIORS, Asked
from saccade.run_folder import PART, RunFolder, certificate_beside, read_json


def place_of(run: RunFolder, format: Format, out: str, asked: Asked) -> Path:
    """`out`, else a name in the run's export folder; raises RecipeError for one that cannot be used."""
    if out and not format.folder and (Path(out).suffix != format.suffix or Path(out).is_dir()):
        raise RecipeError(
            f"--out is no name of a {format.suffix} file: {out}", hint=f"end it in {format.suffix}"
        )
    place = Path(out) if out else run.onnx.parent / _file_name(format, asked)
    if asked.otherwise and place.resolve() == run.onnx.resolve():
        again = f"saccade evaluate {run.root} --target-precision {asked.precision:g}"
        raise RecipeError(
            f"{place} is the run's own model, which answers as it was evaluated",
            hint="give --out another name, such as model.priors.onnx"
            + ("" if asked.given else f"; or evaluate it so, and export it without the flag: {again}"),
        )
    return place


def _file_name(format: Format, asked: Asked) -> str:
    """Beside the run's own files, not in their place, where the file answers for other class shares."""
    name = Path(format.file_name)
    return f"{name.stem}.{PRIORS}{name.suffix}" if asked.given else name.name


def refuse_foreign(target: Path, name: str) -> None:
    """A folder is replaced only where all in it was written by an export in the same format."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    values: dict[str, Any] = {}
    with contextlib.suppress(RunError, OSError):
        values = read_json(certificate_beside(target)) if target.is_dir() else {}
    known = values.get("files") if values.get("format") == name else None
    foreign = sorted(certifying.file_hashes(target).keys() - known) if isinstance(known, dict) else [""]
    if foreign:
        holds = f" (it holds {foreign[0]})" if foreign[0] else ""
        raise RecipeError(
            f"{target} exists and was not written by `saccade export --format {name}`{holds}",
            hint="give --out a new folder, or remove that one",
        )


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A folder for what is being made, on the disk of `target`; removed at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name[:80]}.", suffix=PART, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise RunError(
            f"{target} cannot be written ({error.strerror})", hint="give --out another folder"
        ) from None
    with folder as name:
        yield Path(name)
