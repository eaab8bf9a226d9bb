"""`fast_cnn`: its contract, what whitening does to real patches, and the mirror image in its answer."""

from __future__ import annotations

import pytest
import torch

from saccade.errors import ModelError
from saccade.models import build_model, rebuild
from saccade.models.fast_cnn import ShiftNorm, fast_cnn, whitening_directions
from saccade.testing import check_backbone


def natural_images(count: int = 40, side: int = 32, *, gray: bool = False) -> torch.Tensor:
    """Smooth colour noise, whose neighbouring pixels agree as those of photographs do."""
    noise = torch.randn(
        count, 1 if gray else 3, side + 4, side + 4, generator=torch.Generator().manual_seed(3)
    )
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1) * 5
    return smooth.expand(-1, 3, -1, -1).contiguous()


@pytest.mark.parametrize(("image_size", "options"), [(28, {"width": 8}), (64, {"width": 8}), (32, {})])
def test_keeps_to_the_contract(image_size: int, options: dict[str, int]) -> None:
    check_backbone(fast_cnn, image_size=image_size, classes=7, export=image_size == 28, **options)


def test_whitened_patches_are_uncorrelated() -> None:
    images = natural_images()
    patches = torch.nn.functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    before = torch.corrcoef(patches.T) - torch.eye(12)
    white = patches @ whitening_directions(images, epsilon=0.0).T
    assert before.abs().max() > 0.5  # else there was nothing to whiten
    assert torch.allclose(torch.cov(white.T), torch.eye(12), atol=1e-3)


def test_gray_images_have_directions_without_variance_and_stay_finite() -> None:
    directions = whitening_directions(natural_images(gray=True))
    assert directions.isfinite().all()
    patches = torch.nn.functional.unfold(natural_images(gray=True), 2)
    assert (directions @ patches).abs().amax(dim=(0, 2))[4:].max() < 1e-3


def test_whitening_is_no_parameter_and_travels_with_the_state() -> None:
    network, other = fast_cnn(3, width=4), fast_cnn(3, width=4)
    network.whitening.whiten(natural_images())
    assert "whitening.weight" not in dict(network.named_parameters())
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.whitening.weight, network.whitening.weight)


def test_norms_learn_a_shift_and_no_scale() -> None:
    norms = [m for m in fast_cnn(3, width=4).modules() if isinstance(m, ShiftNorm)]
    assert len(norms) == 6
    assert all([name for name, _ in norm.named_parameters()] == ["bias"] for norm in norms)


def test_default_size_is_as_documented() -> None:
    network = fast_cnn(10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_971_362
    assert "1,971,362 parameters" in str(fast_cnn.__doc__)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 8}, "at least 9 pixels"),
        ({"width": 2}, "width of fast_cnn must be"),
        ({"weights": "w.safetensors"}, "no pretrained weights"),
    ],
)
def test_says_what_it_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        fast_cnn(3, **options)  # type: ignore[arg-type]


def test_flip_answers_the_same_for_an_image_and_its_mirror_image() -> None:
    built = build_model("fast_cnn", 3, image_size=28, options={"width": 4})
    images = natural_images(5, 28)
    network = built.module.eval()
    with torch.no_grad():
        plain = network(images)
        network.flip = True
        assert torch.allclose(network(images), network(images.flip(-1)), atol=1e-6)
        assert not torch.allclose(network(images), plain, atol=1e-4)
        assert torch.equal(network.train()(images).isfinite(), torch.ones(5, 3, dtype=torch.bool))


def test_rebuild_brings_the_flip_back() -> None:
    built = build_model("fast_cnn", 3, image_size=28, options={"width": 4})
    assert not rebuild(built.architecture).flip
    assert rebuild({**built.architecture, "flip": True}).flip
