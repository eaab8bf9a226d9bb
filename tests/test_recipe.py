"""The recipe is strict, frozen, and survives TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.cli.flags import chosen_recipe
from saccade.errors import RecipeError
from saccade.recipe import (
    DEFAULT_BACKBONE,
    SHORT_FLAGS,
    AugmentConfig,
    Recipe,
    differing_keys,
    field_table,
    merged_recipe,
    nest,
    parse_toml,
    read_recipe_file,
    recipe_as_markdown,
)


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'train\.epoch'\nhint: did you mean 'epochs'\?"):
        Recipe.from_mapping({"train.epoch": 3})
    with pytest.raises(RecipeError, match=r"unknown key 'train\.learning_rat'\nhint: did you mean 'lr'"):
        Recipe.from_mapping({"train.learning_rat": 3})
    with pytest.raises(RecipeError, match=r"unknown key 'backbone'\nhint: did you mean 'model\.backbone'\?"):
        Recipe.from_toml('backbone = "resnet18"')


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_mapping({"train.epochs": 0, "data.resize": "stretch", "trian.lr": 1})
    first, *lines = caught.value.args
    assert first == "recipe: 3 fields are not valid"
    assert [line.partition("; ")[0] for line in lines] == [
        "data.resize should be 'crop', 'pad' or 'squash' (or 'auto'): 'stretch'",
        "train.epochs should be greater than or equal to 1 (or 'auto'): 0",
        "unknown key 'trian'",
    ]


def test_validation_and_test_must_leave_images_for_training() -> None:
    with pytest.raises(RecipeError, match=r": 0\.6 \+ 0\.5\nhint: .* the rest of the images go to training"):
        Recipe.from_mapping({"split.validation": 0.6, "split.test": 0.5})


def test_promise_5_a_large_fine_tuning_rate_is_refused() -> None:
    with pytest.raises(RecipeError, match="more than a tenth"):
        Recipe.from_mapping({"train.lr": 0.001, "train.finetune_lr": 0.00011})
    assert Recipe.from_mapping({"train.lr": 0.003, "train.finetune_lr": 0.0003})
    assert Recipe.from_mapping({"train.finetune_lr": 0.5, "train.allow_large_finetune_lr": True})


def test_the_default_fine_tuning_rate_is_a_hundredth() -> None:
    assert Recipe.from_mapping({"train.lr": 0.02}).finetune_learning_rate == pytest.approx(0.0002)


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        Recipe().train.epochs = 3  # type: ignore[misc]


def test_flags_win_over_the_file_and_the_file_over_defaults() -> None:
    file = parse_toml(
        'seed = 7\n[train]\nepochs = 5\nlr = 0.002\n[model.options]\npad_type = "same"', where="r.toml"
    )
    recipe = merged_recipe({"train.epochs": "9"}, file, where="test")
    assert (recipe.train.epochs, recipe.train.lr, recipe.seed) == (9, 0.002, 7)
    assert recipe.train.batch_size == Recipe().train.batch_size
    assert recipe.model.options == {"pad_type": "same"}


def test_broken_toml_names_the_file() -> None:
    with pytest.raises(RecipeError, match=r"my\.toml: not valid TOML"):
        parse_toml("[train", where="my.toml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("5m", 300),
        ("1.5 min", 90),
        ("1h", 3600),
        ("45", 45),
        (0.5, 0.5),
        ("0", 0),
        ("Auto", "auto"),
    ],
)
def test_a_time_has_a_unit_or_is_in_seconds(text: Any, seconds: Any) -> None:
    recipe = Recipe.from_mapping({"train.checkpoint_every": text})
    assert recipe.train.checkpoint_every == seconds
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize("text", ["soon", "5 days", "-1", "s", True])
def test_what_is_no_time_is_refused_with_how_one_is_written(text: Any) -> None:
    with pytest.raises(RecipeError, match=r"checkpoint_every is no time: .*\nhint: .*60s, 5m"):
        Recipe.from_mapping({"train.checkpoint_every": text})


def test_differing_keys_name_both_values() -> None:
    other = Recipe.from_mapping({"train.batch_size": 3})
    assert differing_keys(Recipe(), other) == {"train.batch_size": (32, 3)}


def test_who_gives_epochs_means_the_classic_two_phases() -> None:
    assert Recipe().train.method == "auto"
    for key, value in (("epochs", 3), ("head_epochs", 3), ("lr", 1e-3), ("unfreeze", "all")):
        assert Recipe.from_mapping({f"train.{key}": value}).train.method == "finetune"
    assert Recipe.from_mapping({"train.epochs": 3, "train.method": "auto"}).train.method == "auto"
    assert Recipe.from_mapping({"train.batch_size": 3}).train.method == "auto"


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ({"train.method": "head", "train.epochs": "3"}, "train.epochs = 3 would"),
        ({"train.method": "head", "train.unfreeze": "all"}, "train.unfreeze = all would"),
        (
            {"train.method": "head", "train.head_epochs": "2", "train.lr": "1e-3"},
            "epochs = 2, train.lr = ",
        ),
        ({"train.method": "full", "train.unfreeze": "2"}, "train.unfreeze = 2 would"),
        ({"train.method": "auto", "train.head_epochs": "5"}, "train.head_epochs = 5 would"),
    ],
)
def test_what_the_method_passes_over_is_refused(flags: dict[str, str], idle: str) -> None:
    with pytest.raises(RecipeError, match=rf"{idle}.*\nhint: leave that out, or use --method finetune"):
        merged_recipe(flags, {}, where="flags")
    with pytest.raises(RecipeError, match=idle):
        merged_recipe({}, nest(flags), where="r.toml")
    with pytest.raises(RecipeError, match=idle):
        merged_recipe({"train.method": flags.pop("train.method")}, nest(flags), where="r.toml")


def test_what_the_method_uses_and_a_runs_own_recipe_are_taken() -> None:
    full = {"train.method": "full", "train.epochs": "3", "train.unfreeze": "all", "train.finetune_lr": "1e-4"}
    assert merged_recipe(full, {}, where="flags").train.epochs == 3
    every = {"train.method": "finetune", "train.epochs": "3", "train.unfreeze": "1", "train.head_epochs": "1"}
    assert merged_recipe(every, {}, where="flags").train.unfreeze == "1"
    stored = parse_toml(Recipe.from_mapping({"train.epochs": 3}).to_toml(), where="recipe.toml")
    assert merged_recipe({"train.method": "head"}, stored, where="flags").train.method == "head"
    with pytest.raises(RecipeError, match=r"train\.epochs = 4 would have no effect"):
        merged_recipe({"train.method": "head", "train.epochs": "4"}, stored, where="flags")


@pytest.mark.parametrize(
    ("images", "batch"), [(20, 16), (319, 16), (320, 32), (1000, 64), (4999, 256), (5000, 500), (50_000, 500)]
)
def test_the_batch_of_fast_cnn_leaves_ten_steps_in_an_epoch(images: int, batch: int) -> None:
    recipe = Recipe.from_mapping({"model.backbone": "fast_cnn"})
    settled = recipe.with_batch_size(images)
    assert settled.batch_size == batch
    assert differing_keys(recipe, settled) == {"train.batch_size": ("auto", batch)}
    assert recipe.replaced(train__batch_size=500).with_batch_size(images).batch_size == 500
    assert Recipe().replaced(train__batch_size="auto").with_batch_size(images).batch_size == 32


def test_every_field_is_documented_and_every_short_flag_names_a_field() -> None:
    table = field_table()
    assert len(table) > 60
    assert [key for key, _, _, text in table if len(text) < 10] == []
    assert set(SHORT_FLAGS.values()) <= {key for key, *_ in table}


def test_the_page_on_the_recipe_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "recipe.md"
    assert page.read_text("utf-8") == recipe_as_markdown(), "run `make docs`"


def test_the_example_on_the_page_is_a_recipe() -> None:
    text = recipe_as_markdown().partition("```toml\n")[2].partition("```")[0]
    recipe = merged_recipe({}, parse_toml(text, where="page"), where="page")
    assert recipe.given == {"seed", "augment.policy", "augment.vertical_flip", "train.method", "train.epochs"}


def test_every_augmentation_of_the_policies_can_be_set_alone() -> None:
    assert len(AugmentConfig.model_fields.keys() - {"policy", "extra", "steps"}) == 27


@given(
    seed=st.integers(0, 2**31),
    epochs=st.integers(1, 1000),
    validation=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
    group=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
    options=st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers() | st.booleans() | st.text()
    ),
    lr=st.just("auto") | st.floats(1e-6, 10),
    image_size=st.just("auto") | st.integers(1, 4096),
)
def test_a_recipe_survives_toml(
    seed: int,
    epochs: int,
    validation: float,
    test: float,
    group: str,
    options: dict[str, object],
    lr: float | str,
    image_size: int | str,
) -> None:
    bounded = {k: v for k, v in options.items() if not isinstance(v, int) or abs(v) < 2**63}
    recipe = Recipe.from_mapping(
        {
            "seed": seed,
            "train": {"epochs": epochs, "lr": lr},
            "split": {"validation": validation, "test": test, "group": group},
            "model": {"options": bounded},
            "data": {"image_size": image_size},
        }
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_value_where_a_section_belongs_is_said_in_plain_words() -> None:
    with pytest.raises(
        RecipeError, match=r"train is a section, not a value: 3\nhint: write its keys below \[train\]"
    ):
        Recipe.from_toml("train = 3")


@pytest.mark.parametrize("backbone", ["small_cnn", "fast_cnn"])
@pytest.mark.parametrize(
    "more", [{}, {"train.epochs": 3}, {"train.optimizer": "sgd"}, {"data.image_size": 32}]
)
def test_a_backbone_of_ours_is_the_same_under_both_its_names(backbone: str, more: dict[str, Any]) -> None:
    plain = Recipe.from_mapping({"model.backbone": backbone, **more})
    prefixed = Recipe.from_mapping({"model.backbone": f"saccade/{backbone}", **more})
    assert differing_keys(plain, prefixed) == {}
    assert plain.given == prefixed.given
    for recipe in (plain, prefixed, Recipe.from_toml(prefixed.to_toml())):
        settled = recipe.with_batch_size(1000)
        assert not settled.starts_pretrained
        assert (settled.epochs, settled.learning_rate) == (plain.epochs, plain.learning_rate)
        assert settled.batch_size == plain.with_batch_size(1000).batch_size


@pytest.mark.parametrize(
    "name", ["timm/resnet18", "torchvision/resnet18", "resnet18", "saccade/resnet18", "timm/small_cnn", ""]
)
def test_no_other_backbone_changes_its_name(name: str) -> None:
    recipe = Recipe.from_mapping({"model.backbone": name})
    assert recipe.model.backbone == name
    assert recipe.starts_pretrained


# -- what was given ----------------------------------------------------------------------------------


def test_what_a_method_or_a_backbone_brings_along_was_not_given() -> None:
    assert Recipe().given == frozenset()
    assert Recipe.from_mapping({"train.epochs": 3}).given == {"train.epochs"}
    assert Recipe.from_mapping({"train.method": "tail"}).given == {"train.method"}
    fast = Recipe.from_mapping({"model.backbone": "fast_cnn", "train.momentum": 0.85})
    assert (fast.train.optimizer, fast.augment.policy) == ("muon", "small")
    assert fast.given == {"model.backbone", "train.momentum"}
    assert fast.replaced(seed=3).given == {"model.backbone", "train.momentum", "seed"}
    assert differing_keys(fast, fast.replaced(seed=3)).keys() == {"seed"}


def test_another_backbone_brings_its_own_defaults_and_keeps_what_was_given() -> None:
    fast = Recipe.from_mapping({"model.backbone": "fast_cnn", "train.momentum": 0.8})
    small = fast.replaced(model__backbone="small_cnn")
    assert differing_keys(small, Recipe()).keys() == {"model.backbone", "train.momentum"}


@pytest.mark.parametrize("backbone", [DEFAULT_BACKBONE, "small_cnn", "saccade/fast_cnn"])
@pytest.mark.parametrize("method", ["auto", "head", "tail", "full", "finetune"])
def test_of_a_whole_recipe_file_only_what_is_unusual_counts_as_given(backbone: str, method: str) -> None:
    usual = Recipe.from_mapping({"model.backbone": backbone, "train.method": method})
    whole = parse_toml(usual.to_toml(), where="recipe.toml")
    assert merged_recipe({}, whole, where="test") == usual
    assert merged_recipe({}, whole, where="test").given == frozenset()
    changed = merged_recipe({"train.momentum": "0.5", "seed": "0"}, whole, where="test")
    assert changed.given == {"train.momentum", "seed"}
    other = parse_toml(usual.replaced(train__momentum=0.7).to_toml(), where="recipe.toml")
    assert merged_recipe({}, other, where="test").given == {"train.momentum"}


def test_what_a_method_passes_over_is_not_refused_from_scratch() -> None:
    """There its advice, another method, would change nothing; the run says that the field has no effect."""
    flags = {"train.method": "full", "train.unfreeze": "3", "model.backbone": "small_cnn"}
    assert merged_recipe(flags, {}, where="flags").train.unfreeze == "3"
    views = {"train.kept_views": "2", "model.pretrained": "false"}
    assert merged_recipe(views, {}, where="flags").kept_views == 2


@pytest.mark.parametrize(
    ("backbone", "optimizer", "rate"),
    [
        ("small_cnn", "sgd", 0.005),
        ("small_cnn", "adamw", 1e-3),
        ("resnet18", "sgd", 0.05),
        ("fast_cnn", "timm/muon", 0.02),
        ("small_cnn", "timm/muon", 1e-3),
    ],
)
def test_the_rate_of_an_optimizer_is_one_that_the_backbone_bears(
    backbone: str, optimizer: str, rate: float
) -> None:
    """SGD at 0.05 drives small_cnn to losses in the hundreds (docs/lab-notes.md)."""
    chosen = Recipe.from_mapping({"model.backbone": backbone, "train.optimizer": optimizer})
    assert chosen.learning_rate == rate


@pytest.mark.parametrize(
    ("flags", "text", "said"),
    [
        ({}, "[train]\nepochs = 0\nlr = -1", "r.toml: 2 fields are not valid"),
        ({"train__epochs": "0", "train__lr": "-1"}, "seed = 3", "flags: 2 fields are not valid"),
        ({"seed": "3"}, "[train]\nepochs = 0\nlr = -1", "r.toml: 2 fields are not valid"),
        ({"seed": "x"}, "[train]\nepochs = 0", "flags and r.toml: 2 fields are not valid"),
        ({"train__finetune_lr": "1"}, "[train]\nlr = 0.001", "flags and r.toml: "),
    ],
)
def test_only_the_source_of_what_is_wrong_is_named(
    flags: dict[str, str], text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        chosen_recipe("train", flags, "r.toml")
    assert caught.value.args[0].startswith(said)


@pytest.mark.parametrize(("name", "kind"), [("r.yaml", "YAML"), ("r.YML", "YAML"), ("r.json", "JSON")])
def test_a_recipe_in_another_format_is_said_to_be_one(name: str, kind: str) -> None:
    with pytest.raises(RecipeError, match=rf"{name} is {kind}; a recipe is TOML\nhint: write it as a \.toml"):
        read_recipe_file(name)


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        (True, "auto"),
        (False, "none"),
        ("true", "auto"),
        ("auto", "auto"),
        ({"dog": 2, "a.b": "0.5"}, {"dog": 2.0, "a.b": 0.5}),
    ],
    ids=str,
)
def test_class_weights_by_name_or_as_they_once_were(written, becomes):
    recipe = Recipe.from_mapping({"train.class_weights": written})
    assert recipe.train.class_weights == becomes
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert recipe.given == {"train.class_weights"}


def test_focusing_powers_follow_the_loss():
    gammas = {
        loss: Recipe.from_mapping({"train.loss": loss}).loss_gamma
        for loss in ("cross_entropy", "bce", "focal", "asymmetric")
    }
    assert gammas == {"cross_entropy": 0, "bce": 0, "focal": 2, "asymmetric": 4}
    assert Recipe.from_mapping({"train.loss": "focal", "train.loss_gamma": 1}).loss_gamma == 1
    assert Recipe.from_mapping({"train.loss": "bce", "train.loss_gamma": 1}).loss_gamma == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train.class_weights": {"dog": 0}}, "the weight of dog is no number above 0: 0"),
        ({"train.class_weights": {"dog": True}}, "the weight of dog is no number above 0: True"),
        ({"train.class_weights": "some"}, "neither none nor auto nor weights by name: 'some'"),
        ({"train.loss": "bce", "train.logit_adjustment": 1}, "is for loss cross_entropy, but loss is bce"),
    ],
    ids=str,
)
def test_losses_and_weights_that_cannot_be_are_refused(values, words):
    with pytest.raises(RecipeError, match=words):
        Recipe.from_mapping(values)
