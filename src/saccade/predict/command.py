"""`saccade predict`: answers printed, written, sorted into folders or shown on a page; failures named.

Answers stream from the predictor to whoever asked for them. With `--out` they are kept in a journal beside
the output (`journal.py`), from which the output is written in the end; the same command goes on from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.errors import DataError, ImageError, RecipeError
from saccade.images.decoder import DECODING_VERSION
from saccade.part_files import Cluster
from saccade.predict.contact_sheet import ContactSheet, check_page
from saccade.predict.inputs import Input, pixels_of
from saccade.predict.predictor import Answer, Predictor
from saccade.predict.sorting import FAILED, Sorter, check_target
from saccade.predict.tables import check_out, write_answers
from saccade.sources.inputs import Given, given_by
from saccade.sources.tables import USUAL_COLUMNS, Columns
from saccade.spreadsheet import write_spreadsheet
from saccade.terminal import Progress, Terminal, printable, silent

if TYPE_CHECKING:
    from saccade.predict.journal import Journal

FAILURES_SHOWN = 20


def predict_command(
    model: str,
    inputs: Sequence[str],
    terminal: Terminal,
    *,
    out: str = "",
    top_k: int = 1,
    sort_into: str = "",
    link: bool = False,
    contact_sheet: str = "",
    columns: Columns = USUAL_COLUMNS,
    priors: str = "",
    cluster: Cluster | None = None,
) -> int:
    """`saccade predict`: 0 if every input was predicted, 1 if some failed, 2 if all did."""
    if cluster and contact_sheet:
        raise RecipeError(
            "--contact-sheet shows images, which stay with the workers of --engine ray",
            hint="leave one of the two out",
        )
    _check(inputs, out=out, top_k=top_k, sort_into=sort_into, link=link, contact_sheet=contact_sheet)
    given = given_by(inputs, columns)
    total = _total(given)
    # One photo is answered soonest by all cores together, many by one core for each.
    predictor = Predictor(model, engine_threads=0 if total == 1 else 1, priors=priors)
    if lacks := predictor.artefact.limits_left_out:
        terminal.warn(lacks)
    if predictor.artefact.multi_label:
        _check_for_several(model, out=out, top_k=top_k, sort_into=sort_into)
    if not predictor.limits.pixels.is_colour:  # for which arrays in files are images
        given = given_by(inputs, columns, read_npy=True)
        total = _total(given)
    work = _Work(predictor, given, total, terminal, cluster)
    top_k = min(top_k, len(predictor.classes))
    if sort_into:
        _check_sorting(Path(sort_into), given, link=link)
        sorter = Sorter(Path(sort_into), predictor.classes, link=link)
        work.takers.append(sorter.take)
    if contact_sheet:
        work.sheet = ContactSheet()
        work.takers.append(work.sheet.take)
    if not (out or sort_into or contact_sheet):
        work.print_answers(top_k)
    if out:
        _predict_into(Path(out), work, _identity(predictor, given, columns), top_k)
    else:
        work.run()
    if sort_into:
        sorter.place(terminal)
    if work.sheet:
        work.sheet.write(Path(contact_sheet))
        terminal.say(f"{work.sheet.summary()}: {contact_sheet}")
    _report_failures(work, _failure_lists(out, sort_into))
    left_out = _report_left_out(given)
    return 2 if work.failed == work.done else int(bool(work.failed or left_out))


def _total(given: Sequence[Given]) -> int:
    """How many images there are; 0 where only the end will tell."""
    counts = [one.count for one in given]
    return 0 if None in counts else sum(count or 0 for count in counts)


def _check(
    inputs: Sequence[str], *, out: str, top_k: int, sort_into: str, link: bool, contact_sheet: str
) -> None:
    """Refuse what cannot be done, before any work."""
    if top_k < 1:
        raise RecipeError(f"--top-k must be at least 1, got {top_k}")
    if not inputs:
        raise RecipeError(
            "there is nothing to predict",
            hint="give images or folders of images after the model",
        )
    if link and not sort_into:
        raise RecipeError("--link is without effect", hint="add --sort-into DIR, or leave it out")
    if out:
        check_out(out)
    if contact_sheet:
        check_page(contact_sheet)


def _check_for_several(model: str, *, out: str, top_k: int, sort_into: str) -> None:
    """Refuse what only a model with one answer an image can do."""
    several = f"{model} names any number of labels an image"
    if sort_into:
        raise RecipeError(
            f"--sort-into puts a photo into the folder of its class, and {several}",
            hint="write a table: --out FILE.csv",
        )
    if out and top_k > 1:
        raise RecipeError(f"--top-k ranks the classes, and {several}", hint="the table has all probabilities")


def _check_sorting(folder: Path, given: Sequence[Given], *, link: bool) -> None:
    packed = next((one.word for one in given if not one.files), None)
    if packed:
        raise RecipeError(
            f"--sort-into copies files, and {printable(packed)} is none that holds them",
            hint="give a folder or a list of files",
        )
    photos = [name for one in given for name, _ in one.inputs()]
    check_target(folder, photos, [one.word for one in given if one.listing], link=link)


class _Work:
    """One command's way through its inputs: what was done, what failed, and who is told of each answer."""

    def __init__(
        self,
        predictor: Predictor,
        given: Sequence[Given],
        total: int,
        terminal: Terminal,
        cluster: Cluster | None = None,
    ) -> None:
        self.predictor, self.given, self.total, self.terminal = predictor, given, total, terminal
        self.cluster = cluster
        self.takers: list[Callable[[Answer], None]] = []
        self.sheet: ContactSheet | None = None
        self.printed = False
        self.done = self.failed = 0
        self.failures: list[tuple[str, str]] = []  # the first ones

    def print_answers(self, top_k: int) -> None:
        """Say each answer as it comes. They are the progress; a bar between them would break."""
        self.printed = True

        def say(answer: Answer) -> None:
            if not answer.error:
                self.terminal.say(_line(answer, top_k))

        self.takers.append(say)

    def run(self, journal: Journal | None = None) -> None:
        """Answer every input; those that `journal` has answers for are not predicted again."""
        inputs = itertools.chain.from_iterable(one.inputs() for one in self.given)
        if journal and journal.rows:
            self._repeat(journal, inputs)
        before = self.done
        with self._progress() as progress:
            for piece in self._answered(inputs):
                if journal:
                    journal.add(piece)
                for answer in piece:
                    self._take(answer)
                progress(self.done - before, max(0, self.total - before))

    def _answered(self, inputs: Iterator[Input]) -> Iterator[list[Answer]]:
        if self.cluster:
            from saccade.predict.shared import answered_by

            return answered_by(self.cluster, self.predictor, inputs, first=self.done)
        see = self.sheet.see if self.sheet else None
        return self.predictor.answered_pieces(inputs, first=self.done, see=see)

    def _repeat(self, journal: Journal, inputs: Iterator[Input]) -> None:
        """Take the answers of the journal, each of which must be that of the next input."""
        of = f" of {self.total:,}" if self.total else ""
        self.terminal.say(f"going on after {journal.rows:,}{of}: their answers are in {journal.path}")
        for answer in journal:
            name, content = next(inputs, ("", None))
            if name != answer.path:
                raise DataError(
                    f"the inputs have changed: number {self.done + 1:,} is {printable(name) or 'none'} now, "
                    f"and was {printable(answer.path)} when the prediction began ({journal.path})",
                    hint=f"restore them, or remove it to begin anew: rm {journal.path}",
                )
            if self.sheet and not answer.error:
                self._show_again(self.sheet, answer, name, content)
            self._take(answer)

    def _show_again(self, sheet: ContactSheet, answer: Answer, name: str, content: Any) -> None:
        pixels = pixels_of(name, content, self.predictor.limits) if sheet.wants(answer, self.done) else None
        if pixels is None or isinstance(pixels, ImageError):
            sheet.seen += 1
        else:
            sheet.see(answer, pixels, self.done)

    def _take(self, answer: Answer) -> None:
        self.done += 1
        if answer.error:
            self.failed += 1
            if len(self.failures) < FAILURES_SHOWN:
                self.failures.append((answer.path, answer.error))
        for taker in self.takers:
            taker(answer)

    def _progress(self) -> contextlib.AbstractContextManager[Progress]:
        if self.printed:
            return contextlib.nullcontext(silent)
        return self.terminal.progress("predicting")


def _line(answer: Answer, top_k: int) -> str:
    best = answer.top(len(answer.classes))
    shown = [pair for pair in best if pair[0] in answer.labels] if top_k == 1 else best[:top_k]
    ranked = ", ".join(f"{label} {probability:.1%}" for label, probability in shown)
    return f"{printable(answer.path)}: {ranked or f'no label (most probable: {best[0][0]} {best[0][1]:.1%})'}"


# -- the output -------------------------------------------------------------------------------------------


def _identity(predictor: Predictor, given: Sequence[Given], columns: Columns) -> dict[str, Any]:
    """What the answers depend on, by the words for what is not the same; see `open_journal`."""
    words = json.dumps([[one.word, one.state] for one in given])
    return {
        "another layout of journals": 3,
        "another model": predictor.artefact.sha256,
        "another decoder": DECODING_VERSION,
        "other inputs": hashlib.sha256(words.encode("ascii")).hexdigest(),
        "other columns": [columns.path, columns.root],
        "names from another folder": os.getcwd(),
        **({"other priors": list(predictor.artefact.ratio)} if predictor.artefact.ratio else {}),
    }


def _predict_into(out: Path, work: _Work, identity: Mapping[str, Any], top_k: int) -> None:
    """Answer every input into a journal, and write `out` from it once all are answered."""
    from saccade import run_folder  # noqa: F401  # needed in the end: what it takes, it takes now
    from saccade.predict.journal import open_journal
    from saccade.signals import can_resume

    predictor = work.predictor
    journal = open_journal(
        out, identity, predictor.classes, predictor.artefact.thresholds, predictor.deciding
    )
    can_resume(str(out))
    finished = False
    try:
        try:
            work.run(journal)
        finally:
            journal.flush()
        _remove_leftovers(out)
        _list_failures(Path(f"{out}.failed.csv"), journal, work.failed)
        write_answers(out, journal, top_k=top_k)
        finished = True
    finally:
        journal.close(finished=finished)
    work.terminal.say(f"{work.done - work.failed} predictions written to {out}")


def _remove_leftovers(out: Path) -> None:
    """What a process left behind that was killed while it wrote the output."""
    from saccade.run_folder import PART

    for file in out.parent.iterdir():
        if file.name.startswith(f".{out.name[:80]}.") and file.name.endswith(PART):
            file.unlink()


def _list_failures(place: Path, journal: Journal, failed: int) -> None:
    """All failures beside the output; a list of an earlier command would speak of other inputs."""
    if failed:
        write_spreadsheet(place, ("path", "reason"), _Failures(journal))
    else:
        place.unlink(missing_ok=True)


class _Failures:
    """The rows of the list of failures, as often as they are asked for."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((answer.path, answer.error) for answer in self._journal if answer.error)


# -- what is said in the end ------------------------------------------------------------------------------


def _report_left_out(given: Sequence[Given]) -> int:
    """Say on stderr what was left out of folders and what is passed over by rule; the number left out."""
    errors = Terminal(stream=sys.stderr)
    listings = {one.word: one.listing for one in given if one.listing}
    for folder, listing in listings.items():
        where = printable(folder)
        for line in listing.left_out[:FAILURES_SHOWN]:
            errors.say(f"left out of {where}: {line}")
        if len(listing.left_out) > FAILURES_SHOWN:
            errors.say(f"left out of {where}: {len(listing.left_out) - FAILURES_SHOWN} more")
        if listing.ignored:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in listing.ignored.items())
            errors.say(f"passed over in {where}: {counts}")
    return sum(len(listing.left_out) for listing in listings.values())


def _failure_lists(out: str, sort_into: str) -> list[Path]:
    beside_out = [Path(f"{out}.failed.csv")] if out else []
    return [*beside_out, *([Path(sort_into) / FAILED] if sort_into else [])]


def _report_failures(work: _Work, places: Sequence[Path]) -> None:
    """The first failures on stderr, and the files that list all of them."""
    errors = Terminal(stream=sys.stderr)
    for path, error in work.failures:
        errors.say(f"{printable(path)}: {error}")
    if not work.failed:
        return
    listed = f"all {work.failed} inputs that failed are" if work.failed > 1 else "the input that failed is"
    for place in places:
        errors.say(f"{listed} listed in {place}")
    rest = work.failed - len(work.failures)
    if rest > 0 and not places:
        errors.say(f"and {rest} more; give --out to have them all listed in a file")
