"""Every path of a run, and one read/write pair a file. Every write is atomic; one process at a time writes.

`manifest.json` holds the SHA-256 of every file (checkpoints carry their own), and whatever is read is
compared with it: a damaged file is named, with the command that makes it again, and never used.

Nothing here knows what a model is: values come in as records and plain JSON, and leave the same way.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np

from saccade.errors import OtherRunError, RunError
from saccade.files import (
    MOST_WEIGHT_BYTES,
    file_size,
    files_below,
    json_text,
    lock_file,
    parse_json,
    read_file,
    read_text,
    replace_folder,
)
from saccade.manifest import NAME as MANIFEST
from saccade.manifest import Content, Manifest
from saccade.recipe import FORMER_DEFAULTS, MEANS, Recipe, differing_keys
from saccade.records import EpochRow, ImageRecord, Predictions, Status
from saccade.run_record import RunRecord
from saccade.signals import tidied_by

DATASET_COLUMNS = ("path", "label", "part", "group", "sha256", "width", "height", "mode", "status", "note")
LOCK_TRIES = 20
FOLDER_CERTIFICATE = "certificate.json"  # within a model that is a folder
PART = ".part"  # ends the name of a file that is being written
OF_A_SEARCH = ("search", "best.toml", ".search.lock", ".ending.lock")  # in the folder of the run that follows
STEP = "step.json"  # names the file that tells of a kept step
READ_TRIES = 3  # another command may be writing while this one reads


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names every file of a run; creating one touches nothing on disk."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset.csv"

    @property
    def audit(self) -> Path:
        return self.root / "audit.json"

    @property
    def history(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def model_json(self) -> Path:
        return self.bundle / "model.json"

    @property
    def weights(self) -> Path:
        return self.bundle / "weights.safetensors"

    @property
    def unfamiliar(self) -> Path:
        """How unlike the training images an image is, as values; absent where that cannot be said."""
        return self.bundle / "unfamiliar.safetensors"

    @property
    def report(self) -> Path:
        return self.root / "report" / "report.html"

    @property
    def model_card(self) -> Path:
        return self.root / "report" / "model_card.md"

    @property
    def bill_of_materials(self) -> Path:
        return self.root / "report" / "bom.json"

    @property
    def onnx(self) -> Path:
        return self.root / "export" / "model.onnx"

    @property
    def int8(self) -> Path:
        return self.root / "export" / "model.int8.onnx"

    @property
    def class_list(self) -> Path:
        return self.root / "export" / "classes.json"

    @property
    def inputs(self) -> Path:
        """What was given in Python as images and labels, as a data set; absent otherwise."""
        return self.root / "inputs"

    def fold(self, number: int) -> RunFolder:
        """The run of one fold of a cross-validation, counted from 1."""
        return RunFolder(self.root / "folds" / str(number))

    @property
    def about(self) -> Path:
        """What an evaluation says of itself: which model, which images, when; only in `evaluations/`."""
        return self.root / "evaluation.json"

    @property
    def audit_page(self) -> Path:
        return self.root / "report" / "audit.html"

    @property
    def label_errors(self) -> Path:
        """The labels that look wrong, the most suspicious first; of a full report, absent otherwise."""
        return self.root / "report" / "label_errors.csv"

    @property
    def decide_page(self) -> Path:
        """Where a person decides about them; absent where none looks wrong."""
        return self.root / "report" / "decide.html"

    def insight(self, name: str) -> Path:
        """What an analysis of a full report found; absent otherwise."""
        return self.root / "insights" / f"{name}.json"

    def of_full_report(self) -> tuple[Path, ...]:
        """What `saccade report --full` made, as far as it is there; it rests on model and predictions."""
        found = sorted(self.insight("any").parent.glob("*.json"))
        return tuple(path for path in (*found, self.label_errors, self.decide_page) if path.is_file())

    @property
    def search(self) -> Path:
        """What the search found from which this run came; absent otherwise."""
        return self.root / "search" / "result.json"

    @property
    def not_finite(self) -> Path:
        """What a step had whose loss or gradient was NaN or infinite; absent otherwise."""
        return self.root / "debug" / "nan"

    def kept_step(self) -> Path:
        """The folder that holds a step to take again: `not_finite`, or this one; RunError where none does."""
        folder = self.root if (self.root / STEP).is_file() else self.not_finite
        if not (folder / STEP).is_file():
            raise RunError(
                f"{folder} holds no step to take again",
                hint="give a run that stopped because a loss or gradient was NaN or infinite",
            )
        return folder

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def beginning(self) -> Path:
        """Exists only while the first files of a run are written, up to recipe.toml."""
        return self.root / ".beginning"

    def predictions(self, part: str) -> Path:
        return self.root / "predictions" / f"{part}.csv"

    def metrics(self, part: str) -> Path:
        return self.root / "metrics" / f"{part}.json"

    def evaluation(self, name: str) -> RunFolder:
        """The folder of `evaluate RUN DATA`, laid out like a run (predictions, metrics, report)."""
        return RunFolder(self.root / "evaluations" / name)

    @property
    def own_run(self) -> RunFolder:
        """The run whose model was measured: of an evaluation the one that it lies in, else this one."""
        return RunFolder(self.root.resolve().parent.parent) if self.has(self.about) else self

    def certificate(self, model: Path | None = None) -> Path:
        """Where the certificate of a model file stands; the run's own export has the short name."""
        if model is None or model.resolve() == self.onnx.resolve():
            return self.root / "export" / "certificate.json"
        return certificate_beside(model)

    # -- reading -----------------------------------------------------------------------------

    def read_recipe(self) -> Recipe:
        return Recipe.from_toml(self._text(self.recipe), where=str(self.recipe))

    def read_environment(self) -> dict[str, Any]:
        return self._json(self.environment)

    def read_record(self) -> RunRecord:
        """What `environment.json` holds; raises RunError where the file is missing or damaged."""
        try:
            return RunRecord.from_json(self.read_environment())
        except ValueError as error:
            raise self._damaged(self.environment, str(error)) from None

    def read_audit(self) -> dict[str, Any]:
        return self._json(self.audit)

    def read_model(self) -> dict[str, Any]:
        return self._json(self.model_json)

    def read_certificate(self, model: Path | None = None) -> dict[str, Any]:
        return self._json(self.certificate(model))

    def read_metrics(self, part: str) -> dict[str, Any]:
        return self._json(self.metrics(part))

    def read_about(self) -> dict[str, Any]:
        return self._json(self.about)

    def read_insights(self) -> dict[str, dict[str, Any]]:
        """What each analysis of a full report found, by its name."""
        found = sorted(self.insight("any").parent.glob("*.json"))
        return {path.stem: self._json(path) for path in found if self.has(path)}

    def read_search(self) -> dict[str, Any]:
        return self._json(self.search)

    def read_history(self) -> list[EpochRow]:
        try:
            return [EpochRow(**parse_json(line)) for line in self._text(self.history).splitlines()]
        except (TypeError, ValueError) as error:
            raise self._damaged(self.history, str(error)) from None

    def read_dataset(self) -> tuple[ImageRecord, ...]:
        try:
            several = self._multi_label()
            return tuple(_record(row, several) for row in _rows(self._text(self.dataset)))
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(self.dataset, str(error)) from None

    def _multi_label(self) -> bool:
        """Whether an image of the run may have several labels; of an evaluation, that of its run."""
        run = self.own_run
        return run.recipe.exists() and run.read_recipe().multi_label

    def read_predictions(self, part: str) -> Predictions:
        path = self.predictions(part)
        try:
            return _predictions(_rows(self._text(path)))
        except (TypeError, KeyError, ValueError) as error:
            raise self._damaged(path, str(error)) from None

    def has(self, path: Path) -> bool:
        """Whether the run has this file, also where somebody deleted it since it was written."""
        return path.is_file() or (self.manifest.is_file() and self._name(path) in self._manifest().files)

    def read(self, path: Path) -> bytes:
        """The bytes that were written; raises RunError, with what to do, where the file holds others."""
        for _ in range(READ_TRIES):
            try:
                data = read_file(path, max_bytes=MOST_WEIGHT_BYTES)
            except FileNotFoundError:
                raise RunError(
                    f"{path} is missing",
                    hint=self.remedy(path),
                ) from None
            except OSError as error:
                raise RunError(
                    f"{path} cannot be read ({error.strerror})",
                    hint="check what it is",
                ) from None
            problem = self._problem(path, Content.of(data))
            if not problem:
                return data
        raise self._damaged(path, problem)

    def check(self, *paths: Path) -> None:
        """Raise RunError where one of these files is not what was written."""
        for path in paths:
            self.read(path)

    def damaged(self) -> dict[Path, str]:
        """What is wrong with each file of the manifest that is missing or holds other bytes."""
        manifest, found = self._manifest(), {}
        for name in {**manifest.files, **manifest.writing}:
            path = self.root / name
            try:
                problem = manifest.problem(name, _content(path))
            except OSError:  # a file that was only announced may never have come
                problem = "missing" if name in manifest.files else ""
            if problem:
                found[path] = problem
        return found

    def manifest_problem(self) -> str:
        """What is wrong with the manifest itself, or ""; a folder in which no run began needs none."""
        try:
            self._manifest()
        except RunError:
            return "damaged" if self.manifest.exists() else "missing"
        return ""

    def knows(self, path: Path) -> bool:
        """Whether the manifest says what this file must hold."""
        manifest, name = self._manifest(), self._name(path)
        return name in manifest.files or name in manifest.writing

    def accepts(self, path: Path, data: bytes) -> bool:
        """Whether the manifest knows this file as holding that."""
        return self._manifest().accepts(self._name(path), Content.of(data))

    def remedy(self, path: Path) -> str:
        """What makes a file of this run again, in words."""
        return f"to make it again, run: {self._command_for(path)}"

    def require_trained(self) -> None:
        """Raise RunError, which says how to go on, where training was stopped before its end."""
        if self.has(self.model_json):
            return
        resume = f"saccade train --resume {shlex.quote(str(self.root))}"
        finish = f"; or make the model out of the best epoch so far: `{resume} --finish`"
        raise RunError(
            f"{self.root} is not trained to the end",
            hint=f"go on where it was stopped: `{resume}`{finish if self.has(self.history) else ''}",
        )

    # -- writing -----------------------------------------------------------------------------

    def write_recipe(self, recipe: Recipe, *, comment: str = "") -> None:
        """Written once; a recipe that is there already is never rewritten."""
        if not self.recipe.exists():
            first = f"# {comment}\n" if comment else ""
            self.write(self.recipe, _utf8(first + recipe.to_toml()))

    def write_environment(self, values: Mapping[str, Any]) -> None:
        self.write(self.environment, json_bytes(values))

    def write_record(self, record: RunRecord) -> None:
        self.write_environment(record.as_json())

    def update_record(self, **changes: Any) -> RunRecord:
        """Write other values for some fields of `environment.json`; returns the record as it is now."""
        record = self.read_record().replaced(**changes)
        self.write_record(record)
        return record

    def write_audit(self, values: Mapping[str, Any]) -> None:
        self.write(self.audit, json_bytes(values))

    def write_dataset(self, records: Iterable[ImageRecord]) -> None:
        self.write(self.dataset, dataset_bytes(records))

    def write_history(self, rows: Iterable[EpochRow]) -> None:
        """The whole history each time, so that a continued run never repeats a line."""
        lines = "".join(json.dumps(row.as_json(), allow_nan=True) + "\n" for row in rows)
        self.write(self.history, _utf8(lines))

    def write_predictions(self, part: str, predictions: Predictions) -> None:
        self.write(self.predictions(part), predictions_bytes(predictions))

    def write_metrics(self, part: str, values: Mapping[str, Any]) -> None:
        self.write(self.metrics(part), json_bytes(values))

    def write_insight(self, name: str, values: Mapping[str, Any]) -> None:
        self.write(self.insight(name), json_bytes(values))

    def write_about(self, values: Mapping[str, Any]) -> None:
        self.write(self.about, json_bytes(values))

    def write_certificate(self, values: Mapping[str, Any], model: Path | None = None) -> None:
        self.write(self.certificate(model), json_bytes(values))

    def write(self, path: Path, data: bytes) -> None:
        """Write a file atomically; one of this folder is announced in the manifest before."""
        if name := self._name(path):
            self._write_manifest(self._settled().announcing(name, Content.of(data)))
        write_bytes(path, data)

    def put_folder(self, made: Path, target: Path) -> None:
        """Put a folder of files, on the same disk, in the place of `target`, whole; raises RunError.

        One inside this folder is announced in the manifest before.
        """
        try:
            found = files_below(made)
            for path in found:
                fsync_file(path)
            if name := self._name(target):
                contents = {f"{name}/{path.relative_to(made).as_posix()}": _content(path) for path in found}
                self._write_manifest(self._settled().announcing_folder(name, contents))
            replace_folder(made, target, target.with_name(f".{target.name}.{os.getpid()}{PART}"))
            fsync_folder(target.parent)
        except OSError as error:
            raise RunError(
                f"{target} cannot be written ({error.strerror})",
                hint="free some space or permissions there, or give --out another folder",
            ) from None

    def remove(self, path: Path) -> None:
        """Remove a file, where it is there, and forget what it held."""
        path.unlink(missing_ok=True)  # first: killed in between, the file is missing and made again
        self._write_manifest(self._settled().without(self._name(path)))

    def note_command(self, command: Sequence[str]) -> None:
        """Write down what makes the files of this folder again; begins the manifest where there is none."""
        self._write_manifest(self._settled().made_by(command))

    def begin_again(self, command: Sequence[str], keep: Iterable[Path] = ()) -> None:
        """A manifest that knows nothing but the files to `keep`, as they are now."""
        files = {self._name(path): _content(path) for path in keep if path.is_file()}
        self._write_manifest(Manifest(files).made_by(command))

    # -- the life of a run -------------------------------------------------------------------

    def continues(self, recipe: Recipe, identity: Mapping[str, str], *, only_to_show: bool = False) -> bool:
        """Whether an earlier run stands here that the same settings continue; False for a new folder.

        Fields that change no result (`MEANS`) may be others. `identity` names what must be the same besides
        the recipe (the data). Raises RunError naming what differs, or when the folder holds something that
        is no run. Writes nothing, so that a refusal later on (bad data, no weights) leaves no half-begun run
        behind. `only_to_show`: nothing of a finished run will be trained again, so its former defaults may
        stand.
        """
        if not self.recipe.exists():
            self._refuse_foreign()
            return False
        changes = differing_keys(self.read_recipe(), recipe)
        changes = {key: values for key, values in changes.items() if key not in MEANS}
        if self.environment.exists():
            stored = self.read_environment()
            changes |= {k: (stored[k], v) for k, v in identity.items() if k in stored and stored[k] != v}
        former = {key: old for key, old in FORMER_DEFAULTS.items() if key not in recipe.given}
        all_former = {key: old for key, (old, _) in changes.items()}.items() <= former.items()
        if changes and not (all_former and only_to_show and self.read_record().finished):
            listed = "; ".join(f"{key}: there {old!r}, now {new!r}" for key, (old, new) in changes.items())
            hint = "give --out a new folder, or the same settings to continue"
            if all_former:
                flags = " ".join(f"--{key} {former[key]}" for key in changes)
                hint = f"the default was another when it began: add {flags}, or give --resume {self.root}"
            raise OtherRunError(f"{self.root} holds a run with another recipe ({listed})", hint=hint)
        return True

    def _refuse_foreign(self) -> None:
        if not self.root.exists():
            return
        names = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else []
        foreign = [name for name in names if name not in (self.lock.name, self.inputs.name, *OF_A_SEARCH)]
        if foreign or not self.root.is_dir():
            holds = f" (it holds {foreign[0]})" if foreign else ""
            raise RunError(
                f"{self.root} exists and is not a run folder{holds}",
                hint="give --out a new folder",
            )

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Within it the first files are written. A run stopped there leaves a mark, so that the next command
        knows these files as ours and writes them again. Call `continues` first: it refuses foreign files."""
        try:
            self.beginning.touch()
            fsync_folder(self.root)
        except OSError as error:
            raise RunError(
                f"{self.root} cannot be written to ({error.strerror})",
                hint="free some space or permissions there, or give --out another folder",
            ) from None
        yield
        self.beginning.unlink()

    # -- the manifest ------------------------------------------------------------------------

    def _name(self, path: Path) -> str:
        """A file's name in the manifest; "" for one outside of the folder."""
        root, full = os.path.abspath(self.root), os.path.abspath(path)
        inside = full.startswith(root + os.sep)
        return Path(full).relative_to(root).as_posix() if inside else ""

    def _manifest(self) -> Manifest:
        """What was written down; raises RunError where it is damaged, or missing from a run."""
        try:
            return Manifest.from_text(read_text(self.manifest, errors="surrogateescape"))
        except FileNotFoundError:
            if not self.recipe.exists():
                return Manifest()
            problem = "missing, so what the files of this run must hold is not known"
            raise RunError(
                f"{self.manifest} is {problem}",
                hint=self.remedy(self.manifest),
            ) from None
        except OSError as error:
            raise RunError(
                f"{self.manifest} cannot be read ({error.strerror})",
                hint="check its permissions",
            ) from None
        except ValueError as error:
            raise self._damaged(self.manifest, str(error)) from None

    def _settled(self) -> Manifest:
        """The manifest with the file that was announced last counted in, or forgotten where it never came."""
        manifest = self._manifest()
        there = [name for name in manifest.writing if (self.root / name).is_file()]
        return manifest.settled({name: _content(self.root / name) for name in there})

    def _write_manifest(self, manifest: Manifest) -> None:
        write_text(self.manifest, manifest.to_text())

    def _problem(self, path: Path, found: Content) -> str:
        if not self.manifest.exists() and not self.recipe.exists():
            return ""  # files that somebody put together, which is no run
        name = self._name(path)
        return self._manifest().problem(name, found) if name else ""

    def _damaged(self, path: Path, problem: str) -> RunError:
        return RunError(f"{path} is damaged ({problem})", hint=self.remedy(path))

    def _command_for(self, path: Path) -> str:
        run, name = shlex.quote(str(self.root)), self._name(path)
        if name in ("export/model.onnx", "export/certificate.json"):
            return f"saccade export {run}"
        for kind in ("int8", "fp16"):
            if name.startswith(f"export/model.{kind}.onnx"):
                return f"saccade export {run} --{kind}"
        if name.count("/") > 1 and name.startswith("export/"):
            return f"saccade export {run} --format {self._format_of(path)}"
        if name.endswith((".onnx", ".onnx.certificate.json")):
            return f"saccade export {run} --out {shlex.quote(str(path).removesuffix('.certificate.json'))}"
        if name.startswith("export/") and path != self.class_list:
            return f"saccade export {run} --format {self._format_of(path)}"
        if path in (self.label_errors, self.decide_page) or name.startswith("insights/"):
            return f"saccade report {run} --full"
        if name.startswith(("metrics/", "report/")) and self.recipe.exists():
            return f"saccade evaluate {run}"
        return shlex.join(self._noted_command()) or "`saccade train` with the same settings"

    def _format_of(self, path: Path) -> str:
        """The export format of a file in export/, as its certificate says; else a word to be replaced."""
        inside = path.absolute().relative_to(self.onnx.parent.absolute()).parts
        folder = self.onnx.parent / inside[0]
        model = path.with_name(path.name.removesuffix(".certificate.json")) if len(inside) == 1 else folder
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(parse_json(read_text(certificate_beside(model)))["format"])
        return "NAME"

    def _noted_command(self) -> list[str]:
        """The command that made these files, as far as what is left of them tells."""
        with contextlib.suppress(OSError, ValueError):
            return list(Manifest.from_text(read_text(self.manifest)).command)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return [str(word) for word in parse_json(read_text(self.environment))["command"]]
        return []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; a second one gets a RunError with the first one's process id."""
        absent = [folder for folder in self.root.absolute().parents if not folder.exists()]
        handle = self._take_lock()
        _HELD.add(handle)
        try:
            self._note_owner(handle)
            self._remove_leftovers()
            with tidied_by(partial(self._remove_if_nothing_began, handle, absent)):
                yield
        finally:
            if handle in _HELD:  # not in a process forked inside
                self._remove_leftovers()
                self._remove_if_nothing_began(handle, absent)
                _HELD.remove(handle)
                os.close(handle)  # the kernel drops the lock with it, also after kill -9

    def in_use(self) -> bool:
        """Whether a process holds the run's lock now."""
        try:
            handle = os.open(self.lock, os.O_RDWR)
        except OSError:
            return False
        try:
            return not lock_file(handle)
        finally:
            os.close(handle)

    def _note_owner(self, handle: int) -> None:
        os.ftruncate(handle, 0)
        with contextlib.suppress(OSError):  # a full disk is said by the file that matters
            os.write(
                handle, str(os.getpid()).encode("ascii")
            )  # at its start: nothing was read or written yet

    def _remove_leftovers(self) -> None:
        """Remove what a stopped write left: temporary files, and first files of a run that never began."""
        if self.beginning.exists() and not self.recipe.exists():
            for path in (self.dataset, self.audit, self.environment, self.manifest):
                path.unlink(missing_ok=True)
        elif not self.recipe.exists():
            return  # the folder may be somebody's
        for path in list(self.root.rglob(f".*{PART}")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self.beginning.unlink(missing_ok=True)

    def _take_lock(self) -> int:
        """The lock file, open and locked; again where a refused command removes it in this moment."""
        for last in (*[False] * (LOCK_TRIES - 1), True):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                if isinstance(error, FileNotFoundError | FileExistsError) and not last:
                    continue
                raise RunError(
                    f"{self.root} cannot be a run folder ({error.strerror})",
                    hint="give --out a folder that can be written to",
                ) from None
            if self._locks(handle):
                return handle
            os.close(handle)
        raise RunError(
            f"{self.root} is used by many commands at once",
            hint="use another --out",
        )

    def _locks(self, handle: int) -> bool:
        """Lock the open file; False where another has its name by now. Raises RunError where it is held."""
        if not lock_file(handle):
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise RunError(
                f"{self.root} is in use by process {owner}",
                hint="wait until it has finished, or use another --out",
            ) from None
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.lock))
        except FileNotFoundError:
            return False

    def _remove_if_nothing_began(self, handle: int, absent: Sequence[Path]) -> None:
        """A refusal leaves neither a lock in somebody's folder nor one that held nothing else.

        absent: the folders above it that were made for this one, such as runs/.
        """
        if handle not in _HELD or self.recipe.exists():
            return
        with contextlib.suppress(OSError):  # it holds something; Windows removes no file that is open
            self.lock.unlink(missing_ok=True)
            for folder in (self.root, *absent):
                folder.rmdir()

    def _text(self, path: Path) -> str:
        return self.read(path).decode("utf-8", errors="surrogateescape")

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            return _object(self._text(path))
        except ValueError as error:
            raise self._damaged(path, str(error)) from None


def _content(path: Path) -> Content:
    return Content.of(read_file(path, max_bytes=MOST_WEIGHT_BYTES))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file outside of a run; raises RunError where there is none."""
    try:
        return _object(read_text(path, errors="surrogateescape"))
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror})",
            hint="check what it is",
        ) from None
    except ValueError as error:
        raise RunError(
            f"{path} is damaged ({error})",
            hint="make it again",
        ) from None


def _object(text: str) -> dict[str, Any]:
    values = parse_json(text)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return values


def existing_run(path: str | Path) -> RunFolder:
    """The run folder at `path`; raises RunError when none was begun there."""
    run = RunFolder(Path(path))
    if not run.has(run.recipe):
        raise RunError(
            f"{path} is not a run folder (it has no recipe.toml)",
            hint="give a folder that `saccade train` made",
        )
    return run


_HELD: set[int] = set()  # locks of this process, as open files


def _leave_locks_to_parent() -> None:
    """A forked process (a worker that loads images) must not hold a lock longer than who forked it."""
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_parent)


def certificate_beside(model: Path) -> Path:
    """`FILE.certificate.json` beside a model file that lies outside a run; within a folder of its own."""
    if model.is_dir():
        return model / FOLDER_CERTIFICATE
    return model.with_name(model.name + ".certificate.json")


def read_predictions(path: Path) -> Predictions:
    """Predictions from a CSV outside of a run, such as `saccade predict` writes; raises RunError."""
    try:
        return _predictions(read_csv(path))
    except (TypeError, KeyError, ValueError) as error:
        raise RunError(
            f"{path} is damaged ({error})",
            hint="make it again",
        ) from None


def _predictions(rows: list[dict[str, str]]) -> Predictions:
    """Predictions from rows with path,label,predicted,confidence,p_<class>... ; raises what is wrong.

    Without a column confidence, label and predicted are sets of names: an image may have several.
    """
    if not rows:
        raise ValueError("it holds no predictions")
    classes = tuple(name[2:] for name in rows[0] if name.startswith("p_"))
    values = [[float(row[f"p_{label}"]) for label in classes] for row in rows]
    found = Predictions(
        paths=tuple(row["path"] for row in rows),
        labels=tuple(row["label"] for row in rows),
        classes=classes,
        probabilities=np.array(values, dtype=np.float64).reshape(len(rows), len(classes)),
    )
    if "confidence" in rows[0]:
        return found
    # the names that were given are read like those that are true
    return replace(found, named=replace(found, labels=tuple(row["predicted"] for row in rows)).truth)


def predictions_bytes(predictions: Predictions) -> bytes:
    """One row an image; probabilities with 9 significant digits.

    Where an image may have several labels, no column confidence: there is none in the answer as a whole.
    """
    if predictions.named is not None:
        return _label_sets_bytes(predictions)
    header = ("path", "label", "predicted", "confidence", *(f"p_{label}" for label in predictions.classes))
    rows = (
        [image, label, predicted, f"{confidence:.9g}", *(f"{p:.9g}" for p in row)]
        for image, label, predicted, confidence, row in zip(
            predictions.paths,
            predictions.labels,
            predictions.predicted,
            predictions.confidence,
            predictions.probabilities,
            strict=True,
        )
    )
    return csv_bytes(header, rows)


def _label_sets_bytes(predictions: Predictions) -> bytes:
    header = ("path", "label", "predicted", *(f"p_{label}" for label in predictions.classes))
    columns = (predictions.paths, predictions.labels, predictions.predicted, predictions.probabilities)
    return csv_bytes(
        header,
        (
            [path, label, named, *(f"{p:.9g}" for p in row)]
            for path, label, named, row in zip(*columns, strict=True)
        ),
    )


def dataset_bytes(records: Iterable[ImageRecord]) -> bytes:
    """dataset.csv: one row an image."""
    return csv_bytes(
        DATASET_COLUMNS, ([getattr(record, name) for name in DATASET_COLUMNS] for record in records)
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header, as written by `write_csv`; raises RunError when it cannot be read."""
    try:
        return _rows(
            read_text(path, errors="surrogateescape").removeprefix("\ufeff")
        )  # Excel needs that mark
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror})",
            hint="check its path and permissions",
        ) from None
    except ValueError as error:
        raise RunError(
            f"{path} is damaged ({error})",
            hint="check what it is",
        ) from None


def _rows(text: str) -> list[dict[str, str]]:
    """Rows of a CSV with a header; raises ValueError for what is none."""
    try:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    write_bytes(path, csv_bytes(header, rows))


def csv_bytes(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> bytes:
    """CSV with \\n line ends; names that are not UTF-8 survive by surrogateescape. No header: rows alone."""
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    if header is not None:
        plain.writerow(header)
    for row in rows:  # a carriage return in a name ends the row unless it is quoted, which csv leaves out
        returns = any(isinstance(value, str) and "\r" in value for value in row)
        (quoted if returns else plain).writerow(row)
    return _utf8(buffer.getvalue())


def write_json(path: Path, values: Any) -> None:
    write_bytes(path, json_bytes(values))


def json_bytes(values: Any) -> bytes:
    return json_text(values).encode()


def canonical_sha256(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def write_text(path: Path, text: str) -> None:
    write_bytes(path, _utf8(text))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically, as `replacing` does."""
    with replacing(path, needed_bytes=len(data)) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, needed_bytes: int = 0) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end, whole or not at all.

    Temporary file, flush, fsync, rename, fsync of the folder; mode as `open` would give. Raises RunError when
    the disk is full or the place cannot be written; the old file is then untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=PART)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                stream.flush()
                if hasattr(os, "fchmod"):  # Windows before Python 3.13 has none, and no such modes
                    os.fchmod(stream.fileno(), _file_mode(path))
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
    except OSError as error:
        room = _room(path.parent, needed_bytes) if error.errno == errno.ENOSPC else ""  # a quota's is unknown
        raise RunError(
            f"{path} cannot be written ({error.strerror}){room}",
            hint="free some space or permissions there, or give --out another folder",
        ) from None


def _room(folder: Path, needed_bytes: int) -> str:
    """What is free in the folder, beside what a file needs there."""
    with contextlib.suppress(OSError):
        free = file_size(shutil.disk_usage(folder).free)
        needs = f"it needs {file_size(needed_bytes)}, " if needed_bytes else ""
        return f"; {needs}{free} free there"
    return ""


def fsync_file(path: Path) -> None:
    """Make a file that somebody else wrote durable."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Make a rename durable: the folder's own entry must reach the disk too. Windows opens no folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_mode(path: Path) -> int:
    """The mode of the file that is replaced, else what the user's umask gives (never a temp file's 0600)."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _record(row: Mapping[str, str], several: bool = False) -> ImageRecord:
    """One row of dataset.csv; raises KeyError, TypeError or ValueError for what is none."""
    status = row["status"]
    if status not in get_args(Status):
        raise ValueError(f"status {status!r}")
    values = {name: row[name] for name in DATASET_COLUMNS if name not in ("width", "height")}
    sides = {"width": int(row["width"]), "height": int(row["height"])}
    return ImageRecord(**values, **sides, several=several)  # type: ignore[arg-type]
