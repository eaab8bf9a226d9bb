"""No remedy prescribes what a run already had, or what cannot help it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence, against_overfitting
from saccade.recipe import Recipe
from saccade.records import EpochRow, Finding, Metrics, Predictions

RECIPES: dict[str, dict[str, object]] = {
    "default": {},
    "head": {"train.method": "head", "train.class_weights": True},
    "full": {"train.method": "full", "train.epochs": 8, "augment.policy": "strong", "train.gradient_clip": 1},
    "tail": {"train.method": "tail", "augment.policy": "none", "train.weight_decay": 0.1},
    "finetune": {"train.unfreeze": "all", "train.lr": 1e-3, "train.finetune_lr": 1e-4},
    "one stage": {"train.unfreeze": "1", "augment.policy": "light", "train.early_stopping": 0},
    "scratch": {"model.backbone": "small_cnn", "train.class_weights": True, "train.time_limit": 60},
    "small images": {"model.backbone": "fast_cnn", "model.options": {"width": 32}},
    "chosen": {"model.backbone": "auto", "train.method": "head", "augment.policy": "strong"},
    "grouped": {"split.group": "site", "split.repair": True, "evaluate.calibrate": False},
}
# (phase, learning rate, losses in training, losses in validation, accuracies in training and validation)
CURVES: dict[str, tuple[tuple[str, float, list[float], list[float], float, float], ...]] = {
    "none": (),
    "fitted head": (("head", 0.0, [0.01, 0.01], [0.6, 0.6], 1.0, 0.6),),
    "low": (("main", 1e-3, [1.3, 1.2, 1.19, 1.19], [1.3, 1.2, 1.19, 1.19], 0.45, 0.45),),
    "still falling": (("main", 1e-3, [1.5, 1.2, 1.0, 0.8], [1.4, 1.1, 0.9, 0.75], 0.8, 0.8),),
    "turned": (("main", 1e-3, [1.0, 0.5, 0.2, 0.1, 0.05], [1.0, 0.5, 0.7, 0.8, 0.9], 0.99, 0.6),),
    "in vain": (
        ("head", 1e-3, [1.0, 0.5], [1.0, 0.5], 0.8, 0.8),
        ("finetune", 1e-4, [0.6, 0.55, 0.53], [0.6, 0.55, 0.53], 0.8, 0.8),
    ),
    "swinging": (("main", 1e-3, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], 0.4, 0.4),),
    "still": (("finetune", 1e-7, [1.5, 1.5, 1.5, 1.5], [1.5, 1.5, 1.5, 1.5], 0.3, 0.3),),
}


def measured(answers: dict[str, list[str]], *, confidence: float = 0.9) -> Metrics:
    """Figures of a part: true class -> what was answered for each of its images."""
    classes = tuple(answers)
    pairs = [(label, answer) for label, given in answers.items() for answer in given]
    rest = (1 - confidence) / max(1, len(classes) - 1)
    rows = [[confidence if name == answer else rest for name in classes] for _, answer in pairs]
    paths = tuple(f"{i:04d}" for i in range(len(pairs)))
    return measure(Predictions(paths, tuple(label for label, _ in pairs), classes, np.array(rows)))


EVEN = measured({"a": ["a"] * 20, "b": ["a"] * 20, "c": ["c"] * 12 + ["a"] * 8})
UNEVEN = measured({"daisy": ["daisy"] * 18, "roses": ["roses", "daisy"], "tulips": ["daisy"]})
PARTS = {"even": EVEN, "uneven": UNEVEN, "good": measured({"a": ["a"] * 99 + ["b"], "b": ["b"] * 100})}
COUNTS = {"even": {"a": 20, "b": 20, "c": 20}, "uneven": {"daisy": 60, "roses": 6, "tulips": 1}, "good": {}}


def findings(
    recipe: dict[str, object], curve: str = "none", part: str = "even", **more: object
) -> list[Finding]:
    history = tuple(
        EpochRow(phase, i, lr, train, right, validation, held, 10.0 * i)
        for phase, lr, trains, validations, right, held in CURVES[curve]
        for i, (train, validation) in enumerate(zip(trains, validations, strict=True), start=1)
    )
    given: dict[str, object] = {"train_counts": COUNTS[part], "test": PARTS[part], **more}
    return list(diagnose(Evidence(history, recipe=Recipe.from_mapping(recipe), **given)))  # type: ignore[arg-type]


def remedies(*arguments: object, **more: object) -> str:
    return " ".join(found.remedy for found in findings(*arguments, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_no_remedy_names_a_setting_that_the_recipe_has(name: str) -> None:
    recipe = Recipe.from_mapping(RECIPES[name])
    flat = {key.replace("_", "-"): value for key, value in recipe.flat().items()}
    short = {key.partition(".")[2]: value for key, value in flat.items()}
    short |= {"augment": flat["augment.policy"], "repair-split": flat["split.repair"]}
    tested = 0
    for curve, part in product(CURVES, PARTS):
        said = remedies(RECIPES[name], curve, part, leaks=3, side=224, usual_side=224)
        settings = re.findall(r"--([\w.-]+[\w])(?: (?=[\w.])([\w.=-]*[\w]))?", said)
        settings += [(key.replace("_", "-"), value) for key, value in re.findall(r"([\w.]+) = (\w+)", said)]
        tested += len(settings)
        for flag, value in settings:
            if flag == "method" or value == "FOLDER":  # --method stands before what belongs to it
                continue
            now = flat.get(flag, short.get(flag))
            assert str(now).lower() != value, f"{curve}, {part}: --{flag} {value} is set: {said}"
            assert not (flag == "repair-split" and now), said
    assert tested > 10


def test_logit_adjustment_is_for_classes_with_fewer_images_than_others() -> None:
    assert "never predicts 'b' (20 images)" in " ".join(f.message for f in findings({}))
    assert "logit_adjustment" not in remedies({}), "all classes have the same number of images"
    assert "Set --evaluate.logit_adjustment auto, add images of this class, or merge" in remedies(
        {}, part="uneven"
    )
    for done in (
        {"train.class_weights": True},
        {"train.sampling": "balanced"},
        {"train.logit_adjustment": 1.0},
        {"evaluate.logit_adjustment": "auto"},
    ):
        assert "logit_adjustment" not in remedies(done, part="uneven")
    common = measured({"a": ["b"] * 10, "b": ["b"] * 2})
    told = remedies({}, test=common, train_counts={"a": 60, "b": 6})
    assert "Set --evaluate" not in told, "the class that is missed is the common one"


def test_one_image_is_not_images() -> None:
    said = [found.message for found in findings({}, part="uneven")]
    assert any("'tulips' (1 image)" in message for message in said)
    assert any("The smallest class, 'tulips', has 1 training image;" in message for message in said)
    assert not any(re.search(r"\b1 images", message) for message in said)


def test_uneven_classes_are_judged_by_balanced_accuracy() -> None:
    weighted = measured(
        {"daisy": ["daisy"] * 60 + ["roses"] * 12, "roses": ["roses"] * 6, "tulips": ["tulips"] * 3}
    )
    (found,) = (
        f for f in findings({}, test=weighted, train_counts={"daisy": 200}) if f.kind == "worse_than_baseline"
    )
    assert found.severity == "warning"
    assert "balanced accuracy is 94.4 %, and guessing has 33.3 %." in found.message
    assert found.remedy.startswith("Judge by balanced accuracy")
    assert "can a person tell" not in found.remedy
    always = measured({"daisy": ["daisy"] * 72, "roses": ["daisy"] * 6, "tulips": ["daisy"] * 3})
    (found,) = (f for f in findings({}, test=always) if f.kind == "worse_than_baseline")
    assert found.severity == "error"
    assert "can a person tell" in found.remedy


def test_a_fitted_head_is_not_told_to_augment_less() -> None:
    low = (EpochRow("head", 1, 0.0, 1.3, 0.45, 1.3, 0.45, 1.0),)
    recipe = Recipe.from_mapping({"train.method": "head"})
    (found,) = (
        f for f in diagnose(Evidence(low, recipe=recipe, validation=EVEN)) if f.kind == "underfitting"
    )
    assert "--augment" not in found.remedy, "a head sees no augmented images"


def test_a_rate_at_its_limit_is_not_to_be_raised() -> None:
    limit = {"train.method": "finetune", "train.lr": 1e-3, "train.finetune_lr": 1e-4}
    assert "a higher rate" not in remedies(limit, "in vain", "good")
    assert "a higher rate" in remedies({"train.method": "finetune", "train.lr": 1e-2}, "in vain", "good")


def test_images_far_smaller_than_the_backbone_was_made_for_are_named() -> None:
    tiny = {"data.image_size": 7}
    (found,) = (f for f in findings(tiny, "low", side=7, usual_side=224) if f.kind == "images_too_small")
    assert "7 x 7 pixels" in found.message
    assert "--image-size 224" in found.remedy
    assert "--image-size 224" in remedies(tiny, "low", side=7, usual_side=224).replace(found.remedy, "")
    assert "images_too_small" not in {f.kind for f in findings({}, "low", side=96, usual_side=224)}
    good = findings(tiny, "none", "good", side=7, usual_side=224)
    assert "images_too_small" not in {f.kind for f in good}, "where it does no harm, it is no finding"


def test_a_perfect_part_is_told_to_do_nothing() -> None:
    perfect = measured({"a": ["a"] * 200, "b": ["b"] * 200}, confidence=0.99)
    (found,) = findings({}, test=perfect, train_counts={"a": 500, "b": 500})
    assert found.remedy == "Nothing needs to be done."


def test_what_a_split_must_respect_is_told_beside_what_it_respects() -> None:
    better = measured({"a": ["a"] * 200, "b": ["b"] * 200})
    for recipe, words in (({}, "name it with --group, so"), ({"split.group": "site"}, "one column for both")):
        assert words in remedies(recipe, validation=better)
    assert "(with --repair-split)" in remedies({}, validation=better, given_split=True)


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ({"backbone": "small_cnn"}, "(--backbone tf_efficientnet_lite0)"),
        ({"backbone": "resnet18", "pretrained": False}, "(--pretrained)"),
        ({"backbone": "small_cnn", "pretrained": False}, "(--backbone tf_efficientnet_lite0 --pretrained)"),
    ],
)
def test_pretrained_weights_are_advised_with_the_flags_that_give_them(
    model: dict[str, object], flags: str
) -> None:
    evidence = Evidence((EpochRow("main", 1, 1e-3, 0.1, 1.0, 1.0, 0.6, 1.0),))
    recipe = Recipe.from_mapping({f"model.{key}": value for key, value in model.items()})
    advice = against_overfitting(replace(evidence, recipe=recipe), more_data_first=False)
    assert f"start from pretrained weights {flags}" in advice
