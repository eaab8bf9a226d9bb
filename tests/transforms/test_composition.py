"""The user's own steps: in order, each with its probability and strength, as the fields of that name do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from saccade import extensions
from saccade.errors import RecipeError
from saccade.preprocess import Preprocess
from saccade.recipe import AugmentConfig, Recipe
from saccade.recipe.augmentation import BY_CHANCE, OWN_STEPS, STEP_STRENGTHS
from saccade.transforms.augment import FIRST_LISTED, STEPS, augment, stream
from saccade.transforms.automatic import AUTOMATIC
from saccade.transforms.geometry import as_evaluated
from saccade.transforms.outside import check_known
from saccade.transforms.strengths import Augmentation, ListedStep

PREPROCESS = Preprocess(32, crop_fraction=1.0)


def photo() -> torch.Tensor:
    rng = np.random.default_rng(2)
    blobs = torch.from_numpy(rng.integers(0, 256, (1, 3, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(blobs, (44, 50), mode="bilinear")[0]
    noise = torch.from_numpy(rng.normal(0, 60, (3, 44, 50)).astype(np.float32))
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def composed(*steps: Any, **fields: Any) -> Augmentation:
    return Augmentation.from_config(AugmentConfig(steps=steps, **fields))


def draws(augmentation: Augmentation, count: int = 12) -> list[torch.Tensor]:
    return [
        augment(photo(), augmentation, seed=1, epoch=epoch, index=2, preprocess=PREPROCESS)
        for epoch in range(count)
    ]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(first, second, strict=True)]


def test_every_step_that_there_is_can_be_listed():
    fields = {field for step in STEPS.values() for field in step.fields} - {"automatic", "extra"}
    assert fields == {*STEP_STRENGTHS, *BY_CHANCE}
    assert set(OWN_STEPS) == fields | set(AUTOMATIC)
    assert len(OWN_STEPS) == 22


@pytest.mark.parametrize("name", OWN_STEPS)
def test_a_listed_step_keeps_what_every_augmentation_must(name):
    results = draws(composed({"name": name}))
    assert all(same(results, draws(composed(name))))  # a text is a name
    assert all(result.shape == (3, 32, 32) and result.dtype == torch.uint8 for result in results)
    unchanged = [as_evaluated(photo(), PREPROCESS)] * len(results)
    assert sum(same(results, unchanged)) < len(results)  # a weak blur may change nothing
    if name != "random_resized_crop":
        assert all(same(draws(composed({"name": name, "probability": 0})), unchanged))
        some = draws(composed({"name": name, "probability": 0.3}), 60)
        assert 25 < sum(same(some, unchanged * 5)) < 60


@pytest.mark.parametrize("name", STEP_STRENGTHS)
def test_strength_is_the_fields(name):
    """The step's pixels are those that its field would draw from the same stream."""
    neutral = {"random_resized_crop": 1.0, "jpeg_quality": 100}.get(name, 0)
    unchanged = [as_evaluated(photo(), PREPROCESS)] * 12
    assert all(same(draws(composed({"name": name, "strength": neutral})), unchanged))
    usual = STEP_STRENGTHS[name]
    assert all(same(draws(composed(name)), draws(composed({"name": name, "strength": usual}))))
    stronger = usual * 0.7 if name in ("random_resized_crop", "jpeg_quality") else usual * 1.5
    stronger = round(stronger) if name == "jpeg_quality" else stronger
    assert not all(same(draws(composed(name)), draws(composed({"name": name, "strength": stronger}))))


def test_steps_come_in_the_order_in_which_they_stand():
    gray_first = composed("grayscale", {"name": "hue", "strength": 0.5}, "saturation")
    gray_last = composed({"name": "hue", "strength": 0.5}, "saturation", "grayscale")
    for result in draws(gray_last):
        assert torch.equal(result[0], result[1])
    assert all(same(draws(gray_first), draws(composed("grayscale"))))  # gray has no hue to turn


def test_a_step_may_stand_twice_and_then_draws_anew():
    twice = composed(
        {"name": "horizontal_flip", "probability": 0.5}, {"name": "horizontal_flip", "probability": 0.5}
    )
    plain = as_evaluated(photo(), PREPROCESS)
    for epoch, result in enumerate(draws(twice, 40)):
        flips = sum(stream(1, "augment", epoch, 2, FIRST_LISTED + place).random() < 0.5 for place in (0, 1))
        assert torch.equal(result, plain.flip(-1) if flips == 1 else plain)


def test_a_crop_comes_first_and_then_the_rest():
    cropped = draws(composed({"name": "random_resized_crop", "strength": 0.4}, "vertical_flip"))
    expected = [image.flip(-2) for image in draws(Augmentation(random_resized_crop=0.4))]
    assert all(same(cropped, expected))


def test_beside_the_steps_only_manners_and_mixing_count():
    beside = {"fill_mode": "wrap", "mix_up": 0.2, "mix_until": 0.9, "extra": ("dust",)}
    augmentation = composed("rotation", policy="strong", hue=0.3, **beside)
    rotation = (ListedStep("rotation", 1.0, 15.0),)
    assert augmentation == Augmentation(**beside, steps=rotation)
    plain, wrapped = draws(composed("rotation")), draws(composed("rotation", fill_mode="wrap"))
    assert not any(same(plain, wrapped))


def test_flips_are_known_wherever_they_stand():
    assert composed("horizontal_flip").mirrors
    assert not composed("rotation", "vertical_flip").mirrors
    assert not composed({"name": "horizontal_flip", "probability": 0}).mirrors
    assert AugmentConfig(steps=("vertical_flip",)).flips == {"top to bottom"}
    assert AugmentConfig(steps=({"name": "rotation", "strength": 180},)).flips == {"upside down"}


def test_it_survives_toml_and_json():
    rotation = '[[augment.steps]]\nname = "rotation"\nstrength = 20\nprobability = 0.5\n'
    dust = '[[augment.steps]]\nname = "dust"\n'
    recipe = Recipe.from_toml(f'[augment]\nfill_mode = "nearest"\n{rotation}{dust}')
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert recipe.augment.from_outside == ("dust",)
    augmentation = Augmentation.from_config(recipe.augment)
    assert augmentation.steps == (ListedStep("rotation", 0.5, 20.0), ListedStep("dust"))
    assert Augmentation.from_json(json.loads(json.dumps(augmentation.as_json()))) == augmentation
    policy = Augmentation.from_config(AugmentConfig(policy="strong"))
    assert Augmentation.from_json(json.loads(json.dumps(policy.as_json()))) == policy


def test_functions_from_outside_stand_in_the_order_too(monkeypatch):
    monkeypatch.setitem(
        extensions._registered, "augmentations", {"white": lambda image, rng: image.fill_(255)}
    )
    whitened = draws(composed("white", {"name": "brightness", "strength": 0.5}))
    assert len({int(result[0, 0, 0]) for result in whitened}) > 3
    assert all(
        same(draws(composed("brightness", "white")), [torch.full((3, 32, 32), 255, dtype=torch.uint8)] * 12)
    )
    check_known(("white",))
    with pytest.raises(RecipeError, match="unknown augmentation 'rotaton'") as told:
        check_known(AugmentConfig(steps=("rotaton",)).from_outside)
    assert "did you mean the step 'rotation'?" in told.value.hint


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([{"name": "rotation", "strenth": 20}], "unknown key 'strenth'"),
        (
            [{"name": "rotation", "strength": 500}],
            "the strength of rotation should be less than or equal to 180: 500",
        ),
        ([{"name": "rotation", "probability": 2}], "augment.steps"),
        (
            [{"name": "horizontal_flip", "strength": 1}],
            "horizontal_flip has no strength, but one is given: 1",
        ),
        ([{"name": "trivial_augment", "strength": 1}], "trivial_augment has no strength"),
        ([{"name": "jpeg_quality", "strength": 0}], "the strength of jpeg_quality should be greater"),
        (["rotation", "random_resized_crop"], "random_resized_crop stands in place 2"),
        ([{"name": "random_resized_crop", "probability": 0.5}], "its probability is 1, not 0.5"),
        ([{"name": ""}], "a step without a name"),
        ([{"probability": 0.5}], "augment.steps field required"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(steps, words):
    with pytest.raises(RecipeError) as told:
        Recipe.from_mapping({"augment.steps": steps})
    assert words in str(told.value)
    assert replace(Augmentation(), steps=()) == Augmentation()
