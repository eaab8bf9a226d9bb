"""What promises 9 and 10 ask of files: that checkpoints are whole, and that nothing can hold code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from saccade.records import EpochRow
from saccade.run_folder import canonical_sha256

# Formats that hold data and no code; .lock is ours and empty but for a process id.
CODE_FREE = {
    ".toml",
    ".json",
    ".jsonl",
    ".csv",
    ".safetensors",
    ".onnx",
    ".html",
    ".md",
    ".png",
    ".parquet",
    ".lock",
}
# How pickles (protocols 2 to 5) and zip files, in which torch packs them, begin, whatever they are called.
CODE_MARKS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def checkpoint_problems(path: Path) -> list[str]:
    """What is wrong with one checkpoint's state, weights and best weights."""
    try:
        values = json.loads(path.read_text("utf-8", errors="surrogateescape"))
        body = values["body"]
        if values["sha256"] != canonical_sha256(body):
            return [f"{path.name} does not have its SHA-256"]
        files = {path.with_suffix(".safetensors").name: body["tensors_sha256"]}
        files |= {body["best_file"]: body["best_sha256"]} if body["best_file"] else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path.name} is damaged ({type(error).__name__})"]
    return [
        f"{name} does not have its SHA-256"
        for name, sha in files.items()
        if sha256_of(path.parent / name) != sha
    ]


def ends_as_history(path: Path, rows: list[EpochRow]) -> bool:
    history = json.loads(path.read_text("utf-8", errors="surrogateescape"))["body"]["state"]["history"]
    return len(history) == len(rows) and str(EpochRow(**history[-1])) == str(rows[-1])


def may_hold_code(path: Path) -> bool:
    with path.open("rb") as file:
        return (path.suffix or path.name) not in CODE_FREE or file.read(4).startswith(CODE_MARKS)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
