"""The page as a reader, a browser and an attacker meet it."""

import base64
import os
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_example import HOSTILE, SECRET, ExampleRun

from saccade.errors import DataError, ImageError, RunError
from saccade.report import report_html, write_report
from saccade.report.facts import Facts
from saccade.report.render import printable
from saccade.run_folder import csv_bytes
from saccade.run_record import RunRecord


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.handled = [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(run, read_image=None):
    return Page(write_report(run, read_image=read_image).read_text("utf-8"))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    made = ExampleRun(tmp_path_factory.mktemp("example"))
    made.write()
    return made


@pytest.fixture(scope="module")
def page(example):
    return page_of(example.run, example.storage().read)


def test_the_result_stands_first_with_interval_and_number_of_images(page, example):
    figures = example.run.read_metrics("test")["accuracy"]
    value, low, high = (100 * figures[end] for end in ("value", "low", "high"))
    told = f"about {value:.0f} of 100 new images like these are named right (95 %: {low:.0f} to {high:.0f})."
    assert f"On average {told}" in page.text
    tile = f"Accuracy {value:.1f} % 95 % interval {low:.1f} \u2013 {high:.1f} %, 60 test images"
    assert tile in page.text
    assert page.text.index("On average about") < page.text.index(tile) < page.text.index("What to do next")
    assert "These images were used once" in page.text
    assert "There is no test part" not in page.text


def test_every_section_is_there_and_every_link_finds_its_place(page):
    ids = page.values("id")
    assert len(ids) == len(set(ids)), "an id stands twice"
    wanted = [
        "result", "use", "diagnosis", "figures", "asking", "reliability", "confusion", "pictures", "mistakes",
        "classes", "curves", "data", "promises", "export", "recipe", "environment",
    ]  # fmt: skip
    assert [attrs["id"] for attrs in page.all("section")] == wanted
    links = [href for href in page.values("href") if href.startswith("#")]
    assert len(links) > 12
    assert {href[1:] for href in links} <= set(ids)


def test_nothing_is_loaded_from_elsewhere_and_nothing_can_run(page):
    text = page.handled
    assert "http:" not in text
    assert "https:" not in text
    assert not page.all("script")
    assert not page.all("link")
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert all(uri.startswith("data:image/") for uri in page.values("src"))
    assert "default-src 'none'" in page.values("content")[1]


def test_a_hostile_class_name_is_only_text(page):
    assert HOSTILE in page.text
    assert all(attrs["src"] != "x" for attrs in page.all("img"))
    assert HOSTILE[:21] in page.text  # shortened, in the confusion matrix


def test_thumbnails_hold_no_metadata(page, example):
    original = example.storage().read(example.path("test", 0))
    assert SECRET in original  # else this test could not fail
    uris = page.values("src")
    assert len(uris) > 40  # photos of classes, of mistakes, and a crossing pair
    for uri in uris:
        data = base64.b64decode(uri.partition(",")[2])
        assert SECRET not in data
        assert b"Exif" not in data


def test_pictures_tables_and_figures_can_be_read_aloud(page):
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert "daisy, taken for rose" in [attrs["alt"] for attrs in page.all("img")]
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("th")) > 50
    assert page.all("html")[0]["lang"] == "en"


def test_promises_are_kept_broken_or_not_applicable_with_evidence(page):
    assert "1 No leak" in page.text
    assert "Broken 1 pairs stand in two parts" in page.text
    assert "Not applicable nothing was frozen" in page.text
    assert page.text.count("Kept evidence number") == 8
    assert "Broken Promise 1, no leak" in page.text  # beside the result too


def test_crossing_pairs_are_shown_with_their_parts(page):
    assert "Near-duplicates that stand in two parts 1 of 1 pairs" in page.text
    assert "train train/0/0000.jpg" in page.text
    assert "validation validation/0/0000.jpg" in page.text


def test_audit_recipe_environment_and_certificate_are_told(page):
    assert "truncated JPEG (row 210 of 480). Left out." in page.text
    assert "model.head mlp linear" in page.text  # differs from the default
    assert 'policy = "medium"' in page.text  # the whole recipe, folded
    assert "saccade train 'my photos' --out runs/x" in page.text
    assert "ab" * 32 in page.text
    assert "Certified model.onnx was compared with the trained model on 120 real images" in page.text
    assert "ONNX Runtime 1.32.0: passed, same predicted class for 100" in page.text
    assert "rose: 14 % instead of 15 %" in page.text


def test_the_kept_epoch_is_marked_and_told(page):
    assert "dotted: epoch 6, whose weights were kept" in page.text
    assert "In epoch 6 of 7 the loss was 0.44 in training and 0.53 in validation" in page.text


def test_the_most_confident_mistakes_come_first(page, example):
    predictions = example.predictions("test")
    wrong = [
        (-c, path)
        for c, path, label, said in zip(
            predictions.confidence, predictions.paths, predictions.labels, predictions.predicted, strict=True
        )
        if label != said
    ]
    places = [page.text.index(path) for _, path in sorted(wrong)]
    assert len(places) == 10
    assert places == sorted(places)


def test_the_same_run_gives_the_same_page(page, example):
    assert page_of(example.run, example.storage().read).handled == page.handled


def test_without_a_test_part_the_page_says_what_chose_the_model(tmp_path):
    page = page_of(ExampleRun(tmp_path, without=("test",)).write())
    assert "There is no test part. Validation figures chose the model" in page.text
    assert "60 validation images" in page.text


PIECES = (
    "recipe",
    "dataset",
    "history",
    "audit",
    "environment",
    "model",
    "certificate",
    "validation",
    "test",
)


@pytest.mark.parametrize("missing", [*PIECES, "images"])
def test_a_missing_piece_leaves_out_its_section_only(tmp_path, missing):
    example = ExampleRun(tmp_path, without=(missing,))
    page = page_of(example.write())
    sections = {attrs["id"] for attrs in page.all("section")}
    gone = {"recipe": {"recipe"}, "history": {"curves"}, "certificate": {"export"}}.get(missing, set())
    assert sections >= {"result", "confusion", "classes", "mistakes", "promises"}
    assert not sections & gone
    assert page.text.count("image not at hand") == (10 if missing not in ("test",) else 5) + 2 * (
        missing != "environment"
    )


def test_an_audit_that_is_missing_is_not_called_clean(tmp_path):
    assert "holds no audit.json" in page_of(ExampleRun(tmp_path, without=("audit",)).write()).text
    run = ExampleRun(tmp_path / "clean").write()
    run.write_audit({"findings": []})
    assert "What the audit found Nothing." in page_of(run).text
    finding = {"kind": "x", "severity": "info", "message": "m", "remedy": "r", "paths": []}
    run.write_audit({"findings": [finding] * 45})
    assert "43 more in audit.json" in page_of(run).text


def test_an_empty_folder_still_gives_a_page_that_promises_nothing(tmp_path):
    page = page_of(ExampleRun(tmp_path, without=PIECES).write())
    assert [attrs["id"] for attrs in page.all("section")] == ["promises"]
    assert page.text.count("Not shown") == 10


def test_an_image_that_cannot_be_read_is_named_and_never_fatal(tmp_path):
    def refuse(path):
        raise ImageError("no longer there", "Restore it")

    page = page_of(ExampleRun(tmp_path).write(), refuse)
    assert page.text.count("no longer there") > 40
    assert page_of(ExampleRun(tmp_path).run, lambda path: b"<html>404</html>").all("img") == []


def test_names_that_are_not_utf8_or_hold_line_ends_are_printable(tmp_path):
    example = ExampleRun(tmp_path, classes=("a\nb", "c\udcff", "d"), without=("environment", "dataset"))
    page = page_of(example.write())
    assert "a\u240ab" in page.text
    assert "c\ufffd" in page.text


def test_damaged_files_are_named(tmp_path):
    run = ExampleRun(tmp_path, without=("dataset",)).write()
    run.history.write_text("{not json\n")
    with pytest.raises(RunError, match=r"history\.jsonl is damaged"):
        write_report(run)
    run.remove(run.history)
    run.write_metrics("test", {"images": 3})
    with pytest.raises(DataError, match="not saccade metrics"):
        write_report(run)


def test_a_run_without_a_mistake_says_so(tmp_path):
    run = ExampleRun(tmp_path, without=("dataset", "validation")).write()
    rows = [["a.jpg", "daisy", "daisy", "1", "1", "0"]]
    columns = ("path", "label", "predicted", "confidence", "p_daisy", "p_rose")
    run.write(run.predictions("test"), csv_bytes(columns, rows))
    assert "None: all 1 test images were classified correctly" in page_of(run).text


def test_many_classes_are_folded_and_the_matrix_stays_readable(tmp_path):
    classes = tuple(f"class {i:03}" for i in range(120))
    page = page_of(
        ExampleRun(tmp_path, classes=classes, per_part=240, without=("dataset", "environment")).write()
    )
    assert "Shown are the 100 of 120 classes with most mistakes" in page.text
    assert "Shown are the 15 of 120 classes with most mistakes" in page.text
    assert len([attrs for attrs in page.all("table") if "matrix" in attrs.get("class", "")]) == 1
    assert "105 more classes" in page.text
    assert page.text.count("class 007") >= 1


def test_five_thousand_images_take_less_than_three_seconds(tmp_path):
    run = ExampleRun(tmp_path, per_part=5000, without=("dataset",)).write()
    start = time.process_time()
    write_report(run)
    assert time.process_time() - start < 3


def test_the_report_needs_no_torch(example):
    code = (
        "import sys; from pathlib import Path\n"
        "from saccade.report import write_report; from saccade.run_folder import RunFolder\n"
        "write_report(RunFolder(Path(sys.argv[1])))\n"
        "assert not {'torch', 'torchvision', 'timm', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(example.run.root)], check=True)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="<>&\"'/=!-;#ab \n\x00\u202e\udcff", max_size=30) | st.text(max_size=30))
def test_any_text_comes_out_as_it_went_in(text):
    record = RunRecord(promises={"1": {"kept": True, "evidence": text}})
    shown = Page(report_html(Facts(name="x", record=record)))
    assert " ".join(printable(text).split()) in shown.text


def test_a_cache_folder_that_cannot_be_written_to_is_no_news(tmp_path):
    (tmp_path / "file").write_text("where folders should be made")
    nowhere = {"XDG_CACHE_HOME": str(tmp_path / "file"), "XDG_CONFIG_HOME": str(tmp_path / "file")}
    code = "from saccade.report.figures import reliability_diagram as draw; print(draw([])[:4])"
    env = {name: value for name, value in os.environ.items() if name != "MPLCONFIGDIR"} | nowhere
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("<svg\n", "")
