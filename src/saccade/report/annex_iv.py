"""The headings of Annex IV, points 2 to 4, of Regulation (EU) 2024/1689: what a run knows under each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saccade.evaluation.remedies import fitted
from saccade.records import monitor_in_words
from saccade.report.cover import header
from saccade.report.facts import Facts
from saccade.report.markdown import left_open, plain
from saccade.report.origins import data_name, images_by_part, weights_of
from saccade.report.promises import promises
from saccade.terminal import counted

TITLE = "## Technical documentation: headings of Annex IV, points 2 to 4, of Regulation (EU) 2024/1689"
ABOUT = (
    "These headings follow the Annex in short. What stands under them comes from the files of the run. "
    "Whether the documentation is complete, and which law applies, is for you to judge."
)


@dataclass(frozen=True, slots=True)
class Heading:
    """`known(facts)` is what the run can say, "" for nothing; `open` what only a person can add."""

    title: str
    open: str
    known: Callable[[Facts], str] = lambda facts: ""


def annex_iv(facts: Facts) -> list[str]:
    """The section, as paragraphs of Markdown."""
    return [TITLE, ABOUT, *(text for heading in HEADINGS for text in _paragraphs(heading, facts))]


def _paragraphs(heading: Heading, facts: Facts) -> Iterator[str]:
    yield f"### {heading.title}"
    if known := heading.known(facts):
        yield known
    yield left_open(heading.open)


def _development(facts: Facts) -> str:
    weights = weights_of(facts)
    version = facts.record.versions.get("saccade", "")
    made = f"Made with `saccade train`{f', version {plain(version)}' if version else ''}; see *Training*."
    if weights is None:
        return f"{made} No pretrained weights were used." if facts.record.resolved else made
    licence = plain(weights.licence or "not stated")
    return f"{made} The network began with pretrained weights: {plain(weights.source)}, licence {licence}."


def _design(facts: Facts) -> str:
    model = dict(header(facts)).get("Model", facts.backbone)
    epochs = bool(facts.history) and not fitted(facts.history)  # a head fitted at once has no checkpoints
    monitor = monitor_in_words(facts.recipe.train.monitor) if facts.recipe and epochs else ""
    chosen = f" The checkpoint was chosen by the {plain(monitor)} of validation images." if monitor else ""
    answer = (
        "the probability of each label" if _several(facts) else "the probability of each class; they sum to 1"
    )
    return f"{plain(model) or 'A neural network'}.{chosen} The output is {answer}."


def _several(facts: Facts) -> bool:
    return facts.figures is not None and facts.figures.multi_label


def _architecture(facts: Facts) -> str:
    record = facts.record
    device = plain(record.device_name or record.device)
    spent = f" Training took {record.seconds:.0f} seconds on {device}." if record.seconds and device else ""
    parts = (
        "One file, `model.onnx`: preprocessing, network, probabilities."
        if facts.certificate
        else "Preprocessing, network, probabilities; no file was exported yet."
    )
    return f"{parts}{spent} Versions: see *Environment*."


def _data(facts: Facts) -> str:
    counts = images_by_part(facts)
    if not counts:
        return ""
    parts = ", ".join(f"{images:,} {part}" for part, images in counts.items())
    kinds = {finding["kind"] for finding in facts.audit.get("findings", ())}
    found = f" The audit reported {counted(len(kinds), 'kind')} of findings." if facts.audit else ""
    return f"Images of {plain(data_name(facts))}: {parts}; classes and findings under *Data*.{found}"


def _oversight(facts: Facts) -> str:
    figures = facts.figures
    best = (figures.extra.get("answer_or_ask") or {}).get("recommended") if figures else None
    if not best or best["threshold"] is None:
        return "Each answer has a probability; see *Calibration*."
    return (
        f"Each answer has a probability. So that {best['precision']:.1%} of the answers are right, it is "
        f"recommended to give images below {best['threshold']:.4g} to a person; above that, "
        f"{best['share_answered']:.1%} of the {facts.images_word} images were answered."
    )


def _testing(facts: Facts) -> str:
    figures = facts.figures
    if figures is None:
        return ""
    block = promises(facts.record.promises)
    states = ", ".join(f"{p.number} {p.state}" for p in block)
    return (
        f"Measured on {figures.images:,} {facts.images_word} images; every figure with its 95 % interval "
        f"stands under *Figures*, those of each class beside it. The ten promises of the run: {states}."
    )


def _security(facts: Facts) -> str:
    code = next(promise for promise in promises(facts.record.promises) if promise.number == 10)
    known = code.state in ("kept", "broken")
    hashes = "`manifest.json` holds the SHA-256 of every file."
    return f"{hashes} No code in data: {code.state} ({plain(code.evidence)})." if known else hashes


def _functioning(facts: Facts) -> str:
    figures = facts.figures
    rows = [row for row in figures.per_class if row.support] if figures else []
    if figures is None or not rows:
        return ""
    weakest = min(rows, key=lambda row: (row.recall, row.label))
    return (
        f"Accuracy {figures.accuracy} on {figures.images:,} {facts.images_word} images. Found least often: "
        f"{plain(weakest.label)}, {weakest.recall:.1%} of {weakest.support:,}. See *Limits found*."
    )


HEADINGS = (
    Heading(
        "2 (a) Methods and steps of development, and what was taken from others",
        "how the pretrained network was chosen, if not by default, and what was changed by hand",
        _development,
    ),
    Heading(
        "2 (b) Design: logic, choices and assumptions, what is optimised, expected output, trade-offs",
        "the reasons for these choices, and the people in respect of whom the system is to be used",
        _design,
    ),
    Heading(
        "2 (c) Architecture, how components work together, and computing resources",
        "the system around the model",
        _architecture,
    ),
    Heading(
        "2 (d) Data: provenance, scope, how they were obtained, selected, labelled and cleaned",
        "provenance of the images, how they were selected and labelled, and what was cleaned by hand",
        _data,
    ),
    Heading(
        "2 (e) Human oversight",
        "who looks at which answers, and how they can interpret and overrule them",
        _oversight,
    ),
    Heading(
        "2 (f) Changes that were determined beforehand", "which changes are planned, and how they are tested"
    ),
    Heading(
        "2 (g) Validation and testing: procedures, data, metrics, possibly discriminatory impacts, test logs",
        "impacts on groups of people; the date and signature of the responsible persons",
        _testing,
    ),
    Heading("2 (h) Cybersecurity", "measures of the system around the model", _security),
    Heading(
        "3 Monitoring, functioning and control: capabilities, limits, foreseeable unintended outcomes, input",
        "the accuracy that the purpose needs, risks to health, safety and rights, and how use is monitored",
        _functioning,
    ),
    Heading(
        "4 Why the metrics suit this system",
        "which mistakes cost most in this use, and which of the figures shows them",
    ),
)
