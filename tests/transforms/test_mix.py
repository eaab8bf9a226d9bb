from __future__ import annotations

import pytest
import torch

from saccade.transforms.mix import MIXINGS, beta, cut_mix, mix, mix_up, soft_targets


def batch(count: int = 6, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i has the constant value i, so a mixture can be read off its pixels."""
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, 16, 16).clone()
    return images, soft_targets(torch.arange(count) % classes, classes)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_soft_targets_spread_the_smoothing_over_all_classes():
    smooth = soft_targets(torch.tensor([1]), 4, smoothing=0.2)
    assert smooth.tolist()[0] == pytest.approx([0.05, 0.85, 0.05, 0.05])


def test_mix_up_blends_images_and_targets_with_one_share():
    images, _ = batch(4)
    targets = torch.eye(4)
    mixed, soft = mix_up(images, targets, alpha=1.0, generator=seeded(3))
    values = mixed[:, 0, 0, 0]
    assert torch.allclose(values, soft @ torch.arange(4.0))  # the image's value is the mean of its sources
    assert len({round(float(row.max()), 4) for row in soft if row.max() < 1}) == 1


def test_cut_mix_weighs_targets_by_the_area_that_is_left():
    images, _ = batch(5)
    targets = torch.eye(5)
    for seed in range(20):
        mixed, soft = cut_mix(images, targets, alpha=1.0, generator=seeded(seed))
        for row, (image, target) in enumerate(zip(mixed, soft, strict=True)):
            assert float((image[0] == row).float().mean()) == pytest.approx(float(target[row]), abs=1e-6)


def test_alpha_decides_how_much_is_mixed():
    gentle = [beta(0.1, seeded(seed)) for seed in range(300)]
    even = [beta(10.0, seeded(seed)) for seed in range(300)]
    assert sum(min(share, 1 - share) < 0.05 for share in gentle) > 150
    assert sum(0.25 < share < 0.75 for share in even) > 250


def test_with_both_on_each_batch_draws_one():
    images, targets = batch()
    kinds = set()
    for seed in range(30):
        mixed, _ = mix(images, targets, mix_up_alpha=1, cut_mix_alpha=1, generator=seeded(seed))
        whole = bool((mixed == mixed.round()).all())  # a pasted rectangle keeps whole numbers
        kinds.add("cut" if whole else "blend")
    assert kinds == {"cut", "blend"}


def test_with_both_off_nothing_is_drawn():
    images, targets = batch()
    generator = seeded(1)
    state = generator.get_state()
    mixed, soft = mix(images, targets, mix_up_alpha=0, cut_mix_alpha=0, generator=generator)
    assert mixed is images
    assert soft is targets
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("name", MIXINGS)
def test_a_batch_of_one_is_left_alone(name):
    images, targets = batch(1)
    mixed, soft = MIXINGS[name](images, targets, alpha=1.0, generator=seeded(0))
    assert torch.equal(mixed, images)
    assert torch.equal(soft, targets)
