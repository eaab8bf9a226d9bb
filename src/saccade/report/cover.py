"""The first screen of a report: the answer in a sentence, three tiles, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import Any

from saccade.evaluation.remedies import fitted, kept_index
from saccade.preprocess import RGB
from saccade.records import ClassMetrics, Interval, Metrics
from saccade.report.facts import Facts
from saccade.report.gallery import Gallery
from saccade.report.next_step import next_command
from saccade.report.promises import Promise, promises, use_of_test_images
from saccade.report.render import bounds, count, percent
from saccade.terminal import counted, duration

NARROW = 0.02  # an interval that says something of single images in 1,000


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure in large letters; `link` leads to the section that explains it."""

    name: str
    value: str
    words: str
    link: str
    state: str = ""  # "good" or "bad" for a colour


# -- the header ------------------------------------------------------------------------------------------


def header(facts: Facts) -> list[tuple[str, str]]:
    """What was made, from what, when: (word, text) for the top of the page; what is not known is left out."""
    rows = [
        ("Model", _model(facts)),
        ("Data", _data(facts)),
        ("Measured" if facts.about else "Made", _when(facts)),
    ]
    return [(word, text) for word, text in rows if text]


def _model(facts: Facts) -> str:
    run = f"run {facts.about['run']}" if facts.about else ""
    weights = str(facts.about.get("weights_sha256", ""))[:12]
    told = [run, facts.backbone, _how(facts), f"weights {weights}" if weights else ""]
    return ", ".join(filter(None, told))


def _how(facts: Facts) -> str:
    """How it was trained, by what happened and not by what was asked for."""
    if not facts.history:
        return ""
    if fitted([facts.history[kept_index(facts.history)]]):
        head = facts.recipe.model.head if facts.recipe else "linear"
        return f"{head} head on frozen features"
    if facts.record.resolved.get("model.pretrained", False):
        return "fine-tuned"
    return "trained from scratch" if "model.pretrained" in facts.record.resolved else ""


def _data(facts: Facts) -> str:
    location = str(facts.about.get("data", "") if facts.about else facts.record.data)
    used = sum(record.used for record in facts.dataset)
    told = [
        PurePath(location).name or location,
        f"{count(used)} images" if used else "",
        f"{len(facts.figures.classes)} classes" if facts.figures else "",
    ]
    return ", ".join(filter(None, told))


def _when(facts: Facts) -> str:
    when = facts.about["measured"][-1] if facts.about else facts.record.began
    if not when:
        return ""
    seconds = facts.record.seconds
    took = f", took {duration(seconds)}" if seconds else ""
    return f"{day_and_time(when)}{took}"


def day_and_time(text: str) -> str:
    """A stored time for people; text that is none stays as it is.

    >>> day_and_time("2026-11-03T18:21:00+01:00")
    '3 November 2026, 18:21'
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.day} {when:%B %Y, %H:%M}"


# -- the cover -------------------------------------------------------------------------------------------


def cover(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """The answer, the tiles, what was broken, where the images came from, and the next step."""
    if facts.figures is None:
        return None
    kept = [] if facts.about else promises(facts.record.promises)
    return {
        "answer": _answer(facts, facts.figures),
        "tiles": [_accuracy(facts, facts.figures), *_weakest(facts.figures), *_third(facts, kept)],
        "promises": kept,
        "origin": _origin(facts),
        "known": sum(facts.about.get("known", {}).values()),
        "next": _next(facts),
        "command": _command(facts),
    }


def _next(facts: Facts) -> str:
    """The remedy of the most pressing finding, as a sentence that stands alone."""
    remedy = facts.findings[0].remedy.removeprefix("But ") if facts.findings else ""
    return remedy[:1].upper() + remedy[1:]


def _command(facts: Facts) -> str:
    """The one command to try next; "" where the most pressing finding names no flags, or nobody typed one."""
    if facts.about or not facts.findings:
        return ""
    return next_command(facts.record.command, facts.findings[0].remedy)


def _answer(facts: Facts, figures: Metrics) -> str:
    """What the figure means, in one sentence without a term of the trade."""
    whole, value, interval = _of_hundred(figures.accuracy)
    if facts.about.get("data"):
        named = "had exactly their labels" if figures.multi_label else "were named right"
        good = round(figures.accuracy.value * figures.images)
        these = f"{good:,} of these {figures.images:,} images"
        return f"{these} {named}; on average about {value} of {whole} more like them are {interval}."
    right = "have exactly their labels" if figures.multi_label else "are named right"
    fewer = ", or somewhat fewer" if facts.part == "validation" else ""
    return f"On average about {value} of {whole} new images like these {right} {interval}{fewer}."


def _of_hundred(share: Interval) -> tuple[str, str, str]:
    """Of how many, how many, and the interval; of 1,000 only where so many can be told apart.

    >>> _of_hundred(Interval(0.913, 0.884, 0.936)), _of_hundred(Interval(0.997, 0.985, 0.999))
    (('100', '91', '(95 %: 88 to 94)'), ('1,000', '997', '(95 %: 985 to 999)'))
    """
    whole = 1000 if share.high - share.low < NARROW else 100
    value, low, high = (round(whole * end) for end in (share.value, share.low, share.high))
    return f"{whole:,}", f"{value:,}", f"(95 %: {low:,} to {high:,})"


def _accuracy(facts: Facts, figures: Metrics) -> Tile:
    images = f"{count(figures.images)} {facts.images_word} images"
    if figures.multi_label:
        interval = figures.extra["intervals"]["mean_average_precision"]
        value = percent(figures.mean_average_precision)
        return Tile(
            "Mean average precision", value, f"95 % interval {bounds(interval)} %, {images}", "figures"
        )
    accuracy = figures.accuracy
    words = f"95 % interval {bounds((accuracy.low, accuracy.high))} %, {images}"
    return Tile("Accuracy", percent(accuracy.value), words, "figures")


def _weakest(figures: Metrics) -> list[Tile]:
    """The class that is found least often; none where all are found always."""
    rows = [row for row in figures.per_class if row.support]
    if not rows:
        return []
    if figures.multi_label:
        row = min(rows, key=lambda row: row.average_precision or 0.0)
        if row.average_precision == 1:
            return []
        words = f"average precision of {count(row.support)} images with the label"
        return [Tile(f"Weakest label: {row.label}", percent(row.average_precision), words, "labels")]
    row = min(rows, key=lambda row: (row.recall, row.label))
    if row.recall == 1:
        return []
    words = f"of its {counted(row.support, 'image')} found{_taken_for(figures, row)}"
    return [Tile(f"Weakest class: {row.label}", percent(row.recall), words, "classes")]


def _taken_for(figures: Metrics, row: ClassMetrics) -> str:
    own = figures.classes.index(row.label)
    others = [(n, figures.classes[i]) for i, n in enumerate(figures.confusion[own]) if i != own]
    images, name = max(others, key=lambda entry: entry[0], default=(0, ""))
    return f", most often taken for {name}" if images else ""


def _third(facts: Facts, kept: list[Promise]) -> list[Tile]:
    """The promises; of other images the run's own figure beside this one."""
    if facts.about:
        return _own_figure(facts.about.get("own", {}))
    claimed = [promise for promise in kept if promise.state in ("kept", "broken", "not checked")]
    if not claimed:
        return []
    good = sum(promise.state == "kept" for promise in claimed)
    away = sum(promise.state == "not applicable" for promise in kept)
    unchecked = sum(promise.state == "not checked" for promise in kept)
    broken = len(claimed) - good - unchecked
    words = [
        f"{broken} broken" if broken else "",
        f"{unchecked} not checked" if unchecked else "",
        f"{away} {'does' if away == 1 else 'do'} not apply" if away else "",
    ]
    state = "bad" if broken else "good" if good == len(claimed) else ""
    told = ", ".join(filter(None, words)) or "each with its evidence"
    return [Tile("Promises kept", f"{good} of {len(claimed)}", told, "promises", state)]


def _own_figure(own: Mapping[str, Any]) -> list[Tile]:
    if not own:
        return []
    accuracy = Interval(**own["accuracy"])
    words = f"accuracy on {count(own['images'])} images, {bounds((accuracy.low, accuracy.high))} %"
    part = "folds" if own["part"] == "folds" else f"{own['part']} part"
    return [Tile(f"The run's own {part}", percent(accuracy.value), words, "about")]


def _origin(facts: Facts) -> str:
    """What is to be known of the images before one believes a figure."""
    if facts.about:
        return _origin_of_new(facts)
    used = use_of_test_images(facts.record)
    return {
        "test": f"These images were {used}." if used else "",
        "folds": "There is no test part. These are held-out predictions of the folds' models, not of the "
        "model that is made of them all.",
        "validation": "There is no test part. Validation figures chose the model, so they are optimistic: "
        "expect somewhat lower ones on new images.",
    }.get(facts.part, "")


def _origin_of_new(facts: Facts) -> str:
    if not facts.about["data"]:
        return f"The run's own images, answered for other class shares: {facts.about['priors']}."
    priors = f" Answered for class shares {facts.about['priors']}." if facts.about["priors"] else ""
    times, first = len(facts.about["measured"]), facts.about["measured"][0]
    told = "No earlier evaluation of these images is stored in this run."
    if times > 1:
        told = (
            f"This run has measured these images, or some of them, {times} times, first on "
            f"{day_and_time(first)}. A figure by which one chooses again and again becomes optimistic."
        )
    tested = facts.about.get("tested", 0)
    own = f" In the run's own test part: {count(tested)} of them." if tested else ""
    return f"{told}{own}{priors}"


# -- use it ----------------------------------------------------------------------------------------------


def use(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """How to ask the exported model, what it answers with, and its files; nothing where none was exported."""
    if not facts.certificate or facts.about:
        return None
    return {
        "classes": facts.model.get("classes") or (facts.figures.classes if facts.figures else ()),
        "files": [(name, _megabytes(size)) for name, size in facts.sizes.items()],
        "certified": facts.certificate["passed"],
        "node": facts.model.get("architecture", {}).get("channels", RGB.count) == RGB.count,
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
