"""The page says what happened, and nothing else: the cover, a fitted head, evaluations of other images."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_example import ExampleRun, history

from saccade.evaluation.answers import answers
from saccade.evaluation.asking import recommend
from saccade.evaluation.calibration import ReliabilityBin
from saccade.evaluation.metrics import measure, metrics_as_json, metrics_from_json
from saccade.pipeline.about import about_evaluation
from saccade.pipeline.judge import write_pages
from saccade.recipe import Recipe
from saccade.records import Dataset, EpochRow
from saccade.report import figures as drawn
from saccade.report import write_report
from saccade.report.asking import asking
from saccade.report.cover import day_and_time
from saccade.report.facts import Facts, read_facts
from saccade.report.gallery import Gallery
from saccade.report.page import side_by_side
from saccade.run_folder import RunFolder


def text_of(page: str) -> str:
    """What a reader sees, roughly."""
    return " ".join(re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", page, flags=re.S).split())


def written(run: RunFolder, read_image: Any = None) -> str:
    return write_report(run, read_image=read_image).read_text("utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ExampleRun:
    made = ExampleRun(tmp_path_factory.mktemp("example"))
    made.write()
    return made


# -- the cover -------------------------------------------------------------------------------------------


def test_the_header_says_model_data_date_and_duration(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path).write()
    values = run.read_environment() | {"began": "2026-11-30T18:21:05+01:00", "seconds": 42.2}
    run.write_environment(values)
    page = text_of(written(run))
    assert f"Model {Recipe().model.backbone}" in page
    assert "Data photos, 180 images, 4 classes" in page
    assert "Made 30 November 2026, 18:21, took 42 s" in page


def test_the_tiles_name_the_weakest_class_and_the_promises(example: ExampleRun) -> None:
    rows = example.run.read_metrics("test")["per_class"]
    weakest = min(rows, key=lambda row: (row["recall"], row["label"]))
    page = text_of(written(example.run))
    assert f"{100 * weakest['recall']:.1f} % of its {weakest['support']} images found" in page
    assert "Promises kept 8 of 9 1 broken, 1 does not apply" in page


def test_no_class_is_the_weakest_where_all_are_always_found(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path).write()
    figures = metrics_from_json(run.read_metrics("test"))
    found = tuple(replace(row, recall=1.0) for row in figures.per_class)
    run.write_metrics("test", metrics_as_json(replace(figures, per_class=found)))
    assert "Weakest class" not in text_of(written(run))


def test_groups_stand_in_the_column_of_the_part_that_has_them(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path)
    run, predictions = example.write(), example.predictions("validation")
    groups = {path: str(i // 2) for i, path in enumerate(predictions.paths)}
    run.write_metrics("validation", metrics_as_json(measure(predictions, groups=groups)))
    page = text_of(written(run))
    assert "Test 60 images Validation 60 images, 30 groups" in page


def test_how_to_use_the_model_stands_there_with_its_classes(example: ExampleRun) -> None:
    page = text_of(written(example.run))
    for words in (
        "saccade predict export/model.onnx",
        'saccade.load("export/model.onnx")',
        "onnxruntime-node",
    ):
        assert words in page.replace("&#34;", '"')
    assert "4 classes, in the order of the probabilities" in page
    assert "Use this model" not in text_of(
        written(ExampleRun(example.root / "n", without=("certificate",)).write())
    )


def test_a_time_that_is_none_stays_as_it_is() -> None:
    assert day_and_time("2026-11-03T08:05:00+00:00") == "3 November 2026, 08:05"
    assert day_and_time("yesterday") == "yesterday"


def test_rows_of_a_wide_page_are_filled() -> None:
    columns = [8, 4, 6, 12, 6, 6, 6]
    filled = side_by_side([{"columns": n} for n in columns])
    assert [section["columns"] for section in filled] == [8, 4, 12, 12, 6, 6, 12]


# -- a head that was fitted ------------------------------------------------------------------------------


def fits(*accuracies: float) -> list[EpochRow]:
    return [EpochRow("head", i, 0.0, 0.2, 1.0, 0.6, a, 3.0 * i) for i, a in enumerate(accuracies, start=1)]


def test_the_page_of_a_head_tells_of_no_epochs(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path, without=("history",))
    run = example.write()
    run.write_history(fits(0.84, 0.85))
    page = written(run)
    assert 'id="curves"' not in page
    assert "Every epoch" not in page
    assert "(augmented, during training)" not in page
    assert "auto: train.lr" not in page
    told = text_of(page)
    assert "there were no epochs, no learning rate and no random augmentation" in told
    assert "images as they are, and mirror images" in told
    assert "85.0 %" in told


def test_a_calibrated_loss_that_was_watched_has_a_column(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, without=("history",)).write()
    rows = [*fits(0.7), *[replace(row, epoch=i) for i, row in enumerate(history()[3:], start=2)]]
    run.write_history([replace(row, monitor="calibrated_loss", monitored=0.3 + row.epoch) for row in rows])
    page = written(run)
    assert page.count("Calibrated loss</th>") == 2
    assert all(f">{0.3 + row.epoch:.3g}</td>" in page for row in rows)
    run.write_history([replace(row, monitor="accuracy", monitored=0.5) for row in rows])
    assert "Calibrated loss</th>" not in written(run)


def test_a_head_before_epochs_is_a_line_and_no_epoch(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, without=("history",)).write()
    epochs = [replace(row, epoch=i) for i, row in enumerate(history()[3:], start=2)]
    run.write_history([*fits(0.7), *epochs])
    page = text_of(written(run))
    assert "dashed: the head alone" in page
    assert "dotted: epoch 4, whose weights were kept" in page
    table = page.partition("Every epoch as a table")[2]
    assert "head 1" not in table[:600]


def test_a_head_that_is_kept_after_epochs_is_no_fine_tuning(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, without=("history",)).write()
    run.write_history([replace(fits(0.9)[0], validation_loss=0.1), *history()[3:]])
    assert "mlp head on frozen features" in text_of(written(run))


def test_one_epoch_far_off_does_not_flatten_the_others(tmp_path: Path) -> None:
    run = ExampleRun(tmp_path, without=("history",)).write()
    wild = [replace(history()[0], validation_loss=185.0), *history()[1:]]
    run.write_history(wild)
    assert "logarithmic scale: in one epoch it was 185" in text_of(written(run))
    assert drawn.far_off(history()) == 0


def test_the_kept_epoch_has_its_value_beside_it() -> None:
    loss, accuracy = drawn.curves(drawn.Learning(history(), kept=5))
    assert ">0.53<" in loss
    assert ">82.0 %<" in accuracy


def test_bars_of_the_confidence_have_intervals_where_answers_are_independent() -> None:
    rows = [ReliabilityBin(0.8, 0.8667, 12, 0.83, 0.75)]
    assert "LineCollection" in drawn.reliability_diagram(rows)
    assert "LineCollection" not in drawn.reliability_diagram(rows, intervals=False)


# -- classes and mistakes --------------------------------------------------------------------------------


def test_cells_of_the_matrix_lead_to_their_photos(example: ExampleRun) -> None:
    page = written(example.run, example.storage().read)
    ids = set(re.findall(r'id="((?:class|mixup)-[\d-]+)"', page))
    links = re.findall(r'<a href="#((?:class|mixup)-[\d-]+)">', page)
    assert len([link for link in links if link.startswith("class")]) == 4
    assert len([link for link in links if link.startswith("mixup")]) >= 4
    assert set(links) <= ids
    assert 'class="wrong" style="--share: 0.' in page
    told = text_of(page)
    for kind in ("Surest right", "Surest wrong"):
        assert kind in told


def test_of_many_classes_the_worst_come_first(tmp_path: Path) -> None:
    classes = tuple(f"class {i:02}" for i in range(60))
    example = ExampleRun(tmp_path, classes=classes, per_part=240, without=("dataset", "environment"))
    page = written(example.write(), lambda path: b"")
    names = re.findall(r'<div class="class-row".*?<strong>(.*?)</strong>', page, flags=re.S)
    recall = {row["label"]: row["recall"] for row in example.run.read_metrics("test")["per_class"]}
    assert 15 <= len(names) <= 30
    assert [recall[name] for name in names[:15]] == sorted(recall.values())[:15]
    assert len(re.findall(r'<th scope="row" title=', page)) == 15


@pytest.mark.parametrize(
    ("precision", "wanted"), [(0.6, "60"), (0.995, "99.5"), (0.9995, "99.95"), (0.0, "")]
)
def test_the_page_tells_the_threshold_for_the_precision_that_is_wanted(
    precision: float, wanted: str, tmp_path: Path
) -> None:
    example = ExampleRun(tmp_path)
    run, validation = example.write(), answers(example.predictions("validation"))
    chosen = recommend(validation, precision, part="validation") if precision else None
    run.write_metrics("test", metrics_as_json(measure(example.predictions("test"), recommended=chosen)))
    page = text_of(written(run)).replace("\u00a0", " ")
    assert "Accept a confidence of Answered Of these right at least 50 %" in page
    assert "is recommended" not in page
    if chosen is None:
        assert "Wanted:" not in page
        return
    assert f"Wanted: {wanted} % of the answers right. {chosen.note[:1].upper()}{chosen.note[1:]}" in page
    if chosen.threshold is not None:
        told = f"at least {100 * chosen.threshold:.2f} %" if chosen.threshold else "any"
        assert f"{told} recommended" in page


def test_metrics_of_an_older_version_recommend_nothing() -> None:
    figures = measure(ExampleRun(Path()).predictions("test"))
    old = {key: value for key, value in figures.extra.items() if key != "answer_or_ask"}
    with Gallery(None) as picture:
        assert asking(Facts(name="x", metrics={"test": replace(figures, extra=old)}), picture) is None


# -- the audit -------------------------------------------------------------------------------------------


def test_the_pages_of_a_run_lead_to_each_other(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path)
    run = example.write()
    twins = [example.path("train", 0), example.path("validation", 0)]
    found = [
        {"kind": "near_duplicates", "severity": "warning", "confidence": "certain", "message": f"set {i}",
         "remedy": "Look", "paths": twins, "figure": {}}
        for i in range(9)
    ]  # fmt: skip
    run.write_audit(run.read_audit() | {"findings": found})
    records = tuple(replace(record, sha256="") for record in run.read_dataset())
    write_pages(run, Dataset(example.images, records, example.classes, example.storage()))
    page, audit = run.report.read_text("utf-8"), run.audit_page.read_text("utf-8")
    assert 'href="audit.html#near_duplicates"' in page
    assert page.count("<strong>Near-duplicates</strong>") == 1, "one group, not nine"
    assert 'href="report.html"' in audit
    assert 'id="near_duplicates"' in audit
    assert audit.count("data:image/jpeg") == 18
    assert not run.damaged()


# -- other images ----------------------------------------------------------------------------------------


def evaluated(example: ExampleRun, measured: list[str], known: dict[str, int]) -> str:
    place = example.run.evaluation("new")
    place.begin_again(("saccade", "evaluate"))
    place.write_predictions("test", example.predictions("test"))
    place.write_metrics("test", example.run.read_metrics("test"))
    about = {
        "run": "flowers & friends", "backbone": "resnet18", "weights_sha256": "ab" * 32,
        "data": "/d/new photos",
        "priors": "", "fingerprint": "12" * 32, "measured": measured, "known": known,
        "own": {"part": "test", "images": 500, "accuracy": {"value": 0.9, "low": 0.88, "high": 0.92}},
    }  # fmt: skip
    place.write_about(about)
    return text_of(written(place))


FIRST, AGAIN = "2026-11-30T18:21:00+01:00", "2026-12-01T09:00:00+01:00"


def test_an_evaluation_names_its_run_and_promises_nothing(example: ExampleRun) -> None:
    page = evaluated(example, [FIRST], {})
    assert "Model run flowers &amp; friends, resnet18, weights abababababab" in page
    assert "Data new photos" in page
    assert "Measured 30 November 2026, 18:21" in page
    assert "50 of these 60 images were named right; on average about 83 of 100 more like them" in page
    assert "more like them are (95 %: 72 to 91)." in page
    assert "The run's own test part 90.0 %" in page.replace("&#39;", "'")
    for words in ("used once", "Promise", "Not shown", "Recipe", "holds no audit.json", "Technical appendix"):
        assert words not in page
    assert "No earlier evaluation of these images is stored in this run." in page


def test_an_evaluation_that_is_repeated_says_so_and_known_images_are_named(example: ExampleRun) -> None:
    page = evaluated(example, [FIRST, AGAIN], {"test": 7})
    assert "has measured these images, or some of them, 2 times, first on 30 November 2026, 18:21" in page
    assert "7 of these images were in the training or validation part" in page


def test_what_an_evaluation_writes_down_counts_earlier_ones(example: ExampleRun) -> None:
    run, asked = example.run, SimpleNamespace(given="", in_words="")
    dataset = Dataset(example.images, run.read_dataset(), example.classes, example.storage())
    first = about_evaluation(run, asked, data=str(example.images), dataset=dataset)  # type: ignore[arg-type]
    assert len(first["measured"]) == 1
    assert first["own"]["part"] == "test"
    assert first["tested"] == len(dataset.used("test"))
    run.evaluation("one").write_about(first | {"measured": [FIRST]})
    elsewhere = [replace(record, path=f"other/{record.path}", part="") for record in dataset.used()[:3]]
    run.evaluation("one").write_dataset(elsewhere)
    run.evaluation("damaged").root.mkdir(parents=True, exist_ok=True)
    run.evaluation("damaged").about.write_text("{")
    again = about_evaluation(run, asked, data=str(example.images), dataset=dataset)  # type: ignore[arg-type]
    assert again["measured"][0] == FIRST
    assert len(again["measured"]) == 2
    json.dumps(again)
    others = dataset.with_records(replace(record, sha256="f" * 64) for record in dataset.used())
    new = about_evaluation(run, asked, data=str(example.images), dataset=others)  # type: ignore[arg-type]
    assert (len(new["measured"]), new["tested"]) == (1, 0)


def test_the_diagnosis_of_an_evaluation_is_about_its_own_figures(example: ExampleRun) -> None:
    evaluated(example, [FIRST], {})
    facts = read_facts(example.run.evaluation("new"))
    assert facts.recipe == example.recipe
    assert facts.record.diagnosis is None
    assert facts.findings
