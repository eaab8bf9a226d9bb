"""`model.drop_path`: the library's own stochastic depth, or a refusal in words."""

from __future__ import annotations

import pytest
import torch

from saccade.building import build_options, check_buildable
from saccade.errors import ModelError, RecipeError
from saccade.models import build_model
from saccade.recipe import Recipe


def recipe_of(backbone: str, **options: object) -> Recipe:
    values = {"model.backbone": backbone, "model.pretrained": False, "model.drop_path": 0.4}
    return Recipe.from_mapping({**values, **options})


@pytest.mark.parametrize("backbone", ["timm/test_efficientnet", "timm/test_vit"])
def test_blocks_are_skipped_in_training_only(backbone: str) -> None:
    options = build_options(recipe_of(backbone))
    assert options == {"drop_path_rate": 0.4}
    network = build_model(backbone, 3, pretrained=False, dropout=0.0, options=options).module
    rates = [m.drop_prob for m in network.modules() if type(m).__name__ == "DropPath"]
    assert rates
    assert rates == sorted(rates)
    images = torch.randn(4, 3, 160, 160)
    network.eval()
    assert torch.equal(network(images), network(images))


def test_torchvision_calls_it_otherwise() -> None:
    assert build_options(recipe_of("torchvision/efficientnet_b0")) == {"stochastic_depth_prob": 0.4}


def test_without_it_options_are_as_they_were() -> None:
    recipe = Recipe.from_mapping({"model.backbone": "timm/test_vit", "model.options": {"qk_norm": True}})
    assert build_options(recipe) == {"qk_norm": True}


def test_what_has_no_blocks_refuses_it() -> None:
    with pytest.raises(RecipeError, match="small_cnn has no blocks to skip"):
        check_buildable(recipe_of("small_cnn"))
    with pytest.raises(ModelError, match="drop_path_rate"):
        check_buildable(recipe_of("timm/vgg11"))


def test_said_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model.options sets drop_path_rate as well"):
        build_options(recipe_of("timm/test_vit", **{"model.options": {"drop_path_rate": 0.1}}))
