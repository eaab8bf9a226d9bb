"""Answer or ask: what thresholds let through, and the one for a wanted precision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.deciding import NEVER
from saccade.evaluation.answers import answers
from saccade.evaluation.asking import THRESHOLDS, answer_or_ask, recommend
from saccade.evaluation.intervals import wilson
from saccade.evaluation.metrics import measure, metrics_as_json
from saccade.records import Predictions
from saccade.testing.metrics import example_predictions


def made(*rows):
    """(confidence, whether it is right) rows as predictions of two classes."""
    values = np.array([[confidence, 1 - confidence] for confidence, _ in rows])
    labels = tuple("cat" if right else "dog" for _, right in rows)
    return Predictions(tuple(f"{i:04d}" for i in range(len(rows))), labels, ("cat", "dog"), values)


def honest(images, seed):
    """Predictions that are right as often as they say, four of five in all."""
    generator = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * generator.beta(2, 1.3, size=images)
    return made(*zip(confidence, generator.random(images) < confidence, strict=True))


def naive_threshold(confidence, correct, precision):
    """The lowest threshold that is sure, else the lowest that reaches it: (images answered, sure)."""
    for sure in (True, False):
        for threshold in sorted(set(confidence)):
            answered = confidence >= threshold
            found = wilson(int(correct[answered].sum()), int(answered.sum()))
            if (found.low if sure else found.value) >= precision:
                return int(answered.sum()), sure
    return 0, False


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_threshold_is_that_of_a_search_through_all(images, seed, precision):
    data = answers(example_predictions(images, 3, seed=seed))
    found = recommend(data, precision, part="validation")
    count, sure = naive_threshold(data.confidence, data.correct, precision)
    threshold = 2.0 if found.threshold is None else found.threshold
    assert ((data.confidence >= threshold).sum(), found.sure) == (count, sure)
    assert (found.threshold is None) == (count == 0)


def test_a_few_right_answers_are_no_proof_and_that_is_said():
    few, many = (answers(made(*[(0.9, True)] * count)) for count in (20, 100))
    unsure, sure = (recommend(data, 0.95, part="validation") for data in (few, many))
    assert (unsure.threshold, unsure.sure) == (0.0, False)
    assert unsure.note == (
        "20 of the 20 validation images that it answers are right; their 95 % interval begins at 83.9 %, so "
        "more of these images are needed to be sure"
    )
    assert (sure.threshold, sure.sure) == (0.0, True)
    assert sure.note.endswith("begins at 96.3 %")


def test_images_that_belong_together_are_less_proof():
    made_up = made(*[(0.9, True)] * 100)
    groups = {path: f"patient {i // 10}" for i, path in enumerate(made_up.paths)}
    assert not recommend(answers(made_up, groups), 0.95, part="validation").sure


def test_where_sure_answers_are_wrong_there_is_no_threshold():
    data = answers(made((0.99, False), *[(0.9, True), (0.8, False)] * 6))
    found = recommend(data, 0.9, part="validation")
    assert (found.threshold, found.sure) == (None, False)
    assert found.note == (
        "no threshold reaches 90 % on the 13 validation images, so it leaves all images to a person"
    )
    assert found.as_json()["threshold"] == NEVER
    told = answer_or_ask(data, found)["recommended"]
    assert (told["reached"], told["threshold"], told["answered"], told["share_right"]) == (
        False,
        None,
        0,
        None,
    )


def test_too_few_images_to_choose_by_leave_nothing_to_a_person():
    data = answers(made((0.99, False), (0.9, True), (0.8, False)))
    found = recommend(data, 0.9, part="validation")
    assert found.note.endswith("on the 3 validation images, which are too few to choose one")
    assert found.as_json()["threshold"] is None
    told = answer_or_ask(data, found)["recommended"]
    assert (told["reached"], told["answered"]) == (False, 3)


def test_rows_say_how_many_are_answered_and_which_share_of_them_is_right():
    data = answers(made((0.95, True), (0.92, False), (0.7, True), (0.55, True)))
    rows = answer_or_ask(data)["rows"]
    assert [row["threshold"] for row in rows] == [*THRESHOLDS]
    assert [(row["answered"], row["right"]) for row in rows] == [(4, 3), (3, 2), (2, 1), (1, 1)]
    assert rows[2]["share_answered"] == 0.5
    found = wilson(1, 2)
    assert (rows[2]["share_right"], rows[2]["low"], rows[2]["high"]) == (found.value, found.low, found.high)


def test_a_sure_threshold_keeps_its_word_on_new_images():
    kept = []
    for seed in range(40):
        chosen = recommend(answers(honest(400, seed)), 0.9, part="validation")
        new = answer_or_ask(answers(honest(4000, 1000 + seed)), chosen)["recommended"]
        if chosen.sure:
            kept.append(new["share_right"] >= 0.9)
    assert len(kept) > 20
    assert np.mean(kept) >= 0.9


def test_a_class_whose_answers_surely_miss_the_precision_has_its_own_threshold():
    """Of 200 cats all are right; of 100 dogs those above 0.9, and half of the others."""
    cats = [(0.99 - i / 1000, "cat", "cat") for i in range(200)]
    dogs = [(0.95 - i / 400, "dog", "dog" if i < 20 or i % 2 else "cat") for i in range(100)]
    values = np.array([[c, 1 - c] if name == "cat" else [1 - c, c] for c, name, _ in (*cats, *dogs)])
    truth = tuple(label for _, _, label in (*cats, *dogs))
    data = answers(Predictions(tuple(f"{i:03d}" for i in range(300)), truth, ("cat", "dog"), values))
    found = recommend(data, 0.8, part="validation")
    assert found.threshold == 0.0
    assert found.by_class.keys() == {"dog"}
    taken = (data.predicted == 1) & (data.confidence >= found.by_class["dog"])
    assert data.correct[taken].mean() >= 0.8
    assert taken.sum() > 20
    told = answer_or_ask(data, found)["recommended"]
    assert told["answered"] == 200 + taken.sum()
    assert told["note"].endswith(f"dog from {found.by_class['dog']:.3g} on")
    assert recommend(data, 0.5, part="validation").by_class == {}


def test_a_class_that_is_never_right_is_left_to_a_person():
    values = np.array([[0.6, 0.4]] * 40 + [[0.01, 0.99]] * 800)
    paths = tuple(f"{i:03d}" for i in range(840))
    data = answers(Predictions(paths, ("dog",) * 840, ("cat", "dog"), values))
    assert recommend(data, 0.9, part="validation").by_class == {"cat": NEVER}


def test_the_figures_of_a_part_hold_it():
    chosen = recommend(answers(example_predictions(300, 3, seed=0)), 0.8, part="validation")
    values = metrics_as_json(measure(example_predictions(200, 3, seed=1), recommended=chosen))["extra"]
    found = values["answer_or_ask"]["recommended"]
    assert (found["precision"], found["chosen_on"], found["chosen_on_images"]) == (0.8, "validation", 300)
    assert found["threshold"] == chosen.threshold
    assert found["share_right"] == pytest.approx(found["right"] / found["answered"])
    assert values["risk_coverage"]["images"] == values["answer_or_ask"]["images"] == 200
    assert measure(example_predictions(20, 3, seed=1)).extra["answer_or_ask"]["recommended"] is None
