"""The model card and the bill of materials: complete, valid, and safe against names of any kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_example import HOSTILE, ExampleRun

from saccade.pipeline.judge import write_pages
from saccade.recipe import Recipe
from saccade.records import Dataset, EpochRow
from saccade.report.annex_iv import HEADINGS
from saccade.report.bom import bill_of_materials
from saccade.report.cover import cover
from saccade.report.documents import write_documents
from saccade.report.facts import Facts, read_facts
from saccade.report.gallery import Gallery
from saccade.report.markdown import plain
from saccade.report.model_card import model_card
from saccade.run_folder import json_bytes

NAMES = (
    HOSTILE,
    "a|b\n# not a heading",
    "`code` *star* [link](http://x)",
    '"quoted": {yaml} \\ & <!-- c -->',
    "- ---",
    "\u2028\u202e\x1b\udcff \U0001f338",
)
WEIGHTS = {"source": "timm/resnet18.a1_in1k", "licence": "apache-2.0", "sha256": "cd" * 32}
BEGAN = "2026-11-30T18:21:00+01:00"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ExampleRun:
    made = ExampleRun(tmp_path_factory.mktemp("documents"))
    run = made.write()
    values = run.read_environment()
    values["resolved"] |= {"model.weights_source": WEIGHTS["source"], "model.pretrained": True}
    versions = {"saccade": "0.1.0", "python": "3.11.7", "torch": "2.15.0+cu132"}
    run.write_environment({**values, "began": BEGAN, "versions": versions, "seconds": 75.0})
    model = {
        **run.read_model(),
        "data_fingerprint": "cd" * 32,
        "training": {"weights": WEIGHTS, "notes": [f"weights: {made.images}/w.safetensors"]},
    }
    run.write(run.model_json, json_bytes(model))
    run.write_certificate({**run.read_certificate(), "sha256": "ef" * 32})
    return made


@pytest.fixture(scope="module")
def facts(example: ExampleRun) -> Facts:
    return read_facts(example.run)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    made = ExampleRun(tmp_path_factory.mktemp("hostile"), classes=NAMES, per_part=28)
    made.write()
    return replace(read_facts(made.run), name=NAMES[1])


def front_matter(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    _, block, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(block))


# -- the model card --------------------------------------------------------------------------------------


def test_the_front_matter_is_what_the_hub_reads(facts: Facts) -> None:
    found = front_matter(model_card(facts))
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "timm/resnet18.a1_in1k"
    assert (found["pipeline_tag"], found["library_name"]) == ("image-classification", "onnx")
    (entry,) = found["model-index"]
    (result,) = entry["results"]
    assert (result["task"]["type"], result["dataset"]["split"]) == ("image-classification", "test")
    assert facts.figures is not None
    accuracy = result["metrics"][0]
    assert accuracy["type"] == "accuracy"
    assert accuracy["value"] == pytest.approx(facts.figures.accuracy.value, abs=1e-6)
    assert "95 % interval" in accuracy["name"]
    assert all(isinstance(metric["value"], float) for metric in result["metrics"])


@pytest.mark.parametrize("which", ["facts", "hostile"])
def test_the_hubs_own_reader_takes_the_card(which: str, request: pytest.FixtureRequest) -> None:
    hub = pytest.importorskip("huggingface_hub")
    facts = request.getfixturevalue(which)
    card = hub.ModelCard(model_card(facts))
    assert len(card.data.eval_results) > 8
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert card.data.eval_results[0].dataset_name == "photos"


@pytest.mark.parametrize(
    ("licence", "wanted"),
    [
        ("bsd-3-clause", {"license": "bsd-3-clause"}),
        ("unknown", {"license": "unknown"}),
        ("FAIR Noncommercial", {"license": "other", "license_name": "fair-noncommercial"}),
        ("", {}),
    ],
)
def test_a_licence_is_named_as_the_hub_names_it(facts: Facts, licence: str, wanted: dict[str, str]) -> None:
    model = {
        **facts.model,
        "training": {"weights": {"source": "/home/me/own.safetensors", "licence": licence}},
    }
    card = model_card(replace(facts, model=model))
    found = front_matter(card)
    assert {key: found[key] for key in ("license", "license_name") if key in found} == wanted
    assert "base_model" not in found
    assert "own.safetensors" in card
    assert "/home/me" not in card


def test_the_card_says_what_the_run_knows_and_marks_the_rest(facts: Facts, example: ExampleRun) -> None:
    card = model_card(facts)
    for title in ("Intended use", "Data", "Training", "Figures", "Calibration", "Limits found", "How to use"):
        assert f"\n## {title}\n" in card
    assert card.count("To be written by you") == 3
    assert "| daisy | 15 | 15 | 15 |" in card
    assert "Broken: No leak" in card
    assert "test images, used once" in card
    assert facts.figures is not None
    rose = next(row for row in facts.figures.per_class if row.label == "rose")
    assert re.search(rf"\| rose \| {rose.precision:.3f} \([\d.]+ to [\d.]+\) \|", card)
    assert str(example.images.parent) not in card, "the folder's name, not where it lies"


def test_no_name_becomes_markup(hostile: Facts) -> None:
    card = model_card(hostile, with_annex_iv=True)
    card.encode()
    _, _, body = card.split("---\n", 2)
    assert "<img" not in body
    assert "<!--" not in body
    assert not re.search(r"^# not a heading", body, re.MULTILINE)
    assert not re.search(r"(?<!\\)\[link\]", body)
    for block in tables(body):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1, block
    assert "\\\\u202e" in body.replace("\\_", "_")


def tables(text: str) -> Iterator[list[str]]:
    for block in re.split(r"\n\n", text):
        lines = block.strip("\n").splitlines()
        if lines and lines[0].startswith("|"):
            yield lines


def test_a_text_with_marks_is_shown_as_it_is() -> None:
    assert plain("1. first") == "1\\. first"
    assert plain("1.5 and -2") == "1.5 and -2"


def test_the_headings_of_annex_iv_come_on_request_and_claim_nothing(facts: Facts) -> None:
    card = model_card(facts, with_annex_iv=True)
    assert "Annex IV" not in model_card(facts)
    assert len(HEADINGS) == 10
    for heading in HEADINGS:
        assert f"### {heading.title}\n" in card
    assert card.count("To be written by you") == 3 + len(HEADINGS)
    assert "chosen by the calibrated loss of validation images" in card
    assert "compliant" not in card.lower()
    assert "timm/resnet18.a1\\_in1k" in card


def test_an_empty_run_has_a_card_too() -> None:
    facts = Facts(name="x", recipe=Recipe())
    assert "To be written by you" in model_card(facts, with_annex_iv=True)
    check_bom(bill_of_materials(facts))


@pytest.mark.parametrize(
    ("entry", "measured_by", "words"),
    [
        ({"state": "kept"}, ["ab"], "60 test images, used once, after every choice was made;"),
        ({"state": "kept"}, ["ab"] * 3, "60 test images, used after every choice was made;"),
        ({"state": "broken"}, ["ab"], "60 test images;"),
        ({"state": "not checked"}, [], "60 test images;"),
    ],
)
def test_test_images_were_used_once_only_where_that_was_measured(
    facts: Facts, entry: dict[str, str], measured_by: list[str], words: str
) -> None:
    block = {**facts.record.promises, "7": {**entry, "evidence": ""}}
    record = replace(facts.record, promises=block, evidence={"7": {"measured_by": measured_by}})
    other = replace(facts, record=record)
    assert f"On {words}" in model_card(other)
    used = words.rstrip(";").partition(", ")[2]
    with Gallery(None) as picture:
        told = cover(other, picture)
    assert told is not None
    assert told["origin"] == (f"These images were {used}." if used else "")


def test_fine_is_no_limit_but_leaks_are(facts: Facts) -> None:
    fine = {"kind": "fine", "severity": "info", "message": "Fine: all is well.", "remedy": "But. More."}
    found = replace(facts, record=replace(facts.record, diagnosis=[fine]))
    limits = model_card(found).partition("## Limits found")[2].partition("\n## ")[0]
    said = bill_of_materials(found)["components"][0]["modelCard"]["considerations"]["technicalLimitations"]
    leak = "1 near-duplicates or groups stand in two parts and flatter the figures"
    assert f"- {leak}" in limits
    assert said[0].startswith(leak)
    assert "Fine" not in limits + "".join(said)


def test_a_head_fitted_at_once_that_was_not_exported_has_no_epochs_and_no_file(facts: Facts) -> None:
    rows = (EpochRow("head", 1, 0.0, 0.1, 1.0, 0.3, 0.9, 1.0),)
    model = {**facts.model, "training": {"stopped": "all epochs done"}}
    card = model_card(replace(facts, history=rows, model=model, certificate={}), with_annex_iv=True)
    for words in ("all epochs done", "The checkpoint was chosen", "One file"):
        assert words not in card
    assert "no file was exported yet" in card
    assert "reported 1 kind of findings" in card


# -- the bill of materials -------------------------------------------------------------------------------


def check_bom(bom: dict[str, Any]) -> None:
    """What the schema requires, as far as it fits on a page."""
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bom["serialNumber"])
    refs = [part["bom-ref"] for part in bom["components"]]
    assert len(refs) == len(set(refs))
    assert {entry["ref"] for entry in bom["dependencies"]} == set(refs)
    for part in bom["components"]:
        assert {"type", "name"} <= part.keys()
        assert part["type"] in ("machine-learning-model", "data", "library", "platform")
        for entry in part.get("hashes", ()):
            assert re.fullmatch(r"[0-9a-f]{64}", entry["content"])


def test_the_bill_names_model_weights_data_libraries_and_figures(facts: Facts) -> None:
    bom = bill_of_materials(facts)
    check_bom(bom)
    assert bom["metadata"]["timestamp"] == BEGAN
    parts = {part["bom-ref"]: part for part in bom["components"]}
    model = parts["model"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ef" * 32}]
    assert parts["pretrained-weights"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert parts["pretrained-weights"]["hashes"][0]["content"] == WEIGHTS["sha256"]
    assert parts["dataset"]["type"] == "data"
    assert {"name": "saccade:data_fingerprint", "value": "cd" * 32} in parts["dataset"]["properties"]
    assert parts["library:torch"]["purl"] == "pkg:pypi/torch@2.15.0%2Bcu132"
    figures = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert facts.figures is not None
    accuracy = facts.figures.accuracy
    assert figures[0]["value"] == str(accuracy.value)
    assert figures[0]["confidenceInterval"] == {
        "lowerBound": str(accuracy.low),
        "upperBound": str(accuracy.high),
    }
    assert sum("class rose" in figure["slice"] for figure in figures) == 3


@pytest.mark.parametrize(
    ("source", "given", "name", "version"),
    [
        ("lite0-weights 1.2", "", "lite0-weights", "1.2"),
        ("/home/u/best model.safetensors", "", "best model.safetensors", None),
        ("best model.safetensors", "best model.safetensors", "best model.safetensors", None),
        ("the function acme:build", "", "the function acme:build", None),
    ],
)
def test_only_a_package_of_weights_has_a_version(
    facts: Facts, source: str, given: str, name: str, version: str | None
) -> None:
    record = replace(facts.record, resolved={**facts.record.resolved, "model.weights": given})
    model = {**facts.model, "training": {"weights": {"source": source}}}
    bom = bill_of_materials(replace(facts, record=record, model=model))
    (weights,) = (part for part in bom["components"] if part["bom-ref"] == "pretrained-weights")
    assert (weights["name"], weights.get("version")) == (name, version)


@pytest.mark.parametrize("which", ["facts", "hostile"])
def test_the_bill_is_valid_against_the_published_schema(which: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("jsonschema", reason="needs cyclonedx-python-lib[json-validation]")
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    text = json.dumps(bill_of_materials(request.getfixturevalue(which)))
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text) is None


# -- both ------------------------------------------------------------------------------------------------


def test_the_same_run_gives_the_same_bytes(example: ExampleRun) -> None:
    run = example.run
    written = []
    for _ in range(2):
        write_documents(run)
        written.append([path.read_bytes() for path in (run.model_card, run.bill_of_materials)])
    assert written[0] == written[1]


def test_both_are_written_with_the_pages_and_belong_to_the_manifest(tmp_path: Path) -> None:
    example = ExampleRun(tmp_path, per_part=8)
    run = example.write()
    records = tuple(replace(record, sha256="") for record in run.read_dataset())
    write_pages(run, Dataset(example.images, records, example.classes, example.storage()))
    assert run.knows(run.model_card)
    assert run.knows(run.bill_of_materials)
    assert "Annex IV" not in run.model_card.read_text("utf-8")
    write_pages(run, None, with_annex_iv=True)
    assert "Annex IV" in run.model_card.read_text("utf-8")
    assert not run.damaged()
