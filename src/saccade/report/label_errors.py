"""Labels that look wrong: a section of the report, and the page on which a person decides about each."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections import Counter
from typing import Any

from saccade.audit.decisions import NOT_A_DUPLICATE, decided_in, parted_in
from saccade.images.decoder import Limits
from saccade.images.thumbnails import ReadImage
from saccade.report.facts import Facts, read_facts
from saccade.report.gallery import Gallery
from saccade.report.next_step import next_command
from saccade.report.render import TEMPLATES, render
from saccade.run_folder import RunFolder

NAME = "label_errors"  # of the analysis
SHOWN = 24
DECIDE_PIXELS = 360  # the longer side of a picture that is decided about


def label_errors(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The most suspicious labels with their pictures, and how many earlier ones were decided about."""
    found, decided = facts.insights.get(NAME), Counter(one.word for one in decided_in(facts.audit))
    if not found and not decided:
        return None
    shown = found["shown"] if found else []
    return {
        "found": found,
        "decided": decided,
        "page": "decide.html" if shown and picture.at_hand else "",
        "shown": [{**row, "picture": picture(row["path"])} for row in shown[:SHOWN]],
    }


# -- the page --------------------------------------------------------------------------------------------


def write_decide_page(run: RunFolder, read_image: ReadImage) -> None:
    """Write `report/decide.html`; where no label looks wrong there is none."""
    if run.read_insights().get(NAME, {}).get("shown"):
        page = decide_html(read_facts(run), read_image)
        run.write(run.decide_page, page.encode("utf-8", "surrogateescape"))
    elif run.has(run.decide_page):
        run.remove(run.decide_page)


def decide_html(facts: Facts, read_image: ReadImage) -> str:
    """The page as text. Its own script alone may run, as a hash says; names reach it as data, not as code."""
    from markupsafe import Markup

    script = (TEMPLATES / "decide.js").read_text("utf-8")
    found = facts.insights[NAME]
    data = _data(facts, found["shown"])
    limits = Limits.of(facts.recipe.data) if facts.recipe else Limits()
    with Gallery(read_image, limits) as picture:
        return render(
            "decide.html",
            name=facts.name,
            rows=[
                {**row, "picture": picture(row["path"], side_pixels=DECIDE_PIXELS)} for row in found["shown"]
            ],
            left_out=found["doubted"] - len(found["shown"]),
            data={**data, "key": hashlib.sha256(json.dumps(data).encode()).hexdigest()},
            script=Markup(script),  # nothing of the run stands in it
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            command=_command(facts),
        )


def _command(facts: Facts) -> str:
    """The run's own command with the decisions; of a run that Python made, one with its data."""
    flag = "--decisions decisions.csv"
    plain = f"saccade train {shlex.quote(facts.record.data)} {flag}"
    return next_command(facts.record.command, flag) or plain


def _data(facts: Facts, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script works with. `earlier` are decisions the run was made with: the next needs them, too."""
    label_of = {record.path: record.label for record in facts.dataset}
    singles = [
        (one.path, one.label or label_of.get(one.path, ""), one.word, one.new_label, "")
        for one in decided_in(facts.audit)
    ]
    pairs = [
        (first, label_of.get(first, ""), NOT_A_DUPLICATE, "", second)
        for first, second in parted_in(facts.audit)
    ]
    return {
        "classes": facts.record.classes or (facts.figures.classes if facts.figures else ()),
        "shown": [{name: row[name] for name in ("path", "label", "others")} for row in shown],
        "earlier": [*singles, *pairs],
    }
