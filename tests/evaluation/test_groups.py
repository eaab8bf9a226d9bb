"""Images that belong together say less than as many that stand alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.evaluation.answers import Answers
from saccade.evaluation.groups import Groups, Worth, mean_quantile
from saccade.evaluation.intervals import Z_95, student_95
from saccade.evaluation.metric_intervals import intervals, share_interval
from saccade.evaluation.metrics import measure
from saccade.evaluation.ranking import rank_classes
from saccade.records import Predictions
from saccade.testing.metrics import example_predictions, shuffled

COPIES = 3


def copied(made):
    """Every image three times, and the name of each one's original."""
    paths = tuple(f"{path}-{copy}" for path in made.paths for copy in range(COPIES))
    rows = np.repeat(np.arange(len(made)), COPIES)
    labels = tuple(made.labels[i] for i in rows)
    return Predictions(paths, labels, made.classes, made.probabilities[rows]), {
        path: path.rpartition("-")[0] for path in paths
    }


def widths(metrics):
    found = metrics.extra["intervals"]
    names = ["balanced_accuracy", *metrics.extra["metrics"], "macro_f1", "log_loss"]
    width = {name: found[name][1] - found[name][0] for name in names if found[name]}
    rows = {f"{name} {i}": row for name in ("recall", "auroc") for i, row in enumerate(found[name])}
    width |= {name: row[1] - row[0] for name, row in rows.items()}
    return width | {"accuracy": metrics.accuracy.high - metrics.accuracy.low}


def test_copies_of_images_make_no_interval_narrower():
    made = example_predictions(200, 4, seed=0)
    again, original = copied(made)
    once, by_group, as_if_alone = measure(made), measure(again, groups=original), measure(again)
    assert (once.extra["groups"], by_group.extra["groups"], by_group.images) == (200, 200, 600)
    honest, flattered, single = widths(by_group), widths(as_if_alone), widths(once)
    assert len(single) >= 17
    for name, width in single.items():
        assert honest[name] == pytest.approx(width, rel=0.12), name
        assert flattered[name] < 0.7 * width, name


def test_groups_of_one_are_no_groups():
    made = example_predictions(60, 3, seed=1)
    assert measure(made, groups={path: path for path in made.paths}) == measure(made)


def test_figures_by_group_do_not_depend_on_the_order_of_the_images():
    made, original = copied(example_predictions(40, 3, seed=2))
    assert measure(made, groups=original) == measure(shuffled(made, seed=5), groups=original)


def test_the_mean_over_classes_is_no_surer_than_the_groups_that_hold_them_all():
    classes = [Worth(20.0, student_95(2), 3)] * 10
    assert mean_quantile(classes, 3) == student_95(2)
    assert mean_quantile(classes, 30) == student_95(20)


@pytest.mark.parametrize("count", [3, 4])
def test_few_groups_with_images_of_many_classes_hold_the_balanced_accuracy(count):
    """Each group is right as often in all of its 10 classes; 80 % of all groups' images are right."""
    generator, held = np.random.default_rng(0), []
    of = np.repeat([f"site {i}" for i in range(count)], 40)
    names = tuple("abcdefghij")
    for _ in range(100):
        truth = generator.integers(10, size=len(of))
        right = generator.random(len(of)) < np.repeat(generator.beta(8, 2, size=count), 40)
        called = np.where(right, truth, (truth + 1) % 10)
        data = Answers(truth, called, np.eye(10)[called], names, Groups.named(of))
        ranked = rank_classes(truth, data.probabilities, data.groups)
        low, high = intervals(data, share_interval(right, data.groups), ranked, ())["balanced_accuracy"]
        held.append(low <= 0.8 <= high)
    assert np.mean(held) > 0.92


def test_where_all_images_agree_a_group_counts_once():
    groups = Groups.named([f"patient {i // 5}" for i in range(50)])
    worth = groups.worth(np.ones(50), np.arange(50))
    assert worth == (pytest.approx(10), pytest.approx(student_95(9)), 10)
    assert groups.effect(np.zeros(50)) == pytest.approx(5)


def test_one_group_says_as_much_as_one_image():
    groups = Groups.named(["ann"] * 9)
    assert groups.worth(np.arange(9) > 4, np.arange(9)).images == pytest.approx(1)
    assert groups.variance(np.ones(9)) == np.inf


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 100))
def test_images_are_worth_at_least_one_and_never_more_than_they_are(names, seed):
    groups = Groups.named([str(name) for name in names])
    right = np.random.default_rng(seed).random(len(names)) < 0.7
    worth = groups.worth(right, np.arange(len(names)))
    assert 0 < worth.images <= len(names) + 1e-9
    assert worth.z >= Z_95 - 1e-9


def test_resampling_draws_groups_whole_and_each_as_often():
    groups = Groups.named([str(i // 3) for i in range(30)])
    drawn = np.concatenate(list(groups.resampled(seed=0, resamples=2000)))
    assert drawn.shape == (2000, 30)
    assert (drawn[:, ::3] == drawn[:, 1::3]).all()
    assert (drawn[:, ::3].sum(axis=1) == 10).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(30), abs=0.1)
