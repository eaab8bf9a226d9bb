"""Mistakes looked at closely, where the network looked, and the map, as they stand in the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_example import HOSTILE

from saccade.evaluation.calibration import softmax
from saccade.evaluation.metrics import measure
from saccade.images.thumbnails import Heat, heated
from saccade.records import Predictions
from saccade.report import report_html
from saccade.report.closer import CLASSES_NAMED, _colour, _outline
from saccade.report.facts import Facts

SANITY = {"rank_correlation": 0.05, "maps": 16, "limit": 0.3, "passed": True}


def answered(images: int, classes: int) -> Predictions:
    random = np.random.default_rng(0)
    names = (HOSTILE, *(f"class {i:03d}" for i in range(1, classes)))
    truth = np.arange(images) % classes
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), truth] += 3
    labels = tuple(names[i] for i in truth)
    return Predictions(tuple(f"{i}.jpg" for i in range(images)), labels, names, softmax(logits, 1.0))


def insights(answers: Predictions, points: int) -> dict[str, Any]:
    """As the analyses of a full report write them."""
    random = np.random.default_rng(1)
    mistakes_in_all, predicted = answers.wrong, answers.predicted
    wrong, confidence = mistakes_in_all[:40], answers.confidence
    right = sorted(set(range(len(answers))) - set(mistakes_in_all))[:8]

    def told(i: int) -> dict[str, Any]:
        return {
            "path": answers.paths[i], "label": answers.labels[i], "predicted": predicted[i],
            "confidence": float(confidence[i]),
        }  # fmt: skip

    def near(k: int) -> dict[str, Any]:
        return {"path": f"train/{k}.jpg", "label": answers.classes[k % 2], "similarity": 0.9}

    mistakes = [
        {**told(i), "nearest": [near(3 * n + k) for k in range(3)], "twin": False, "said": f"Sentence {n}."}
        for n, i in enumerate(wrong)
    ]
    maps = [
        {**told(i), "seen": [0.1, 0.0, 0.9, 1.0], "rows": random.random((7, 7)).round(3).tolist()}
        for i in (*wrong, *right)
    ]
    all_points = [
        {"path": f"train/{k}.jpg", "part": "train", "label": answers.labels[k % len(answers)],
         "x": float(random.random()), "y": float(random.random())}
        for k in range(points)
    ]  # fmt: skip
    for place, i in enumerate((*mistakes_in_all, *right)[: points // 2]):
        all_points[place] |= {**told(i), "part": "test"}
    return {
        "neighbours": {"mistakes": mistakes, "mistakes_in_all": len(mistakes_in_all),
                       "features": "pretrained"},
        "saliency": {"layer": "bn2", "grid": [7, 7], "maps": maps, "sanity": SANITY},
        "map": {"points": all_points, "images": 5000, "neighbours": 10, "neighbours_kept": 0.41,
                "features": "pretrained"},
    }  # fmt: skip


def facts_of(answers: Predictions, points: int = 200, **changed: Any) -> Facts:
    found = {**insights(answers, points), **changed}
    return Facts("run", metrics={"test": measure(answers)}, predictions=answers, insights=found)


@pytest.fixture(scope="module")
def photo() -> Callable[[str], bytes]:
    """About as hard to compress as a photo: coarse colours and some grain."""
    random = np.random.default_rng(2)
    kept = []
    for _ in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC), np.float32)
        grain = random.normal(0, 9, pixels.shape)
        buffer = io.BytesIO()
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        kept.append(buffer.getvalue())
    return lambda path: kept[sum(map(ord, path)) % len(kept)]


@pytest.fixture(scope="module")
def page(photo: Callable[[str], bytes]) -> str:
    return report_html(facts_of(answered(300, 5)), photo)


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def section(html: str, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}".*?</section>', html, flags=re.S)
    return found


def test_mistakes_are_shown_once(page: str) -> None:
    assert 'id="mistakes"' not in page
    assert 'id="mistakes"' in report_html(facts_of(answered(60, 3), neighbours={}))


def test_each_mistake_stands_beside_its_nearest_images_and_its_map(page: str) -> None:
    closer = section(page, "closer")
    rows = re.findall(r'id="closer-(\d+)"', closer)
    assert rows == [str(i) for i in range(len(rows))]
    assert len(rows) > 12, "some are folded"
    assert "more</summary>" in closer
    assert closer.count("a training image, ") == 3 * len(rows)
    assert closer.count('alt="where the network looked, bright"') == len(rows) + 8
    assert "Sentence 0." in closer
    assert "mean rank correlation 0.05 in 16 comparisons" in words(closer)
    assert "pretrained backbone" in closer


def test_maps_that_do_not_depend_on_weights_are_not_to_be_read() -> None:
    answers = answered(300, 5)
    maps = {
        **insights(answers, 50)["saliency"],
        "sanity": {**SANITY, "rank_correlation": 0.6, "passed": False},
    }
    told = words(report_html(facts_of(answers, saliency=maps)))
    assert "Do not rely on these maps" in told
    assert "they are others" not in told
    none = words(report_html(facts_of(answers, saliency={"left_out": "the model is several networks"})))
    assert "no maps of where the network looked: the model is several networks." in none


def test_the_map_has_a_title_for_each_point_and_rings_lead_to_rows(page: str) -> None:
    drawn = section(page, "map")
    titles = re.findall(r"<title>(.*?)</title>", drawn)
    rings = len(re.findall(r'<circle class="ring" cx="\d+\.\d" cy', drawn))
    pinned = drawn.count("<image ")
    assert len(titles) == 200 + rings + pinned
    assert rings > 10
    assert pinned > 30
    links = re.findall(r'<a href="#(closer-\d+)" aria-label="[^"]+"', drawn)
    assert 10 < len(links) <= rings
    assert all(f'id="{link}"' in page for link in links)
    assert "41 % are among its 10 nearest here" in words(drawn)
    assert "shown are 200 of 5" in words(drawn)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert len(re.findall(r"<li><svg", drawn)) == 5 + 1, "a key for each class and for mistakes"


def test_classes_have_colour_and_shape_of_their_own() -> None:
    looks = {(_colour(kind), _outline(kind, 0.0, 0.0, 5.0)) for kind in range(CLASSES_NAMED)}
    assert len(looks) == CLASSES_NAMED


def test_heat_lies_over_what_was_seen_only() -> None:
    grey = Image.new("RGB", (80, 40), (128, 128, 128))
    hot = np.asarray(heated(grey, Heat(((1.0, 0.0),), (0.25, 0.0, 0.75, 1.0))), int)
    assert hot[:, :20].max() == hot[:, 60:].max() == 45, "darkened"
    assert hot[20, 24].sum() > hot[20, 55].sum() + 150
    padded = np.asarray(heated(grey, Heat(((0.0,), (1.0,), (0.0,)), (0.0, -0.5, 1.0, 1.5))), int)
    assert padded[20, 40].sum() > 450 > padded[0, 40].sum()


def test_ten_thousand_test_images_make_less_than_ten_megabytes(photo: Callable[[str], bytes]) -> None:
    page = report_html(facts_of(answered(10_000, 200), points=2000), photo)
    assert page.count("data:image/") > 300
    assert len(page.encode("utf-8", "surrogateescape")) < 10e6
