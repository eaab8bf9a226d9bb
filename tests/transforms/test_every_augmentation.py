"""What holds for every augmentation of the recipe, and the new ones beside independent references."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from saccade.preprocess import Preprocess
from saccade.recipe import POLICIES, AugmentConfig
from saccade.transforms import apply, geometry
from saccade.transforms.appearance import blur, grayscale, jpeg, sharpness
from saccade.transforms.augment import augment, stream
from saccade.transforms.automatic import AUTOMATIC, aug_mix
from saccade.transforms.geometry import affine, as_evaluated, crop, mean_colour, perspective
from saccade.transforms.mix import NO_MIXING, Mixing, mix
from saccade.transforms.strengths import Augmentation

SIZE = 40
PREPROCESS = Preprocess(SIZE, crop_fraction=1.0)
# field -> a strength at which images change, and the one at which nothing may
STRENGTHS: dict[str, tuple[Any, Any]] = {
    "random_resized_crop": (0.3, 1.0),
    "random_crop": (0.25, 0.0),
    "horizontal_flip": (0.5, 0.0),
    "vertical_flip": (0.5, 0.0),
    "rotation": (45.0, 0.0),
    "zoom": (0.3, 0.0),
    "shift": (0.3, 0.0),
    "shear": (20.0, 0.0),
    "perspective": (0.5, 0.0),
    "brightness": (0.5, 0.0),
    "contrast": (0.5, 0.0),
    "saturation": (0.5, 0.0),
    "hue": (0.3, 0.0),
    "grayscale": (0.5, 0.0),
    "sharpness": (1.0, 0.0),
    "blur": (0.1, 0.0),
    "jpeg_quality": (5, 100),
    "cutout": (0.5, 0.0),
}
CASES = [
    *({field: strength} for field, (strength, _) in STRENGTHS.items()),
    *({"automatic": name} for name in AUTOMATIC),
    *(POLICIES[name] for name in POLICIES if name != "none"),
]
FILL_MODES = {  # mode -> numpy.pad's, scipy.ndimage's
    "constant": ("constant", "grid-constant"),
    "nearest": ("edge", "nearest"),
    "reflect": ("symmetric", "reflect"),
    "wrap": ("wrap", "grid-wrap"),
}


def photo(height: int = 52, width: int = 60) -> torch.Tensor:
    """Smooth blobs of colour with some noise."""
    rng = np.random.default_rng(5)
    blobs = torch.from_numpy(rng.integers(0, 256, (1, 3, 6, 7)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic")[0]
    noise = torch.from_numpy(rng.normal(0, 6, (3, height, width)).astype(np.float32))
    return (smooth + noise).round().clamp(0, 255).to(torch.uint8)


def square() -> torch.Tensor:
    return as_evaluated(photo(), PREPROCESS)


def draws(strength: Augmentation, image: torch.Tensor, seed: int = 3) -> list[torch.Tensor]:
    return [
        augment(image, strength, seed=seed, epoch=epoch, index=4, preprocess=PREPROCESS) for epoch in range(6)
    ]


def test_every_augmentation_is_looked_at():
    manners = {"crop_border", "alternate_flip", "fill_mode", "fill_colour", "extra", "automatic", "steps"}
    mixed = {"mix_up", "cut_mix", "mix_switch", "mix_until"}
    assert {*STRENGTHS, *manners, *mixed, "policy"} == set(AugmentConfig.model_fields)
    assert len(CASES) == 18 + 4 + 7


@pytest.mark.parametrize("strengths", CASES, ids=str)
def test_the_same_seed_gives_the_same_image_of_the_same_form(strengths):
    image = photo()
    before, state = image.clone(), torch.random.get_rng_state()
    strength = Augmentation(**strengths)
    results = draws(strength, image)
    assert all(map(torch.equal, results, draws(strength, image)))
    assert all(result.shape == (3, SIZE, SIZE) and result.dtype == torch.uint8 for result in results)
    assert any(not torch.equal(result, as_evaluated(image, PREPROCESS)) for result in results)
    others = draws(strength, image, seed=4)
    assert any(not torch.equal(*pair) for pair in zip(results, others, strict=True))
    assert torch.equal(image, before)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("field", STRENGTHS)
def test_strength_or_probability_0_is_the_identity_bit_for_bit(field):
    _, off = STRENGTHS[field]
    for result in draws(Augmentation(**{field: off}), photo()):
        assert torch.equal(result, as_evaluated(photo(), PREPROCESS))


@pytest.mark.parametrize("strengths", CASES, ids=str)
def test_extreme_pixels_stay_in_their_range(strengths):
    """A value that leaves 0 .. 255 would come back at the other end of uint8."""
    noise = 255 * torch.randint(0, 2, (3, 52, 60), generator=torch.Generator().manual_seed(0))
    for image in (noise, torch.full_like(noise, 255), torch.zeros_like(noise)):
        for result in draws(Augmentation(**strengths), image.to(torch.uint8)):
            assert result.shape == (3, SIZE, SIZE)
    turns_over = {"auto_augment", "rand_augment", "trivial_augment", "aug_mix"}
    if strengths.get("automatic") not in turns_over and not strengths.get("cutout"):
        white = draws(
            Augmentation(**{"fill_mode": "nearest", **strengths}), torch.full_like(noise, 255).to(torch.uint8)
        )
        least = 255 * (1 - strengths.get("brightness", 0)) - 2
        border = 100 if strengths.get("random_crop") else 255  # may be the mean colour
        assert min(int(result.min()) for result in white) >= min(least, border)


@pytest.mark.parametrize("strengths", CASES, ids=str)
def test_evaluation_is_never_touched(strengths, monkeypatch):
    """Its input is the same bits whatever the recipe says, and no random step can be reached from it."""
    before = apply.to_input(photo().permute(1, 2, 0).numpy(), PREPROCESS)
    for module, name in ((geometry, "random_box"), (geometry, "_moved")):
        monkeypatch.setattr(module, name, None)
    assert torch.equal(before, apply.to_input(photo().permute(1, 2, 0).numpy(), PREPROCESS))
    assert not {"seed", "rng", "augmentation"} & set(apply.to_input.__annotations__)


# -- fill modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", FILL_MODES)
def test_a_padded_crop_is_a_window_of_numpys_pad(mode):
    numpy_mode, _ = FILL_MODES[mode]
    strength = Augmentation(random_crop=0.25, fill_mode=mode, fill_colour=(9, 130, 250))
    border, image = round(0.25 * SIZE), square().numpy()
    given = {"constant_values": 0} if mode == "constant" else {}
    padded = np.stack(
        [
            np.pad(plane, border, mode=numpy_mode, **({"constant_values": value} if given else {}))
            for plane, value in zip(image, strength.fill_colour, strict=True)
        ]
    )
    windows = {
        padded[:, top : top + SIZE, left : left + SIZE].tobytes(): (top, left)
        for top in range(2 * border + 1)
        for left in range(2 * border + 1)
    }
    found = [crop(square(), strength, PREPROCESS, stream(0, "augment", 0, number)) for number in range(20)]
    places = {windows[result.numpy().tobytes()] for result in found}  # KeyError: it is none of them
    assert len(places) > 10


@pytest.mark.parametrize("mode", FILL_MODES)
@pytest.mark.parametrize("move", ["affine", "perspective"])
def test_what_a_map_uncovers_is_filled_as_scipy_does(mode, move):
    _, scipy_mode = FILL_MODES[mode]
    strength = Augmentation(rotation=170, zoom=0.8, shift=0.9, shear=40, perspective=0.9, fill_mode=mode)
    strength = replace(strength, fill_colour=(9, 130, 250))
    image, seen = square(), []
    original = geometry._moved

    def spy(image: torch.Tensor, grid: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(grid)
        return original(image, grid, *rest)

    step = affine if move == "affine" else perspective
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_moved", spy)
        results = [step(image, strength, PREPROCESS, stream(0, "augment", 0, n)) for n in range(12)]
    outside = 0
    for grid, result in zip(seen, results, strict=True):
        places = ((grid[0].double().numpy() + 1) * SIZE - 1) / 2
        outside += int(((places < 0) | (places > SIZE - 1)).sum())
        expected = [
            scipy.ndimage.map_coordinates(
                plane.astype(np.float64),
                [places[..., 1], places[..., 0]],
                order=1,
                mode=scipy_mode,
                cval=value,
            )
            for plane, value in zip(image.numpy(), strength.fill_colour, strict=True)
        ]
        assert np.abs(np.stack(expected) - result.numpy()).max() < 0.6  # float32 places
    assert outside > 1000


def test_the_mean_colour_and_a_constant_of_it_are_the_same():
    colour = tuple(int(value) for value in mean_colour(PREPROCESS))
    for strengths in ({"rotation": 90.0, "shift": 0.5}, {"perspective": 0.8}, {"random_crop": 0.3}):
        mean = draws(Augmentation(**strengths), photo())
        constant = draws(Augmentation(**strengths, fill_mode="constant", fill_colour=colour), photo())
        assert all(map(torch.equal, mean, constant))


def test_a_crops_own_border_wins_over_the_fill_mode():
    for border in ("mean", "reflect"):
        plain = draws(Augmentation(random_crop=0.25, crop_border=border), photo())
        beside = draws(Augmentation(random_crop=0.25, crop_border=border, fill_mode="wrap"), photo())
        assert all(map(torch.equal, plain, beside))


# -- beside torchvision, scipy and Pillow ------------------------------------------------------------


def test_perspective_is_torchvisions():
    strength = Augmentation(perspective=0.6, fill_mode="constant", fill_colour=(0, 0, 0))
    image = square()
    for number in range(10):
        inwards = stream(0, "augment", number).uniform(0, 0.6, (4, 2)) * SIZE / 2
        ends = [
            [inwards[0][0], inwards[0][1]],
            [SIZE - inwards[1][0], inwards[1][1]],
            [SIZE - inwards[2][0], SIZE - inwards[2][1]],
            [inwards[3][0], SIZE - inwards[3][1]],
        ]
        starts = [[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE]]
        theirs = functional.perspective(image.float(), starts, ends, fill=[0.0, 0.0, 0.0])
        ours = perspective(image, strength, PREPROCESS, stream(0, "augment", number))
        white = perspective(torch.full_like(image, 255), strength, PREPROCESS, stream(0, "augment", number))
        inside = (white == 255).all(0)  # at the edge theirs blends with black twice
        assert inside.float().mean() > 0.1
        assert (theirs - ours.float()).abs()[:, inside].max() < 1.5


def test_blur_is_scipys_gaussian():
    for number in range(10):
        deviation = stream(0, "augment", number).random() * 0.05 * SIZE
        ours = blur(square(), Augmentation(blur=0.05), PREPROCESS, stream(0, "augment", number))
        radius = math.ceil(3 * deviation)
        theirs = scipy.ndimage.gaussian_filter(
            square().numpy().astype(np.float64), deviation, radius=radius, mode="mirror", axes=(1, 2)
        )
        assert np.abs(theirs - ours.numpy()).max() < 0.51


def test_gray_is_pillows_luma():
    gray = grayscale(square(), Augmentation(grayscale=1.0), PREPROCESS, stream(0, "augment", 0)).numpy()
    theirs = np.asarray(Image.fromarray(square().permute(1, 2, 0).numpy()).convert("L")).astype(int)
    assert (gray[0] == gray[1]).all()
    assert (gray[0] == gray[2]).all()
    assert np.abs(gray[0] - theirs).max() <= 1
    drawn = [
        grayscale(square(), Augmentation(grayscale=0.3), PREPROCESS, stream(n, "augment")) for n in range(300)
    ]
    assert 60 < sum(not torch.equal(result, square()) for result in drawn) < 120


def test_jpeg_loses_what_libjpeg_turbo_does_at_that_quality():
    simplejpeg = pytest.importorskip("simplejpeg")
    strength, array = Augmentation(jpeg_quality=10), square().permute(1, 2, 0).contiguous().numpy()
    losses = {}
    for number in range(8):
        quality = int(stream(0, "augment", number).integers(10, 101))
        encoded = simplejpeg.encode_jpeg(array, quality, colorsubsampling="420", fastdct=False)
        theirs = simplejpeg.decode_jpeg(encoded, fastdct=False, fastupsample=False).astype(int)
        ours = jpeg(square(), strength, PREPROCESS, stream(0, "augment", number)).permute(1, 2, 0).numpy()
        losses[quality] = np.abs(ours.astype(int) - array).mean()
        assert losses[quality] == pytest.approx(np.abs(theirs - array).mean(), rel=0.1)
    assert losses[min(losses)] > 2 * losses[max(losses)] > 0


def test_sharpness_is_pillows():
    from PIL import ImageEnhance

    picture = Image.fromarray(square().permute(1, 2, 0).numpy())
    for number in range(6):
        amount = stream(0, "augment", number).uniform(-0.8, 0.8)
        theirs = np.asarray(ImageEnhance.Sharpness(picture).enhance(1 + amount)).astype(int)
        ours = sharpness(square(), Augmentation(sharpness=0.8), PREPROCESS, stream(0, "augment", number))
        assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= 2


def test_aug_mix_is_a_mean_of_chains(monkeypatch):
    """With operations that change nothing it is the image; with black ones as dark as their share."""
    from saccade.transforms import automatic

    image = square()
    for name in automatic.AUGMIX_OPERATIONS:
        monkeypatch.setitem(automatic.OPERATIONS, name, lambda image, m, fill: image)
    for seed in range(5):
        assert torch.equal(aug_mix(image, fill=[0.0] * 3, rng=np.random.default_rng(seed)), image)
    for name in automatic.AUGMIX_OPERATIONS:
        monkeypatch.setitem(automatic.OPERATIONS, name, lambda image, m, fill: torch.zeros_like(image))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.dirichlet([1.0, 1.0, 1.0])
        kept = 1 - rng.beta(1, 1)
        mixed = aug_mix(image, fill=[0.0] * 3, rng=np.random.default_rng(seed))
        assert (mixed.float() - image.float() * kept).abs().max() < 0.51


# -- mixing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("switch", "least", "most"), [(0.0, 0, 0), (0.25, 70, 130), (1.0, 400, 400)])
def test_batches_switch_between_cut_mix_and_mix_up(switch, least, most):
    black_or_white = torch.arange(32).remainder(2).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    cuts = 0
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        alphas = {"mix_up_alpha": 1.0, "cut_mix_alpha": 1.0}
        mixed, _ = mix(black_or_white, torch.eye(32), **alphas, switch=switch, generator=generator)
        cuts += set(mixed.unique().tolist()) <= {0.0, 1.0}  # CutMix blends no pixels
    assert least <= cuts <= most


def test_mixing_ends_at_a_share_of_the_phase_or_after_some_epochs():
    whole = Mixing(mix_up=0.2, cut_mix=1.0)
    assert all(whole.at(epoch / 10, epoch) == whole for epoch in range(10))
    share, epochs = replace(whole, until=0.8), replace(whole, until=3)
    assert [share.at(epoch / 10, epoch).on for epoch in range(10)] == [True] * 8 + [False] * 2
    assert [epochs.at(epoch / 10, epoch).on for epoch in range(10)] == [True] * 3 + [False] * 7
    assert not NO_MIXING.on
