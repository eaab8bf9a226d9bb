"""What an augmentation and a batch mixing must keep to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saccade.transforms.mix import soft_targets

Augment = Callable[[Tensor, np.random.Generator], Tensor]
Mixing = Callable[..., tuple[Tensor, Tensor]]

DRAWS = 20


def check_augmentation(augment: Augment, *, off: Augment | None = None, side: int = 32) -> None:
    """`augment(image, rng)` on uint8 (3, side, side): shape, type and input kept, same seed same image.

    Also: torch's global generator stays unused, some draw changes something, and `off` (the same with
    probability or strength 0) is the identity. Raises AssertionError.

    >>> check_augmentation(lambda image, rng: image.flip(-1) if rng.random() < 0.5 else image.clone())
    """
    image = _sample(side)
    before, state = image.clone(), torch.random.get_rng_state()
    outputs = [augment(image, np.random.default_rng(seed)) for seed in range(DRAWS)]
    for output in outputs:
        assert output.shape == image.shape, f"the shape {tuple(image.shape)} became {tuple(output.shape)}"
        assert output.dtype == torch.uint8, f"uint8 became {output.dtype}"
    assert torch.equal(image, before), "the input was changed in place"
    assert torch.equal(torch.random.get_rng_state(), state), "torch's global generator was used"
    again = [augment(image, np.random.default_rng(seed)) for seed in range(DRAWS)]
    assert all(map(torch.equal, outputs, again)), "the same seed gave another image"
    assert any(not torch.equal(image, output) for output in outputs), f"nothing changed in {DRAWS} draws"
    if off is not None:
        unchanged = [torch.equal(image, off(image, np.random.default_rng(seed))) for seed in range(DRAWS)]
        assert all(unchanged), "probability or strength 0 changed the image"


def check_mixing(mixing: Mixing, *, classes: int = 4, batch: int = 6, side: int = 16) -> None:
    """`mixing(images, targets, *, alpha, generator)`: targets sum to 1, alpha 0 is identity, input untouched.

    Also: shapes kept, values within the batch's range, same generator state same result. Raises
    AssertionError.

    >>> from saccade.transforms.mix import mix_up
    >>> check_mixing(mix_up)
    """
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    targets = soft_targets(torch.arange(batch) % classes, classes)
    before = images.clone(), targets.clone()
    changed = False
    for seed in range(DRAWS):
        first, second = (_mixed(mixing, images, targets, seed) for _ in range(2))
        _check_mixed(first, images, targets)
        assert torch.equal(first[0], second[0]), "the same generator state gave other images"
        assert torch.equal(first[1], second[1]), "the same generator state gave other targets"
        changed = changed or not torch.equal(first[0], images)
    assert torch.equal(images, before[0]), "the images were changed in place"
    assert torch.equal(targets, before[1]), "the targets were changed in place"
    assert changed, f"nothing was mixed in {DRAWS} draws"
    off = mixing(images, targets, alpha=0.0, generator=torch.Generator())
    assert torch.equal(off[0], images), "alpha 0 changed the images"
    assert torch.equal(off[1], targets), "alpha 0 changed the targets"


def _mixed(mixing: Mixing, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return mixing(images, targets, alpha=1.0, generator=torch.Generator().manual_seed(seed))


def _check_mixed(mixed: tuple[Tensor, Tensor], images: Tensor, targets: Tensor) -> None:
    new_images, new_targets = mixed
    assert new_images.shape == images.shape, f"the images' shape became {tuple(new_images.shape)}"
    assert new_targets.shape == targets.shape, f"the targets' shape became {tuple(new_targets.shape)}"
    assert torch.allclose(new_targets.sum(1), torch.ones(len(targets))), "targets do not sum to 1"
    assert new_targets.min() >= 0, "a target is negative"
    slack = 1e-5
    assert new_images.min() >= images.min() - slack, "a value lies below all of the batch"
    assert new_images.max() <= images.max() + slack, "a value lies above all of the batch"


def _sample(side: int) -> Tensor:
    """A smooth picture with some noise, so that flips, turns and colours all show."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(20, 220, side)
    planes = [
        ramp[None, :] + 0 * ramp[:, None],
        ramp[:, None] + 0 * ramp[None, :],
        (ramp[:, None] + ramp) / 2,
    ]
    noisy = np.stack(planes) + rng.integers(-10, 11, (3, side, side))
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
