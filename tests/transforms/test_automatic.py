"""torchvision's own classes are the independent reference: same pairs, same ranges, same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from saccade.transforms import automatic
from saccade.transforms.automatic import AUTOMATIC, OPERATIONS, RAND_AUGMENT_OPERATIONS, SIGNED

THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "colour": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}
FILL = [120.0, 110.0, 100.0]


def photo(side: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(1)
    coarse = torch.from_numpy(rng.integers(20, 235, (1, 3, 5, 5)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0]
    return smooth.to(torch.uint8)


def test_every_operation_is_compared():
    assert set(THEIRS) == set(OPERATIONS)
    assert len(RAND_AUGMENT_OPERATIONS) == 14


def reference(space: str, name: str, level: int, bins: int, side: int) -> float:
    make, signed = getattr(v2, space)._AUGMENTATION_SPACE[THEIRS[name]]
    assert signed == (name in SIGNED)
    magnitudes = make(bins, side, side)
    return 0.0 if magnitudes is None else float(magnitudes[level])


@pytest.mark.parametrize("name", THEIRS)
def test_moderate_ranges_are_torchvisions(name):
    for level in range(10):
        if name != "identity":
            expected = reference("AutoAugment", name, level, 10, 40)
            assert used_magnitude(name, automatic._moderate(name, level / 9, 40)) == pytest.approx(expected)
    if name != "invert":
        expected = reference("RandAugment", name, 9, 31, 40)
        assert used_magnitude(name, automatic._moderate(name, 9 / 30, 40)) == pytest.approx(expected)


@pytest.mark.parametrize("name", RAND_AUGMENT_OPERATIONS)
def test_wide_ranges_are_torchvisions(name):
    for level in (0, 7, 15, 30):
        expected = reference("TrivialAugmentWide", name, level, 31, 40)
        assert used_magnitude(name, automatic._wide(name, level / 30)) == pytest.approx(expected, abs=1e-6)


def used_magnitude(name: str, magnitude: float) -> float:
    return 0.0 if name in ("identity", "autocontrast", "equalize", "invert") else magnitude


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("level", [0.2, 0.9])
def test_pixels_are_torchvisions(name, level):
    magnitude = automatic._moderate(name, level, 40)
    theirs = v2.AutoAugment(fill=FILL)._apply_image_or_video_transform(
        photo(),
        THEIRS[name],
        magnitude,
        interpolation=v2.InterpolationMode.NEAREST,
        fill={torch.Tensor: FILL},
    )
    assert torch.equal(OPERATIONS[name](photo(), magnitude, FILL), theirs)


def test_the_25_pairs_are_the_published_ones():
    names = {theirs: ours for ours, theirs in THEIRS.items()}
    published = [
        [(names[name], chance, level or 0) for name, chance, level in pair]
        for pair in v2.AutoAugment()._policies
    ]
    ours = automatic._parsed_pairs()
    assert len(ours) == 25
    assert sorted(ours) == sorted(published)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_policies_use_many_operations_and_both_signs(name):
    results = {
        AUTOMATIC[name](photo(), fill=FILL, rng=np.random.default_rng(seed)).numpy().tobytes()
        for seed in range(60)
    }
    assert len(results) > 15
