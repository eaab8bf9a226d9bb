"""Each illness from a made-up history that has it, and a neighbour that has not."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.evaluation.diagnosis import RULES, diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence, kept_index, phases
from saccade.recipe import Recipe
from saccade.records import EpochRow, Predictions


def rows(train_loss, validation_loss, train_accuracy, validation_accuracy, *, phase="finetune", lr=1e-3):
    """One row an epoch; accuracies may be a single number for all epochs."""
    epochs = len(train_loss)
    spread = [x if isinstance(x, list) else [x] * epochs for x in (train_accuracy, validation_accuracy)]
    columns = zip(range(1, epochs + 1), train_loss, validation_loss, *spread, strict=True)
    return [EpochRow(phase, i, lr, tl, ta, vl, va, 10.0 * i) for i, tl, vl, ta, va in columns]


@cache
def figures(accuracy, *, images=1000, classes=4, confidence=None):
    """Metrics of a part with this accuracy, mistakes spread evenly over the classes."""
    names = tuple("abcdefghijkl"[:classes])
    truth = np.arange(images) % classes
    wrong = np.zeros(images, dtype=bool)
    wrong[: round(images * (1 - accuracy))] = True  # whole rounds of the classes
    predicted = np.where(wrong, (truth + 1 + np.arange(images) % (classes - 1)) % classes, truth)
    top = confidence or max(accuracy, 1 / classes + 0.01)
    probabilities = np.full((images, classes), (1 - top) / (classes - 1))
    probabilities[np.arange(images), predicted] = top
    paths = tuple(f"{i:05d}" for i in range(images))
    return measure(Predictions(paths, tuple(names[i] for i in truth), names, probabilities))


FALLING = [1.2, 0.7, 0.5, 0.42, 0.4, 0.399]
HEALTHY = rows(FALLING, [1.0, 0.6, 0.48, 0.44, 0.43, 0.428], 0.9, 0.9)


def kinds(history, **given):
    recipe = given.pop("recipe", Recipe())
    return [finding.kind for finding in diagnose(Evidence(tuple(history), recipe=recipe, **given))]


def test_a_healthy_run_is_fine_and_nothing_else():
    assert kinds(HEALTHY, validation=figures(0.9)) == ["fine"]
    assert kinds(HEALTHY, validation=figures(0.9), test=figures(0.91)) == ["fine"]
    assert kinds(HEALTHY) == ["fine"]


def test_overfitting_is_a_gap_beyond_chance():
    gap = rows(FALLING, [1.0, 0.8, 0.7, 0.68, 0.67, 0.668], 0.99, 0.8)
    found = diagnose(Evidence(tuple(gap), validation=figures(0.8)))
    assert [f.kind for f in found] == ["overfitting"]
    assert "accuracy is 99.0 % on training images, but only 80.0 % on validation images" in found[0].message
    assert "--augment strong" in found[0].remedy
    assert kinds(rows(FALLING, FALLING, 0.95, 0.9), validation=figures(0.9)) == ["fine"]


def test_a_linear_head_that_fits_its_features_has_learnt_nothing_by_heart():
    fit = tuple(rows([0.1], [0.6], 1.0, 0.85, phase="head", lr=0.0))
    found = {f.kind: f for f in diagnose(Evidence(fit, validation=figures(0.85), train=figures(1.0)))}
    assert list(found) == ["fine", "fits_its_features"]
    assert "memorised" not in found["fits_its_features"].message
    assert "curves" not in found["fine"].message, "a fit has none"
    poor = diagnose(Evidence(fit, validation=figures(0.6), train=figures(1.0)))
    assert [(f.kind, f.severity) for f in poor] == [("fits_its_features", "warning")]
    mlp = Recipe().replaced(model__head="mlp")  # whose strength nothing chose
    assert kinds(fit, validation=figures(0.85), train=figures(1.0), recipe=mlp) == ["overfitting"]
    tuned = rows([0.5, 0.49, 0.48], [0.7, 0.68, 0.66], 0.8, 0.85)
    never = diagnose(Evidence((*fit, *tuned), validation=figures(0.85)))
    assert any("never beat the head alone" in f.message for f in never)


def test_hidden_series_are_named_instead_of_overfitting():
    gap = rows(FALLING, [1.0, 0.8, 0.7, 0.68, 0.67, 0.668], 0.99, 0.8)
    found = {
        "count": 84,
        "images": 20,
        "pattern": r"(.*)_\d+",
        "held_out": 0.99,
        "apart": 0.81,
        "validation": 0.8,
    }
    (finding,) = diagnose(Evidence(tuple(gap), validation=figures(0.8), series=found))
    assert (finding.kind, finding.severity) == ("hidden_series", "warning")
    assert "Your images come in series (about 84 series of 20 images)" in finding.message
    assert "whole series held out 81.0 %" in finding.message
    assert r"--group-pattern '(.*)_\d+'" in finding.remedy
    (told,) = diagnose(
        Evidence(tuple(gap), validation=figures(0.8), series=found | {"apart": 0.0, "pattern": ""})
    )
    assert "the figures promise too much" in told.message
    assert "--group or --group-pattern" in told.remedy


def test_a_gap_that_a_small_validation_part_may_show_by_chance_is_not_overfitting():
    gap = rows(FALLING, FALLING, 0.9, 0.79)
    assert "overfitting" not in kinds(gap, validation=figures(0.79, images=40))
    assert "overfitting" in kinds(gap, validation=figures(0.79, images=1000))


def test_a_gap_is_judged_by_all_images_that_were_not_learnt_from():
    gap = rows(FALLING, [1.0, 0.8, 0.7, 0.68, 0.67, 0.668], 1.0, 0.7)
    low, high = figures(0.7, images=40), figures(0.95, images=200)
    assert "overfitting" in kinds(gap, validation=low)
    assert "overfitting" not in kinds(gap, validation=low, test=high)
    both = diagnose(Evidence(tuple(gap), validation=low, test=figures(0.7, images=200)))[0]
    assert "70.0 % on validation and test images" in both.message
    assert "overfitting" not in kinds(gap, validation=figures(0.5, images=16)), "too few to tell"


def test_advice_keeps_to_the_method_of_the_run():
    """--epochs or a rate alone is another method, the classic one."""
    falling = tuple(rows([1.5, 1.2, 1.0, 0.8], [1.4, 1.1, 0.9, 0.75], 0.8, 0.8))
    for method, wanted in (("auto", "--method full "), ("tail", "--method tail "), ("finetune", "")):
        recipe = Recipe().replaced(train__method=method, train__epochs=4)
        found = diagnose(Evidence(falling, validation=figures(0.8), recipe=recipe))[0]
        assert f"Give it more time: {wanted}--epochs 8, in" in found.remedy
    limited = Recipe().replaced(train__time_limit=60)
    found = diagnose(Evidence(falling, validation=figures(0.8), recipe=limited))[0]
    assert "Give it more time: a longer --time-limit, in" in found.remedy


def test_a_split_that_leaks_is_not_fine():
    remedy = diagnose(Evidence(tuple(HEALTHY), validation=figures(0.9), leaks=49))[0].remedy
    assert remedy.startswith("But 49 ")
    assert "Nothing needs to be done" not in remedy


def test_even_classes_and_pretrained_weights_are_no_remedy_where_they_are_there():
    guessing = Evidence(tuple(HEALTHY), validation=figures(0.25))
    assert "logit_adjustment" not in diagnose(guessing)[0].remedy
    scratch = replace(guessing, recipe=Recipe().replaced(model__pretrained=False))
    assert "Then try pretrained weights." in diagnose(scratch)[0].remedy
    labels = ("a",) * 90 + ("b",) * 10
    paths, answers = tuple(map(str, range(100))), np.tile([0.9, 0.1], (100, 1))
    always_a = Predictions(paths, labels, ("a", "b"), answers)
    uneven = Evidence(tuple(HEALTHY), validation=measure(always_a))
    assert "Then set --evaluate.logit_adjustment auto." in diagnose(uneven)[0].remedy


def test_small_images_are_not_sent_to_networks_that_would_enlarge_them():
    recipe = Recipe().replaced(model__backbone="fast_cnn", model__options={"width": 32})
    gap = Evidence(tuple(rows(FALLING, FALLING, 0.99, 0.7)), validation=figures(0.7), recipe=recipe)
    assert "efficientnet" not in diagnose(gap)[0].remedy
    low = rows([1.3, 1.2, 1.19, 1.19], [1.3, 1.2, 1.19, 1.19], 0.45, 0.45)
    weak = Evidence(tuple(low), validation=figures(0.45), recipe=recipe)
    assert "width=64" in next(f for f in diagnose(weak) if f.kind == "underfitting").remedy


def test_the_remedies_against_overfitting_leave_out_what_was_done_already():
    gap = rows(FALLING, FALLING, 0.99, 0.7)
    recipe = Recipe().replaced(augment__policy="strong", train__weight_decay=0.05)
    (found,) = diagnose(Evidence(tuple(gap), validation=figures(0.7), recipe=recipe))[:1]
    assert "--augment" not in found.remedy
    assert "weight-decay" not in found.remedy
    few = diagnose(Evidence(tuple(gap), validation=figures(0.7), train_counts={"a": 50}))[0]
    assert few.remedy.startswith("In this order: collect more images")


def test_overfitting_after_the_kept_epoch_does_no_harm_and_says_so():
    history = rows(
        [1.0, 0.5, 0.4, 0.2, 0.1, 0.05], [1.0, 0.5, 0.45, 0.5, 0.6, 0.8], [0.6, 0.8, 0.9, 1, 1, 1], 0.88
    )
    found = {f.kind: f for f in diagnose(Evidence(tuple(history), validation=figures(0.88)))}
    assert found.keys() == {"fine", "turned"}
    assert "The weights of epoch 3 were kept" in found["turned"].message
    still = rows([1.0, 0.5, 0.4, 0.41, 0.4, 0.41], [1.0, 0.5, 0.45, 0.5, 0.6, 0.8], 0.9, 0.88)
    assert "turned" not in kinds(still, validation=figures(0.88))  # the training loss did not fall


def watching(monitor, history, figures):
    return [replace(row, monitor=monitor, monitored=x) for row, x in zip(history, figures, strict=True)]


def test_what_turned_is_the_loss_that_chose_the_epoch():
    plain = [0.6, 0.55, 0.7, 0.9, 1.1, 1.2]
    history = rows([1.0, 0.5, 0.4, 0.2, 0.1, 0.05], plain, 0.9, 0.88)
    falls = watching("calibrated_loss", history, [0.5, 0.45, 0.42, 0.4, 0.39, 0.395])
    assert "turned" not in kinds(falls, validation=figures(0.88))
    rises = watching("calibrated_loss", history, [0.5, 0.45, 0.42, 0.4, 0.5, 0.6])
    (told,) = [f for f in diagnose(Evidence(tuple(rises), validation=figures(0.88))) if f.kind == "turned"]
    assert "After epoch 4 the calibrated validation loss rose from 0.4 to 0.6" in told.message
    late = watching("accuracy", history, [0.7, 0.8, 0.8, 0.8, 0.9, 0.88])
    assert "turned" not in kinds(late, validation=figures(0.88)), "epoch 5 is kept, not the lowest loss"
    same = watching("accuracy", history, [0.7, 0.9, 0.8, 0.8, 0.8, 0.88])
    assert "turned" in kinds(same, validation=figures(0.88))


def test_underfitting_is_low_in_both_parts():
    flat = rows([1.3, 1.1, 1.05, 1.04, 1.04], [1.3, 1.1, 1.06, 1.05, 1.05], 0.55, 0.54)
    found = diagnose(Evidence(tuple(flat), validation=figures(0.54)))
    assert [f.kind for f in found] == ["underfitting"]
    assert "train longer (--method full --epochs 20)" in found[0].remedy
    scratch = Recipe.from_mapping({"model.backbone": "small_cnn"})
    found = diagnose(Evidence(tuple(flat), validation=figures(0.54), recipe=scratch))
    assert "train longer (--epochs 40)" in found[0].remedy
    assert "underfitting" not in kinds(
        rows(FALLING, FALLING, 0.9, 0.55), validation=figures(0.55)
    )  # overfitting


def test_low_accuracies_are_never_fine_and_have_one_name():
    flat = [1.3, 1.1, 1.05, 1.04, 1.04]
    assert kinds(rows(flat, flat, 0.68, 0.6), validation=figures(0.6)) == ["underfitting"]
    assert kinds(rows(flat, flat, 0.72, 0.6), validation=figures(0.6)) == ["overfitting"]


def test_training_accuracy_on_mixed_images_is_no_underfitting():
    mixed = rows([2.0, 1.6, 1.5, 1.45, 1.44], [1.0, 0.6, 0.4, 0.38, 0.379], 0.45, 0.93)
    assert kinds(mixed, validation=figures(0.93)) == ["fine"]


def test_what_has_no_effect_is_no_remedy():
    gap = tuple(rows(FALLING, [1.0, 0.8, 0.7, 0.68, 0.67, 0.668], 0.99, 0.8))
    for optimizer, said in (("adamw", True), ("muon", False)):
        recipe = Recipe.from_mapping({"model.backbone": "fast_cnn", "train.optimizer": optimizer})
        (found,) = diagnose(Evidence(gap, validation=figures(0.8), recipe=recipe))
        assert found.kind == "overfitting"
        assert ("--train.weight-decay" in found.remedy) is said
    fitted = rows([1.0], [1.0], 0.6, 0.6, phase="head", lr=0.0)
    (found,) = diagnose(Evidence(tuple(fitted), validation=figures(0.6)))
    assert found.kind == "underfitting"
    assert "--method full" in found.remedy
    assert "--epochs" not in found.remedy, "a fitted head has no epochs"


def test_clean_training_figures_count_more_than_augmented_ones():
    history = rows(FALLING, FALLING, 0.6, 0.66)
    assert "overfitting" in kinds(history, validation=figures(0.66), train=figures(0.97))
    assert "underfitting" in kinds(history, validation=figures(0.66), train=figures(0.68))


def test_pretrained_and_scratch_get_different_remedies_against_underfitting():
    flat = [1.3, 1.1, 1.05, 1.04, 1.04]
    two = rows(flat, flat, 0.5, 0.5, phase="head") + rows(flat[2:], flat[2:], 0.5, 0.5)
    classic = Evidence(tuple(two), validation=figures(0.5), recipe=Recipe.from_mapping({"train.epochs": 9}))
    assert "unfreeze more (--unfreeze all)" in diagnose(classic)[0].remedy
    full = replace(classic, recipe=Recipe.from_mapping({"train.method": "full"}))
    assert "unfreeze" not in diagnose(full)[0].remedy, "full unfreezes everything"
    one = rows(flat, flat, 0.5, 0.5, phase="scratch")
    assert "unfreeze" not in diagnose(Evidence(tuple(one), validation=figures(0.5)))[0].remedy


def test_a_loss_that_is_no_number_is_too_high_a_rate():
    history = rows([1.0, math.nan], [1.0, math.nan], 0.5, 0.3)
    found = diagnose(Evidence(tuple(history)))
    assert (found[0].kind, found[0].severity) == ("too_high_a_rate", "error")
    assert "in epoch 2" in found[0].message
    assert [f.kind for f in found].count("too_high_a_rate") == 1


def test_jumping_losses_are_too_high_a_rate():
    jumpy = rows([1.0, 1.4, 0.9, 1.3, 0.9, 1.2], [1.0, 1.1, 0.9, 1.2, 0.9, 1.0], 0.6, 0.6, lr=0.5)
    found = diagnose(Evidence(tuple(jumpy), validation=figures(0.6), recipe=Recipe().replaced(train__lr=0.5)))
    assert found[0].kind == "too_high_a_rate"
    assert "0.5" in found[0].message
    assert "--lr 0.2" in found[0].remedy
    swinging = rows(FALLING, [0.5, 0.9, 0.5, 0.9, 0.5, 0.45], 0.85, 0.85)
    assert "too_high_a_rate" in kinds(swinging, validation=figures(0.85))


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 0.8, 0.85, 0.7, 0.72, 0.6],  # small steps up are noise
        [0.02, 0.03, 0.01, 0.02, 0.01, 0.015],  # near zero every loss wanders
        [0.8, 1.2, 1.7],  # three epochs are too few to tell
        [0.8, 0.86, 0.8, 0.86, 0.8, 0.86],  # by 7 %
        [1.2, 1.0, 1.2, 0.8, 0.7, 0.9, 0.6, 0.5, 0.45, 0.44],  # twice in ten epochs
    ],
)
def test_losses_that_merely_wander_are_no_high_rate(losses):
    assert "too_high_a_rate" not in kinds(rows(losses, losses, 0.9, 0.9), validation=figures(0.9))


def test_a_validation_loss_that_swings_by_a_fifth_is_no_high_rate():
    swinging = rows(FALLING, [0.6, 0.75, 0.6, 0.74, 0.6, 0.58], 0.85, 0.85)
    assert "too_high_a_rate" not in kinds(swinging, validation=figures(0.85))


def test_fine_tuning_that_breaks_the_head_is_too_high_a_rate():
    head = rows([1.0, 0.6, 0.5], [0.9, 0.6, 0.5], 0.8, 0.8, phase="head", lr=1e-3)
    broken = rows([1.5, 1.0, 0.9], [1.6, 1.1, 1.0], 0.6, 0.6, lr=1e-3)
    found = diagnose(Evidence(tuple(head + broken), validation=figures(0.6)))
    assert found[0].kind == "too_high_a_rate"
    assert "'finetune' broke what the phase before had learnt" in found[0].message
    assert "--finetune-lr" in found[0].remedy
    gentle = rows([0.55, 0.45, 0.42], [0.48, 0.45, 0.449], 0.85, 0.85, lr=1e-5)
    assert kinds(head + gentle, validation=figures(0.85)) == ["fine"]


def test_fine_tuning_that_never_beats_the_head_is_told():
    head = rows([1.0, 0.6, 0.5], [0.9, 0.6, 0.42], 0.8, 0.85, phase="head")
    slow = rows([0.5, 0.49, 0.48], [0.5, 0.48, 0.46], 0.8, 0.85)
    three = Recipe().replaced(train__method="full", train__epochs=3)
    evidence = Evidence(tuple(head + slow), validation=figures(0.85), recipe=three)
    found = {f.kind: f for f in diagnose(evidence)}
    assert "Phase 'finetune' never beat epoch 3" in found["fine_tuning_did_not_help"].message
    assert "--epochs 6" in found["fine_tuning_did_not_help"].remedy
    worse = rows([0.5, 0.49, 0.48], [0.43, 0.44, 0.46], 0.8, 0.85)
    found = {f.kind: f for f in diagnose(Evidence(tuple(head + worse), validation=figures(0.85)))}
    assert "a third of the rate" in found["fine_tuning_did_not_help"].remedy
    better = rows([0.4, 0.38, 0.37], [0.41, 0.4, 0.398], 0.8, 0.85)
    assert kinds(head + better, validation=figures(0.85)) == ["fine"]


def test_stopped_too_early_is_a_loss_still_falling_at_the_end():
    falling = rows([1.5, 1.2, 1.0, 0.8], [1.4, 1.1, 0.9, 0.75], 0.8, 0.8)
    four = Recipe().replaced(train__method="full", train__epochs=4)
    found = diagnose(Evidence(tuple(falling), validation=figures(0.8), recipe=four))
    assert [f.kind for f in found] == ["stopped_too_early"]
    assert "--epochs 8" in found[0].remedy
    assert "time-limit" not in found[0].remedy
    cut_short = Recipe().replaced(train__method="full", train__epochs=60)  # by --finish
    found = diagnose(Evidence(tuple(falling), validation=figures(0.8), recipe=cut_short))
    assert "all of its 60 epochs" in found[0].remedy
    limited = Evidence(
        tuple(falling), validation=figures(0.8), recipe=Recipe().replaced(train__time_limit=60)
    )
    assert "time-limit" in diagnose(limited)[0].remedy
    surer = rows([1.5, 1.2, 1.0, 0.8], [0.6, 0.62, 0.65, 0.7], 0.8, 0.8)
    found = kinds(watching("calibrated_loss", surer, [0.6, 0.55, 0.5, 0.45]), validation=figures(0.8))
    assert found == ["stopped_too_early"], "the loss that is watched still falls"


def test_a_flat_end_or_a_perfect_one_was_not_stopped_too_early():
    assert "stopped_too_early" not in kinds(HEALTHY)
    perfect = rows([0.5, 0.1, 0.01], [0.4, 0.1, 0.02], 1.0, 1.0)
    assert "stopped_too_early" not in kinds(perfect)
    worse_at_the_end = rows(FALLING, [1.0, 0.6, 0.4, 0.3, 0.2, 0.21], 0.9, 0.9)
    assert "stopped_too_early" not in kinds(worse_at_the_end)


def test_too_little_data_to_learn_from_or_to_judge_with():
    assert "too_little_data" in kinds(HEALTHY, validation=figures(0.9), train_counts={"a": 12})
    assert "too_little_data" not in kinds(HEALTHY, validation=figures(0.9), train_counts={"a": 200})
    found = {f.kind: f for f in diagnose(Evidence(tuple(HEALTHY), validation=figures(0.9, images=60)))}
    assert "60 validation images tell little" in found["too_few_to_tell"].message
    assert "Measure on more: about 385 validation images" in found["too_few_to_tell"].remedy


def test_no_better_than_the_commonest_class():
    names, truth = ("a", "b"), np.array([0] * 80 + [1] * 20)
    probabilities = np.tile([0.9, 0.1], (100, 1))
    made = Predictions(tuple(map(str, range(100))), tuple(names[i] for i in truth), names, probabilities)
    found = {f.kind: f for f in diagnose(Evidence((), validation=measure(made)))}
    assert found["worse_than_baseline"].severity == "error"
    assert "always predicting 'a' (80.0 %)" in found["worse_than_baseline"].message
    assert "'b' (20 images)" in found["never_predicted"].message
    assert "worse_than_baseline" not in kinds((), validation=figures(0.6))
    assert "worse_than_baseline" in kinds((), validation=figures(0.35, images=40))  # 25 % is within chance


def test_a_tiny_class_that_is_never_predicted_is_only_mentioned():
    made = figures(0.9, images=200)
    counts = [list(row) for row in made.confusion]
    tiny = replace(made.per_class[0], support=2, recall=0.0)
    for row in counts:
        row[0] = 0
    changed = replace(made, per_class=(tiny, *made.per_class[1:]), confusion=tuple(map(tuple, counts)))
    found = {f.kind: f for f in diagnose(Evidence((), validation=changed))}
    assert found["never_predicted"].severity == "info"


def test_a_test_part_clearly_below_validation_is_believed():
    assert "optimistic_validation" in kinds((), validation=figures(0.95), test=figures(0.8))
    assert "optimistic_validation" not in kinds((), validation=figures(0.95), test=figures(0.94))


def test_a_weak_class_is_named_with_what_it_is_taken_for():
    names, truth = ("rose", "tulip", "daisy"), np.repeat([0, 1, 2], 100)
    predicted = truth.copy()
    predicted[:50] = 1
    probabilities = np.full((300, 3), 0.05)
    probabilities[np.arange(300), predicted] = 0.9
    made = Predictions(
        tuple(f"{i:03}" for i in range(300)), tuple(names[i] for i in truth), names, probabilities
    )
    found = {f.kind: f for f in diagnose(Evidence((), validation=measure(made)))}
    assert "'rose' (50.0 % of 100, most often taken for 'tulip')" in found["weak_classes"].message


def test_a_class_of_which_there_is_one_image_is_not_called_weak():
    truth = np.array([0] + [1, 2] * 50)
    probabilities = np.full((101, 3), 0.05)
    probabilities[np.arange(101), np.where(truth == 0, 1, truth)] = 0.9
    names = ("rose", "tulip", "daisy")
    made = Predictions(
        tuple(f"{i:03}" for i in range(101)), tuple(names[i] for i in truth), names, probabilities
    )
    assert "weak_classes" not in kinds((), validation=measure(made))


def test_misleading_confidence_is_told():
    assert "misleading_confidence" in kinds((), validation=figures(0.8, confidence=0.98))
    assert "misleading_confidence" not in kinds((), validation=figures(0.8, confidence=0.81))


def test_the_kept_row_is_the_first_of_the_least_loss():
    head = rows([1.0, 0.5], [0.5, 0.4], 0.8, 0.8, phase="head")
    fine = rows([0.9, 0.5, 0.4], [0.9, 0.3, 0.3], 0.8, 0.8)
    assert kept_index(head + fine) == 3
    assert [name for name, _ in phases(head + fine)] == ["head", "finetune"]
    assert kept_index(rows([1.0, math.nan], [math.nan, math.nan], 0.1, 0.1)) == 1


losses = st.one_of(st.floats(0, 50), st.just(math.nan), st.just(math.inf))
shares = st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(losses, losses, shares, shares, st.sampled_from(["head", "finetune"])), max_size=8))
def test_any_history_gets_words_and_remedies(drawn):
    drawn = sorted(drawn, key=lambda row: row[-1] != "head")
    history = tuple(EpochRow(p, i, 0.1, tl, ta, vl, va, i) for i, (tl, vl, ta, va, p) in enumerate(drawn))
    found = diagnose(Evidence(history, validation=figures(0.7, images=24)))
    assert found
    assert all(finding.message.endswith(".") and finding.remedy.endswith(".") for finding in found)
    assert len({finding.kind for finding in found}) == len(found)


def test_every_rule_answers_nothing_without_evidence():
    assert [rule(Evidence(())) for rule in RULES] == [None] * len(RULES)


def test_two_fits_of_a_head_are_no_epochs_that_could_go_on():
    losses = ([0.5, 0.3], [0.9, 0.8], 0.95, 0.9)
    assert "stopped_too_early" in kinds(rows(*losses, phase="head", lr=1e-3))
    assert "stopped_too_early" not in kinds(rows(*losses, phase="head", lr=0.0))


def test_advice_on_rates_starts_from_the_rate_that_was_used():
    """Method full fine-tunes at a tenth of the head's rate, the classic two phases at a hundredth."""
    head = rows([0.5], [0.5], 0.9, 0.9, phase="head", lr=0.0)
    worse = rows([0.52, 0.5], [0.6, 0.7], 0.9, 0.9, lr=3e-4)
    found = diagnose(Evidence((*head, *worse), recipe=Recipe.from_mapping({"train.method": "full"})))
    (advice,) = (f.remedy for f in found if f.kind == "fine_tuning_did_not_help")
    assert "--finetune-lr 0.0001" in advice


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([190_000, 900, 50, 20], [5e18, 3e6, 9e4, 9e3]),
        ([20, 9, 4, 2], [40, 20, 10, 8]),
        ([1.4, 1.3, 1.2, 1.1], [900, 90, 30, 9]),
        ([6, 1.4, 1.3, 1.2], [1.4, 1.4, 1.3, 1.2]),
        ([50, 40, 30, 20], [1.4, 1.4, 1.4, 1.4]),
    ],
)
@pytest.mark.parametrize("lr", [1.0, 10.0, 100.0])
def test_a_loss_many_times_that_of_chance_is_a_rate_too_high_whatever_the_trend(train, validation, lr):
    history = rows(train, validation, 0.3, 0.27, phase="main", lr=lr)
    found = diagnose(Evidence(tuple(history), validation=figures(0.27)))
    high = [finding for finding in found if finding.kind == "too_high_a_rate"]
    assert len(high) == 1
    assert "Use the usual rate first (--method full --lr 0.003)" in high[0].remedy
    assert found[0] is high[0], "before what it leads to"
    assert not {"stopped_too_early", "underfitting"} & {finding.kind for finding in found}


def test_a_network_that_is_certain_and_wrong_on_new_images_is_no_rate_too_high():
    history = rows([1.0, 0.3, 0.05, 0.01], [1.5, 3.0, 4.5, 6.0], [0.6, 0.9, 0.99, 1.0], 0.5, phase="main")
    assert "too_high_a_rate" not in kinds(history, validation=figures(0.5))


@pytest.mark.parametrize("lr", [1e-5, 1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize(
    "train", [[1.5, 1.49, 1.48, 1.47], [1.4, 1.4, 1.4, 1.4], [1.45, 1.27, 1.19, 1.29, 1.4, 1.29, 1.35, 1.18]]
)
def test_a_rate_at_which_nothing_moves_is_said_to_be_too_low(train, lr):
    history = rows(train, [x - 0.02 for x in train], 0.27, 0.28, phase="main", lr=lr)
    found = diagnose(Evidence(tuple(history), validation=figures(0.28)))
    low = [finding for finding in found if finding.kind == "too_low_a_rate"]
    assert len(low) == 1
    assert f"{lr:.2g}" in low[0].message
    assert "Use a higher rate" in low[0].remedy
    assert "--lr 0.00" in low[0].remedy
    assert not {"stopped_too_early", "underfitting"} & {finding.kind for finding in found}


@pytest.mark.parametrize(
    ("train", "accuracy", "lr"),
    [([1.4, 1.38, 1.37], 0.3, 1e-3), ([1.4, 0.9, 0.5], 0.3, 1e-6), ([0.2, 0.2, 0.2], 0.95, 1e-6)],
)
def test_a_usual_rate_or_one_that_learns_is_not_too_low(train, accuracy, lr):
    history = rows(train, train, accuracy, accuracy, phase="main", lr=lr)
    assert "too_low_a_rate" not in kinds(history, validation=figures(accuracy))
