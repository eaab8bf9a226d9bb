"""The result of a run in words: figures, diagnosis, promises, certificate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.evaluation.metrics import metrics_from_json
from saccade.evaluation.shown import Shown, shown_figures
from saccade.export.verdict import lacks_images
from saccade.files import files_below
from saccade.pipeline.division import FOLDS
from saccade.pipeline.fold_figures import say_folds
from saccade.pipeline.judge import JUDGED_PARTS
from saccade.pipeline.promises import NOT_CHECKED
from saccade.records import Metrics
from saccade.report.next_step import next_command
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal, counted


def _figures(run: RunFolder, part: str) -> Metrics | None:
    return metrics_from_json(run.read_metrics(part)) if run.has(run.metrics(part)) else None


def say_result(run: RunFolder, terminal: Terminal) -> None:
    """Figures with interval and number of images, the diagnosis, the certificate, and where things lie."""
    for part in JUDGED_PARTS:
        figures = _figures(run, part)
        if figures is not None:
            terminal.say(result_line(part, figures))
    folded = run.has(run.metrics(FOLDS))
    if folded:
        say_folds(run, terminal)
    if not run.has(run.metrics("test")) and folded:
        terminal.say(
            "          there is no test part: these figures are of the folds' models, not of the joined one"
        )
    elif not run.has(run.metrics("test")):
        terminal.say(
            "          there is no test part: validation images chose the checkpoint, so these figures are "
            "optimistic"
        )
    record = run.read_record()
    for finding in record.diagnosis or ():
        terminal.say(f"Diagnosis {finding['message']} {finding['remedy']}".rstrip())
    if command := next_command(record.command, record.diagnosis[0]["remedy"] if record.diagnosis else ""):
        terminal.say(f"Try       {command}")
    for number, promise in record.promises.items():
        if promise["kept"] is False:
            terminal.say(f"BROKEN    promise {number}: {promise['evidence']}")
        elif promise.get("state") == NOT_CHECKED:
            terminal.say(f"          promise {number} was not checked: {promise['evidence']}")
    if run.has(run.certificate()):
        run.check(run.onnx)
        terminal.say(certificate_line(run.read_certificate(), run.onnx))
    terminal.say(f"Report    {run.report}")


def result_line(part: str, figures: Metrics) -> str:
    if figures.multi_label:
        return _labels_line(part, figures)
    value = figures.accuracy
    rest = f"balanced {figures.balanced_accuracy:.1%}, macro F1 {figures.macro_f1:.3f}"
    return (
        f"{part.capitalize():<10} accuracy {value.value:.1%} (95 %: {value.low:.1%} to {value.high:.1%}, "
        f"{figures.images:,} images), {rest}"
    )


def say_figures(part: str, figures: Metrics, terminal: Terminal) -> None:
    """Every figure of a part as a table, with its interval; of several labels an image, the line says it."""
    if figures.multi_label:
        return
    rows = shown_figures(figures)
    width = max(len(row.name) for row in rows)
    terminal.say(f"Figures   of {part}, {images_in_words(figures)}; 95 % intervals")
    for row in rows:
        terminal.say(f"          {row.name:<{width}}  {_shown(row)}")
    if "answer_or_ask" in figures.extra:
        _say_answering(figures.extra["answer_or_ask"], terminal)


def _say_answering(found: Mapping[str, Any], terminal: Terminal) -> None:
    """What thresholds on the confidence let through, and which one gives the wanted precision."""
    terminal.say("Answer    only with a confidence of at least")
    for row in found["rows"]:
        terminal.say(f"          {row['threshold']:<6g} {_let_through(row)}")
    chosen = found["recommended"]
    if chosen and chosen["reached"]:
        told = f"{_let_through(chosen)}, for {100 * chosen['precision']:.3g} %"
        terminal.say(f"          {chosen['threshold']:<6.3f} {told}: {chosen['note']}")
    elif chosen:
        terminal.say(f"          {chosen['note']}")


def _let_through(row: Mapping[str, Any]) -> str:
    told = f"{row['share_answered']:>6.1%} answered"
    if row["share_right"] is None:
        return told
    return f"{told}, {row['share_right']:.1%} of them right ({row['low']:.1%} to {row['high']:.1%})"


def images_in_words(figures: Metrics) -> str:
    """How many images, and in how many groups where some belong together."""
    groups = figures.extra.get("groups", figures.images)
    told = counted(figures.images, "image")
    return f"{told} in {counted(groups, 'group')}" if groups < figures.images else told


def _shown(row: Shown) -> str:
    scale, places, unit = (100, 1, " %") if row.share else (1, 3, "  ")
    value = f"{scale * row.value:>7.{places}f}{unit}"
    if row.interval is None:
        return value.rstrip()
    low, high = (f"{scale * bound:.{places}f}" for bound in row.interval)
    return f"{value}  {low} to {high}"


def _labels_line(part: str, figures: Metrics) -> str:
    low, high = figures.extra["intervals"]["mean_average_precision"]
    return (
        f"{part.capitalize():<10} mean average precision {figures.mean_average_precision:.3f} (95 %: "
        f"{low:.3f} to {high:.3f}, {figures.images:,} images), micro F1 {figures.micro_f1:.3f}, macro F1 "
        f"{figures.macro_f1:.3f}, exact match {figures.accuracy.value:.1%}"
    )


def certificate_line(values: Mapping[str, Any], file: Path) -> str:
    """One sentence on an exported file and its certificate."""
    verdict = "certified" if values["passed"] else "FAILED its certificate"
    files = files_below(file) if file.is_dir() else [file] * file.exists()
    size = sum(path.stat().st_size for path in files) / 1e6
    what = (
        _accuracy_change(values)
        if values["kind"] != "float"
        else f"largest probability difference {values['max_probability_difference']:.1e}"
    )
    return (
        f"Export    {file} ({size:.1f} MB) {verdict}: {values['images']} images, "
        f"{_agreement(values)} {values['top1_agreement']:.2%}, {what}{_where(values)}{_advice(values)}"
    )


def _agreement(values: Mapping[str, Any]) -> str:
    """What agrees: the first class, or the set of labels."""
    return str(values.get("agreement", "top-1 agreement"))


def _accuracy_change(values: Mapping[str, Any]) -> str:
    interval = values.get("accuracy_change_interval")  # certificates of earlier versions have none
    bounds = f"95 %: {interval['low']:+.1%} to {interval['high']:+.1%}, " if interval else ""
    return (
        f"validation accuracy {values['accuracy_change']:+.2%} ({bounds}allowed -{values['tolerance']:.2%}), "
        f"largest probability difference {values['max_probability_difference']:.2g}"
    )


def _where(values: Mapping[str, Any]) -> str:
    """The runtimes, and for a reduced file the processor."""
    rows = values.get("runtimes", [])
    ran = " and ".join(f"{row['runtime']} {row['version']}" for row in rows if row.get("binding", True))
    ran += "".join(
        f" ({row['runtime']}: {_agreement(values)} {row['top1_agreement']:.2%}, largest difference "
        f"{row['max_probability_difference']:.2g})"
        for row in rows
        if not row.get("binding", True)
    )
    processor = f" on {values['instruction_set']}" if values["kind"] != "float" and ran else ""
    refused = "".join(
        f"; it does not run in {name}: {why}" for name, why in values.get("runtimes_not_run", {}).items()
    )
    return f", in {ran}{processor}{refused}" if ran else ""


def _advice(values: Mapping[str, Any]) -> str:
    """Why a certificate failed, and what to do about it."""
    if values["passed"]:
        return ""
    reasons = "; ".join(values.get("problems", []))
    return f". {reasons[:1].upper()}{reasons[1:]}{'. ' if reasons else ''}{_remedy(values, reasons)}"


def _remedy(values: Mapping[str, Any], reasons: str) -> str:
    if values["kind"] == "float":
        return (
            "Do not ship it; train again in a new folder with another --backbone, or, where that difference "
            "is acceptable, with a larger --export.tolerance"
        )
    ship = "Ship the float file (export/model.onnx)"
    if lacks_images(reasons):
        return (
            f"{ship}; for {values['kind']} train again in a new folder with a larger validation part "
            "(--split.validation), or raise --export.certify_images where that left images out"
        )
    return (
        f"{ship}; for {values['kind']} train again in a new folder, with more images to calibrate on "
        "(--export.calibration_images 1000) or another --backbone, or, if that drop is acceptable, with a "
        "larger --export.max_drop"
    )
