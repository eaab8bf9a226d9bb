"""When an int8 file is certified: as accurate as can be shown, and close; and how many images that takes."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from saccade.evaluation.intervals import paired_change
from saccade.export.runtimes import instruction_set
from saccade.export.verdict import Compared, judge, lacks_images
from saccade.pipeline.result import certificate_line
from saccade.pipeline.ship import certificate_as_json
from saccade.records import Certificate, Predictions

CLASSES = ("a", "b", "c")
RIGHT, WRONG, OTHER = (0.7, 0.2, 0.1), (0.45, 0.5, 0.05), (0.45, 0.05, 0.5)  # every image is an "a"


def compared(
    images: int, *, lost: int = 0, gained: int = 0, moved: int = 0, wrong: int = 0, part: str = "validation"
) -> Compared:
    """`lost` became wrong, `gained` right, `moved` wrong ones changed, `wrong` more stayed as they were."""
    same = images - lost - gained - moved - wrong
    before = [RIGHT] * (lost + same) + [WRONG] * (gained + moved + wrong)
    after = [WRONG] * lost + [RIGHT] * (same + gained) + [OTHER] * moved + [WRONG] * wrong
    paths = tuple(f"{part}/{i}.jpg" for i in range(images))
    predictions = Predictions(paths, ("a",) * images, CLASSES, np.array(before))
    return Compared(part, predictions, np.arange(images), np.array(after))


def verdict(*parts: Compared, max_drop: float = 0.01) -> Certificate:
    return judge(parts, kind="int8", tolerance=1e-3, max_drop=max_drop, sha256="")


@pytest.mark.parametrize(
    ("images", "counts", "passed"),
    [
        (23, {}, False),  # the case of the issue: nothing can be said of 23 images, not even of perfect ones
        (72, {}, False),
        (73, {}, True),
        (100, {"lost": 1, "gained": 1}, True),
        (100, {"lost": 1}, False),
        (150, {"lost": 1, "wrong": 20}, True),
        (150, {"lost": 3, "gained": 3, "wrong": 20}, True),
        (150, {"lost": 4, "gained": 3, "wrong": 20}, True),
        (150, {"lost": 2, "wrong": 20}, False),  # falls by 1.3 points
        (150, {"gained": 3}, True),
        (250, {"lost": 2}, True),
        (250, {"lost": 3}, False),
        (250, {"lost": 6, "gained": 4, "wrong": 20}, True),
        (250, {"lost": 12, "gained": 12}, True),
        (250, {"lost": 13, "gained": 13}, False),  # agrees on 89.6 %
        (250, {"moved": 20, "wrong": 5}, True),
        (250, {"moved": 30}, False),  # no accuracy lost, yet 12 % other answers
        (1000, {"lost": 10}, True),
        (1000, {"lost": 11}, False),
        (1000, {"lost": 60, "gained": 55}, False),
    ],
)
def test_who_is_certified(images: int, counts: dict[str, int], passed: bool) -> None:
    certificate = verdict(compared(images, **counts))
    assert certificate.passed is passed, certificate.extra["problems"]
    assert bool(certificate.extra["problems"]) is not passed


def test_too_few_images_are_refused_with_the_number_that_is_needed() -> None:
    certificate = verdict(compared(23))
    assert certificate.extra["problems"] == [
        "too few images to certify: 23 labelled validation images, 0 of them wrong now, leave a fall of up "
        "to 14.3% possible (95 %), allowed 5.0%; with answers like these 73 images are needed"
    ]
    line = certificate_line(certificate_as_json(certificate), Path("absent.onnx"))
    assert "FAILED its certificate" in line
    assert "Too few images to certify: 23" in line
    assert "larger validation part (--split.validation)" in line
    told = [
        *certificate.extra["problems"],
        f"in OpenVINO: {certificate.extra['problems'][0]}",
        "accuracy falls",
    ]
    assert list(map(lacks_images, told)) == [True, True, False]


def test_a_small_difference_of_an_fp16_file_keeps_two_digits() -> None:
    values = {**certificate_as_json(verdict(compared(150))), "max_probability_difference": 0.00312}
    assert "largest probability difference 0.0031" in certificate_line(values, Path("absent.onnx"))


@pytest.mark.parametrize(("images", "counts"), [(23, {}), (40, {"lost": 1, "gained": 1}), (100, {"lost": 1})])
def test_so_many_images_are_enough(images: int, counts: dict[str, int]) -> None:
    """With the same shares, the number that the refusal names passes, and a tenth fewer does not."""
    problem = verdict(compared(images, **counts)).extra["problems"][0]
    needed = int(problem.split("with answers like these ")[1].split()[0])
    shares = [counts.get(name, 0) / images for name in ("lost", "gained")]
    bounds = [-paired_change(*(share * n for share in shares), n).low for n in (needed, needed * 0.9)]
    assert bounds[0] <= 0.05 < bounds[1]


def test_a_measured_fall_is_no_question_of_images() -> None:
    certificate = verdict(compared(23, lost=2))
    assert certificate.extra["problems"][0] == "validation accuracy falls by 8.70%, allowed 1.00%"
    assert certificate.accuracy_change == pytest.approx(-2 / 23)


def test_a_probability_far_off_fails_wherever_it_is() -> None:
    """In the issue one was off by 0.57. Test images count for closeness, validation for accuracy."""
    far = compared(10, part="test")
    far.answers[3] = (0.1, 0.8, 0.1)
    certificate = verdict(compared(250), far)
    assert certificate.extra["problems"] == ["a probability differs by 0.60 (test/3.jpg), allowed 0.5"]
    far.answers[3] = (0.2, 0.7, 0.1)
    assert verdict(compared(250), far).passed


def test_answers_that_are_no_numbers_fail() -> None:
    broken = compared(250)
    broken.answers[7] = np.nan
    assert "a probability differs by 1.00" in verdict(broken).extra["problems"][0]


@pytest.mark.parametrize(("images", "lost"), [(12, 5), (13, 5), (30, 14)])
def test_where_every_answer_changed_it_fails_in_words(images: int, lost: int) -> None:
    """Such as two classes that were swapped: rounding made them more than all."""
    certificate = verdict(compared(images, lost=lost, gained=images - lost))
    assert not certificate.passed
    assert "too few images" in certificate.extra["problems"][0]


def test_a_larger_max_drop_needs_fewer_images() -> None:
    assert verdict(compared(17), max_drop=0.15).passed
    assert not verdict(compared(16), max_drop=0.15).passed
    assert verdict(compared(150, lost=10), max_drop=0.08).passed


def test_images_without_a_label_do_not_count() -> None:
    given = compared(100)
    labels = tuple("a" if i < 60 else "" for i in range(100))
    predictions = Predictions(given.predictions.paths, labels, CLASSES, given.predictions.probabilities)
    certificate = verdict(Compared("validation", predictions, given.rows, given.answers))
    assert certificate.extra["validation_images"] == 60
    assert certificate.extra["problems"][0].startswith("too few images to certify: 60")


def test_figures_come_with_intervals() -> None:
    extra = verdict(compared(250, lost=2, gained=1)).extra
    change, agreement = extra["accuracy_change_interval"], extra["top1_agreement_interval"]
    assert change["low"] < -1 / 250 < change["high"]
    assert agreement["low"] < 247 / 250 < agreement["high"] < 1
    assert (extra["lost"], extra["gained"], extra["validation_images"]) == (2, 1, 250)


def test_intervals_hold_what_they_promise() -> None:
    """Of 2,000 draws the 95 % interval misses the true change in 5 % at most; few images and rare changes."""
    random = np.random.default_rng(0)
    for images, lost, gained in ((50, 0.02, 0.02), (150, 0.03, 0.02), (400, 0.02, 0.0), (150, 0.1, 0.05)):
        draws = random.multinomial(images, (lost, gained, 1 - lost - gained), size=2000)
        missed = 0
        for became_wrong, became_right, _ in draws:
            found = paired_change(int(became_wrong), int(became_right), images)
            missed += not found.low - 1e-12 <= gained - lost <= found.high + 1e-12
        assert missed / len(draws) <= 0.06, (images, lost, gained)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t: fpu avx avx2 fma", "AVX2"),
        ("flags\t: avx2 avx512bw avx512_vnni amx_int8", "AMX, AVX-512 VNNI, AVX-512, AVX2"),
        ("flags\t: avx2 avx_vnni", "AVX VNNI, AVX2"),
        ("Features\t: fp asimd asimddp i8mm", "I8MM, dot product"),
    ],
)
def test_the_certificate_names_the_instruction_set(tmp_path: Path, flags: str, expected: str) -> None:
    place = tmp_path / "cpuinfo"
    place.write_text(f"processor\t: 0\n{flags}\n")
    assert instruction_set(place) == f"{platform.machine()} {expected}"
    assert instruction_set(tmp_path / "absent") == platform.machine()


def test_a_class_that_falls_for_certain_fails_though_the_whole_does_not() -> None:
    """60 of 1000 images are of class "b": ten of them lost, ten of class "a" gained."""
    one = compared(940, gained=10, wrong=60)
    other = compared(60, lost=10)
    labels = ("a",) * 940 + ("b",) * 60
    swap = [1, 0, 2]
    predictions = Predictions(
        tuple(f"{i}.jpg" for i in range(1000)),
        labels,
        CLASSES,
        np.concatenate([one.predictions.probabilities, other.predictions.probabilities[:, swap]]),
    )
    answers = np.concatenate([one.answers, other.answers[:, swap]])
    certificate = verdict(Compared("validation", predictions, np.arange(1000), answers))
    assert certificate.accuracy_change == 0
    (problem,) = certificate.extra["problems"]
    assert problem.startswith("accuracy of the class b falls by 16.7% (95 %: at least ")
    told = certificate.extra["class_accuracy_changes"]["b"]
    assert (told["images"], told["before"], told["after"]) == (60, 1.0, pytest.approx(50 / 60))
    assert told["low"] < -10 / 60 < told["high"] < -0.01
    few = compared(10, lost=1)
    assert not [p for p in verdict(few).extra["problems"] if "of the class" in p], "one image may be chance"


def test_fp16_that_repeats_the_model_needs_no_proof_and_else_is_judged_like_int8() -> None:
    def fp16(part: Compared) -> Certificate:
        return judge([part], kind="fp16", tolerance=1e-3, max_drop=0.01, sha256="")

    assert fp16(compared(5)).passed
    moved = compared(5)
    moved.answers[:] += np.array([0.009, -0.009, 0])
    assert fp16(moved).passed
    moved.answers[:] += np.array([0.009, -0.009, 0])
    assert "too few images" in fp16(moved).extra["problems"][0]
    assert fp16(compared(250, lost=2)).passed
    assert not fp16(compared(250, lost=3)).passed
