"""`saccade predict`: answers printed, written, sorted into folders or shown on a page; failures named."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import RecipeError
from saccade.predict.contact_sheet import ContactSheet, check_page
from saccade.predict.predictor import Answer, Predictor, inputs_of
from saccade.predict.sorting import FAILED, check_target, sort_photos
from saccade.predict.tables import check_out, write_answers, write_spreadsheet
from saccade.terminal import Progress, printable, silent

if TYPE_CHECKING:
    from saccade.sources.listing import Listing
    from saccade.terminal import Terminal

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
) -> int:
    """`saccade predict`: 0 if every input was predicted, 1 if some failed, 2 if all did."""
    _check(inputs, out=out, top_k=top_k, sort_into=sort_into, link=link, contact_sheet=contact_sheet)
    predictor = Predictor(model)
    listings: dict[str, Listing] = {}
    asked = list(inputs_of(list(inputs), listings=listings))
    if sort_into:
        check_target(Path(sort_into), [name for name, _ in asked], listings, link=link)
    sheet = ContactSheet() if contact_sheet else None
    top_k = min(top_k, len(predictor.classes))
    answers = []
    # Where answers are printed as they come, they are the progress; a bar between them would break.
    printed = not (out or sort_into or contact_sheet)
    with _progress(terminal, printed) as progress:
        for answer in predictor.answers_to(asked, see=sheet.see if sheet else None):
            answers.append(answer)
            progress(len(answers), len(asked))
            if printed and not answer.error:
                terminal.say(_line(answer, top_k))
    failed = [answer for answer in answers if answer.error]
    if out:
        write_answers(Path(out), answers, top_k=top_k)
        terminal.say(f"{len(answers) - len(failed)} predictions written to {out}")
    if sort_into:
        sort_photos(Path(sort_into), answers, terminal, link=link)
    if sheet:
        sheet.write(Path(contact_sheet), failed)
        terminal.say(f"{sheet.summary()}: {contact_sheet}")
    _report_failures(failed, _failure_lists(out, sort_into))
    left_out = _report_left_out(listings)
    return 2 if len(failed) == len(answers) else int(bool(failed or left_out))


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


def _progress(terminal: Terminal, printed: bool) -> contextlib.AbstractContextManager[Progress]:
    return contextlib.nullcontext(silent) if printed else terminal.progress("predicting")


def _line(answer: Answer, top_k: int) -> str:
    ranked = ", ".join(f"{label} {probability:.1%}" for label, probability in answer.top(top_k))
    return f"{printable(answer.path)}: {ranked}"


def _report_left_out(listings: Mapping[str, Listing]) -> int:
    """Say on stderr what was left out of folders and what is passed over by rule; the number left out."""
    from saccade.terminal import Terminal

    errors = Terminal(stream=sys.stderr)
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


def _report_failures(failed: Sequence[Answer], places: Sequence[Path]) -> None:
    """The first failures on stderr; all of them in the files `places`."""
    from saccade.terminal import Terminal

    errors = Terminal(stream=sys.stderr)
    for answer in failed[:FAILURES_SHOWN]:
        errors.say(f"{printable(answer.path)}: {answer.error}")
    if not failed:
        return
    rest = len(failed) - FAILURES_SHOWN
    listed = f"all {len(failed)} inputs that failed are" if len(failed) > 1 else "the input that failed is"
    for place in places:
        write_spreadsheet(place, ("path", "reason"), [[a.path, a.error] for a in failed])
        errors.say(f"{listed} listed in {place}")
    if rest > 0 and not places:
        errors.say(f"and {rest} more; give --out to have them all listed in a file")
