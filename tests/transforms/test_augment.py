from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from saccade.preprocess import Preprocess
from saccade.recipe import POLICIES, AugmentConfig
from saccade.transforms.augment import PURPOSES, STEPS, augment, stream
from saccade.transforms.geometry import CROP_TRIES, as_evaluated, mean_colour, random_box
from saccade.transforms.strengths import Augmentation

SIZE = 32
PREPROCESS = Preprocess(SIZE)
# each field at a strength at which something must change, for every image
SINGLE = {
    "random_resized_crop": 0.3,
    "random_crop": 0.25,
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotation": 45.0,
    "zoom": 0.3,
    "shift": 0.3,
    "shear": 20.0,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.3,
    "perspective": 0.5,
    "grayscale": 1.0,
    "sharpness": 1.0,
    "blur": 0.1,
    "jpeg_quality": 5,
    "automatic": "rand_augment",
    "cutout": 1.0,
}


def photo(height: int = 48, width: int = 64) -> torch.Tensor:
    """Red rises to the right, green downwards, blue is noise."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(3).integers(60, 200, (height, width))
    planes = np.stack([255 * x / (width - 1), 255 * y / (height - 1), noise])
    return torch.from_numpy(planes.astype(np.uint8))


def draw(augmentation: Augmentation, image: torch.Tensor | None = None, **key: int) -> torch.Tensor:
    arguments = {"seed": 0, "epoch": 0, "index": 0, **key}
    picture = photo() if image is None else image
    return augment(picture, augmentation, preprocess=PREPROCESS, **arguments)


def test_every_field_of_the_recipe_is_known_here():
    fields = set(AugmentConfig.model_fields) - {"policy"}
    assert set(Augmentation().as_json()) == fields
    assert set(SINGLE) == fields - {
        "mix_up",
        "cut_mix",
        "mix_switch",
        "mix_until",
        "crop_border",
        "fill_mode",
        "fill_colour",
        "alternate_flip",
        "extra",
        "steps",
    }  # how, or by others
    assert set(POLICIES) == set(get_args(AugmentConfig.model_fields["policy"].annotation))
    assert len(POLICIES) == 8


def test_a_field_overrides_its_part_of_the_policy():
    config = AugmentConfig(policy="strong", rotation=0, hue=0.1)
    resolved = Augmentation.from_config(config)
    assert resolved.rotation == 0
    assert resolved.hue == 0.1
    assert resolved == replace(Augmentation(**POLICIES["strong"]), rotation=0, hue=0.1)


def test_policies_grow_stronger():
    spread = []
    for policy in ("none", "light", "medium", "strong"):
        chosen = Augmentation.from_config(AugmentConfig(policy=policy))
        draws = torch.stack([draw(chosen, epoch=epoch) for epoch in range(30)]).float()
        spread.append(draws.std(0).mean().item())
    assert spread[0] == 0
    assert spread == sorted(spread)
    assert len(set(spread)) == 4


def test_nothing_switched_on_is_the_evaluation_geometry():
    for mode in ("crop", "pad", "squash"):
        preprocess = Preprocess(SIZE, resize=mode)
        result = augment(photo(), Augmentation(), seed=1, epoch=2, index=3, preprocess=preprocess)
        assert torch.equal(result, as_evaluated(photo(), preprocess))


@pytest.mark.parametrize("field", SINGLE)
def test_each_field_alone_changes_the_image_and_keeps_its_form(field):
    image = photo()
    before, state = image.clone(), torch.random.get_rng_state()
    plain = draw(Augmentation())
    results = [draw(Augmentation(**{field: SINGLE[field]}), image, epoch=epoch) for epoch in range(8)]
    assert all(result.shape == (3, SIZE, SIZE) and result.dtype == torch.uint8 for result in results)
    assert sum(not torch.equal(result, plain) for result in results) >= 6
    assert torch.equal(image, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_draw_is_a_function_of_seed_epoch_and_index():
    strong = Augmentation.from_config(AugmentConfig(policy="strong"))
    first = draw(strong, seed=5, epoch=6, index=7)
    torch.manual_seed(99)
    np.random.seed(99)
    for other in range(3):
        draw(strong, index=other)
    assert torch.equal(first, draw(strong, seed=5, epoch=6, index=7))
    for change in ({"seed": 6}, {"epoch": 7}, {"index": 8}):
        assert not torch.equal(first, draw(strong, **{"seed": 5, "epoch": 6, "index": 7, **change}))


def test_streams_for_different_purposes_differ():
    assert stream(1, "order", 2, 3).random() != stream(1, "augment", 2, 3).random()


@pytest.mark.parametrize("words", [(0, 0), (7, 2**32 - 1), (2**32, 5), (2**70, 2**40)])
def test_streams_are_numpys_own(words):
    seed, index = words
    expected = np.random.default_rng([seed, PURPOSES["augment"], 3, index]).random(5)
    assert stream(seed, "augment", 3, index).random(5).tolist() == expected.tolist()


def test_random_boxes_are_drawn_as_they_always_were():
    def box(height, width, area, ratio, rng):
        areas = rng.uniform(*area, CROP_TRIES) * height * width
        ratios = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), CROP_TRIES))
        sides = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], axis=1)
        boxes = [(max(1, round(h)), max(1, round(w))) for h, w in sides.tolist()]
        fitting = [box for box in boxes if box[0] <= height and box[1] <= width]
        h, w = fitting[0] if fitting else (min(boxes[0][0], height), min(boxes[0][1], width))
        down, right = rng.random(2)
        return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w

    cut, whole = 0, 0
    for index in range(300):
        for height, width, ratio in ((320, 427, (3 / 4, 4 / 3)), (9, 150, (0.3, 1 / 0.3))):
            arguments = (height, width, (0.08, 1.0), ratio)
            found = random_box(*arguments, stream(1, "augment", index))
            assert found == box(*arguments, stream(1, "augment", index))
            cut += found[2] == 9
            whole += found[2] < 9
    assert cut > 20  # none of the tries fitted
    assert whole > 20


def test_switching_a_step_on_moves_no_other_draw():
    base = Augmentation(random_resized_crop=0.4, rotation=20, brightness=0.4)
    for epoch in range(5):
        plain = draw(base, epoch=epoch)
        covered = draw(replace(base, cutout=1.0), epoch=epoch)
        fill = torch.tensor(mean_colour(PREPROCESS), dtype=torch.uint8).view(3, 1, 1)
        rectangle = (covered == fill).all(0)
        assert torch.equal(plain[:, ~rectangle], covered[:, ~rectangle])
        assert 0 < rectangle.float().mean() < 0.9


def test_flips_mirror():
    plain = draw(Augmentation())
    assert torch.equal(draw(Augmentation(horizontal_flip=1)), plain.flip(2))
    assert torch.equal(draw(Augmentation(vertical_flip=1)), plain.flip(1))
    halves = [torch.equal(draw(Augmentation(horizontal_flip=0.5), epoch=e), plain) for e in range(200)]
    assert 70 < sum(halves) < 130


def test_random_resized_crop_keeps_at_least_its_share_of_the_area():
    image = photo(96, 96)
    shares = []
    for epoch in range(200):
        result = draw(Augmentation(random_resized_crop=0.25), image, epoch=epoch).float()
        width = (result[0].max() - result[0].min()) / 255
        height = (result[1].max() - result[1].min()) / 255
        shares.append(float(width * height))
    assert min(shares) > 0.2  # antialiasing trims the ends of the ramps
    assert min(shares) < 0.35
    assert max(shares) > 0.85


def test_random_crop_shifts_by_at_most_its_padding():
    fill = torch.tensor(mean_colour(PREPROCESS), dtype=torch.uint8).view(3, 1, 1)
    borders = []
    for epoch in range(60):
        result = draw(Augmentation(random_crop=0.25), epoch=epoch)
        columns = (result == fill).all(0).all(0)
        borders.append(int(columns.sum()))
    assert max(borders) == 8  # a quarter of 32
    assert min(borders) == 0


def test_an_affine_map_uncovers_the_mean_colour():
    image = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    turned = draw(Augmentation(rotation=180), image, epoch=3)
    colours = {tuple(pixel.tolist()) for pixel in turned.flatten(1).T}
    assert (
        min(min(colour) for colour in colours) >= min(mean_colour(PREPROCESS)) - 1
    )  # no dark line at the edge
    assert tuple(int(value) for value in mean_colour(PREPROCESS)) in colours
    assert (255, 255, 255) in colours


def test_shift_moves_by_at_most_its_share():
    image = torch.zeros((3, SIZE, SIZE), dtype=torch.uint8)
    image[:, 15:17, 15:17] = 255
    preprocess = Preprocess(SIZE, crop_fraction=1.0)
    moves = []
    for epoch in range(100):
        result = augment(image, Augmentation(shift=0.25), seed=0, epoch=epoch, index=0, preprocess=preprocess)
        y, x = torch.nonzero(result.float().mean(0) > 200).float().mean(0).tolist()
        moves += [abs(y - 15.5), abs(x - 15.5)]
    assert 6 < max(moves) <= 8


def test_brightness_stays_within_its_range():
    image = torch.full((3, SIZE, SIZE), 100, dtype=torch.uint8)
    levels = [
        draw(Augmentation(brightness=0.2), image, epoch=epoch).float().mean().item() for epoch in range(200)
    ]
    assert 79 <= min(levels) < 83
    assert 117 < max(levels) <= 121


@pytest.mark.parametrize("mode", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 60), (60, 3), (200, 10)])
def test_odd_shapes_pass(mode, height, width):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    strong = Augmentation.from_config(AugmentConfig(policy="strong"))
    for epoch in range(5):
        preprocess = Preprocess(SIZE, resize=mode)
        result = augment(image, strong, seed=0, epoch=epoch, index=0, preprocess=preprocess)
        assert result.shape == (3, SIZE, SIZE)


def test_the_steps_stand_in_their_order():
    first, last = ["crop", "automatic", "flip", "affine", "perspective"], ["jpeg", "cutout", "extra"]
    assert list(STEPS) == [*first, "colour", "grayscale", "sharpness", "blur", *last]


def test_a_steps_number_is_a_part_of_its_draws_and_never_changes():
    old = ["crop", "automatic", "flip", "affine", "colour", "cutout", "extra"]
    new = ["perspective", "grayscale", "sharpness", "blur", "jpeg"]
    assert [STEPS[name].number for name in old + new] == list(range(12))
    assert len(STEPS) == 12
