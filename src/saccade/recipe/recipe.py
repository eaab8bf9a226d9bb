"""`Recipe`: every choice that changes the result, frozen, strict, TOML both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal

import pydantic
from pydantic import ModelWrapValidatorHandler, model_validator

from saccade.errors import RecipeError
from saccade.recipe.augmentation import AugmentConfig, Flip
from saccade.recipe.fields import (
    LISTED,
    FieldRow,
    Refusal,
    Section,
    as_toml_value,
    fields_of,
    flatten,
    nest,
    parse_toml,
    problems,
)
from saccade.recipe.optimizers import RATES
from saccade.recipe.presets import (
    ALWAYS_FROM_SCRATCH,
    AUTO_BACKBONE,
    AUTO_BATCH_SIZES,
    BACKBONE_DEFAULTS,
    BACKBONE_RATES,
    CLASSIC_FIELDS,
    DEFAULT_FINETUNE_RATIO,
    EPOCHS_FROM_FITTED_HEAD,
    HARD_FINETUNE_RATIO,
    LEAST_STEPS_AN_EPOCH,
    METHOD_DEFAULTS,
    MULTI_LABEL_FIELDS,
    TAIL_VIEWS,
    USUAL_BATCH_SIZE,
    USUAL_EPOCHS,
    USUAL_GAMMAS,
)
from saccade.recipe.sections import (
    Auto,
    Count,
    DataConfig,
    EvaluateConfig,
    ExportConfig,
    ModelConfig,
    SplitConfig,
    TrainConfig,
    own_name,
)


class Recipe(Section):
    """Every choice of a run. With the data it determines the result.

    Sections and fields are those of docs/recipe.md. A recipe is built with `from_mapping` or `from_toml`.

    >>> recipe = Recipe.from_mapping({"model.backbone": "resnet18", "train.lr": 0.002})
    >>> recipe.train.method, recipe.learning_rate, f"{recipe.finetune_learning_rate:g}"
    ('finetune', 0.002, '2e-05')
    """

    seed: Count = 0
    """Random seed of every draw."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["float32", "bfloat16"] | Auto = "auto"
    """Number format of training. auto: bfloat16 on a GPU that has it; on a CPU float32, but for long phases
    bfloat16 on processors where it is faster (AMX, or AMD from Zen 4 on). Evaluation is always float32.
    """
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="wrap")
    @classmethod
    def _fill_in(cls, values: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        """Add what a method or a backbone brings along, which then does not count as given."""
        if not isinstance(values, Mapping):
            return handler(values)
        filled = with_defaults(values)
        recipe = handler(filled)
        recipe.forget_given(dict(flatten(filled)).keys() - dict(flatten(_plain_sections(values))).keys())
        return recipe

    def forget_given(self, keys: Iterable[str]) -> None:
        """From now on the dotted `keys` do not count as given."""
        for key in keys:
            section, _, name = key.rpartition(".")
            (getattr(self, section) if section else self).model_fields_set.discard(name)

    @property
    def given(self) -> frozenset[str]:
        """Dotted keys that flags, a file or a caller set; not what a method or a backbone brings along.

        >>> sorted(Recipe.from_mapping({"train.epochs": 3}).given)
        ['train.epochs']
        """
        return frozenset(dict(flatten(self.model_dump(exclude_unset=True))))

    @model_validator(mode="after")
    def _keep_views_where_something_is_frozen(self) -> Recipe:
        if self.kept_views and self.starts_pretrained and self.train.method not in ("tail", "finetune"):
            raise Refusal(
                f"train.kept_views = {self.kept_views} has no effect with method {self.train.method}, which "
                "trains only the head or all layers",
                hint="use --method tail or finetune, or leave it out",
            )
        return self

    @model_validator(mode="after")
    def _limit_latency_where_something_is_chosen(self) -> Recipe:
        model = self.model
        if model.max_latency_ms and model.backbone != AUTO_BACKBONE and self.evaluate.size == "same":
            raise Refusal(
                f"model.max_latency_ms chooses among backbones, but one is named: {model.backbone}",
                hint="leave max_latency_ms out, or set backbone = 'auto' or evaluate.size = 'auto'",
            )
        return self

    @model_validator(mode="after")
    def _fine_tune_gently(self) -> Recipe:
        lr, finetune = self.learning_rate, self.finetune_learning_rate
        # the tiny factor forgives the rounding of, say, 0.003 * 0.1
        if finetune > HARD_FINETUNE_RATIO * lr * (1 + 1e-9) and not self.train.allow_large_finetune_lr:
            raise Refusal(
                f"train.finetune_lr = {finetune:g} is more than a tenth of train.lr = {lr:g}, which destroys "
                "pretrained features",
                hint=f"use {HARD_FINETUNE_RATIO * lr:g} or less (default {DEFAULT_FINETUNE_RATIO * lr:g}), "
                "or set allow_large_finetune_lr = true",
            )
        return self

    @model_validator(mode="after")
    def _one_label_or_several(self) -> Recipe:
        if self.data.label_delimiter and self.data.label_columns:
            raise Refusal(
                "data.label_delimiter parts names in one column, data.label_columns names a column a label",
                hint="give one of them",
            )
        if self.multi_label:
            self._refuse_what_is_for_one_label()
        of_one, of_several = ("balanced_accuracy", "top5"), ("mean_average_precision",)
        monitor, wrong = self.train.monitor, of_one if self.multi_label else of_several
        if monitor in wrong:
            how = "several labels" if self.multi_label else "one label"
            usual = "mean_average_precision" if self.multi_label else "macro_f1"
            raise Refusal(
                f"train.monitor = {monitor} is no figure of images with {how} each",
                hint=f"use loss, accuracy or {usual}",
            )
        return self

    def _refuse_what_is_for_one_label(self) -> None:
        train, after_training = self.train, self.evaluate.logit_adjustment
        for key, value, usual, instead in (
            ("train.loss", train.loss == "cross_entropy", "cross_entropy", "use bce, focal or asymmetric"),
            (
                "split.folds",
                self.split.folds > 0,
                self.split.folds,
                "leave it out, or make folds by `saccade split`",
            ),
            ("train.sampling", train.sampling != "natural", train.sampling, "use train.class_weights"),
            ("train.logit_adjustment", train.logit_adjustment, train.logit_adjustment, "leave it out"),
            (
                "evaluate.logit_adjustment",
                after_training,
                after_training,
                "leave it out: labels have thresholds",
            ),
        ):
            if value:
                raise Refusal(
                    f"{key} = {usual} is for images with one label each, and these may have several",
                    hint=instead,
                )

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels.

        >>> Recipe.from_mapping({"data.label_delimiter": ","}).multi_label
        True
        """
        data = self.data
        return data.multi_label or bool(data.label_delimiter or data.label_columns)

    @property
    def flips(self) -> frozenset[Flip]:
        """By which flips an image must keep its class, in training and when predictions are averaged.

        >>> Recipe.from_mapping({"augment.policy": "document", "evaluate.flip": True}).flips
        frozenset({'left to right'})
        """
        averaged: frozenset[Flip] = frozenset(["left to right"] if self.evaluate.flip else [])
        return self.augment.flips | averaged

    @property
    def learning_rate(self) -> float:
        """`train.lr`, with "auto" worked out."""
        if self.train.lr != "auto":
            return self.train.lr
        rates = RATES[self.train.optimizer]
        usual = rates.head if self.starts_pretrained else rates.scratch
        return BACKBONE_RATES.get((self.model.backbone, self.train.optimizer), usual)

    @property
    def epochs(self) -> int:
        """`train.epochs`, with "auto" worked out."""
        if self.train.epochs != "auto":
            return self.train.epochs
        return EPOCHS_FROM_FITTED_HEAD if self.from_fitted_head else USUAL_EPOCHS

    @property
    def from_fitted_head(self) -> bool:
        """Whether fine-tuning, if there is any, starts from a head that was fitted at once."""
        return self.starts_pretrained and self.train.method in ("auto", "tail", "full")

    @property
    def solves_head(self) -> bool:
        """Whether the head is fitted to frozen features at once, whatever comes after it."""
        return self.starts_pretrained and self.train.method != "finetune"

    @property
    def starts_pretrained(self) -> bool:
        """Whether training starts from ImageNet weights; some backbones have none."""
        return self.model.pretrained and self.model.backbone not in ALWAYS_FROM_SCRATCH

    @property
    def finetune_learning_rate(self) -> float:
        """`train.finetune_lr`, with "auto" worked out: a hundredth of the head's rate (promise 5)."""
        if self.train.finetune_lr != "auto":
            return self.train.finetune_lr
        return DEFAULT_FINETUNE_RATIO * self.learning_rate

    @property
    def loss_gamma(self) -> float:
        """`train.loss_gamma`, with "auto" worked out; 0 for a loss without one."""
        usual = USUAL_GAMMAS.get(self.train.loss, 0.0)
        return usual if self.train.loss_gamma == "auto" or not usual else self.train.loss_gamma

    @property
    def kept_views(self) -> int:
        """`train.kept_views`, with "auto" worked out."""
        if self.train.kept_views != "auto":
            return self.train.kept_views
        return TAIL_VIEWS if self.train.method == "tail" else 0

    @property
    def batch_size(self) -> int:
        """`train.batch_size`, once `with_batch_size` has worked out "auto"."""
        assert self.train.batch_size != "auto", "worked out when the number of training images is known"
        return self.train.batch_size

    def with_batch_size(self, images: int) -> Recipe:
        """The recipe with "auto" as `train.batch_size` worked out for so many training images.

        >>> Recipe.from_mapping({"model.backbone": "fast_cnn"}).with_batch_size(1000).batch_size
        64
        """
        if self.train.batch_size != "auto":
            return self
        least, *larger = AUTO_BATCH_SIZES.get(self.model.backbone, (USUAL_BATCH_SIZE,))
        fitting = [size for size in larger if size * LEAST_STEPS_AN_EPOCH <= images]
        train = self.train.model_copy(update={"batch_size": max(fitting, default=least)})
        return self.model_copy(update={"train": train})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
        """Build from nested or dotted keys; every problem is reported at once in one RecipeError.

        values: {"train.epochs": 3} or {"train": {"epochs": 3}}; values may be text, as flags have it.
        where: what the values come from, for the message; "" leaves it out.

        >>> Recipe.from_mapping({"train.epoch": 3})
        Traceback (most recent call last):
        saccade.errors.RecipeError: recipe: unknown key 'train.epoch'
        hint: did you mean 'epochs'?
        """
        try:
            return cls.model_validate(nest(values))
        except pydantic.ValidationError as error:
            raise refused(error, where) from None

    @classmethod
    def from_toml(cls, text: str, *, where: str = "recipe") -> Recipe:
        """Read TOML text; raises RecipeError for bad TOML, unknown keys and values that do not hold.

        where: name of the file, for the message.

        >>> Recipe.from_toml("[train]\\nbatch_size = 16").batch_size
        16
        """
        return cls.from_mapping(parse_toml(text, where=where), where=where)

    def to_toml(self) -> str:
        """Every field, defaults included; `from_toml` gives an equal recipe.

        >>> Recipe.from_toml(Recipe().to_toml()) == Recipe()
        True
        """
        import tomli_w

        return tomli_w.dumps(as_toml_value(self.model_dump()))

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, for comparing two recipes.

        >>> Recipe().flat()["train.batch_size"]
        32
        """
        return dict(flatten(self.model_dump()))

    def replaced(self, **dotted: Any) -> Recipe:
        """A copy with some dotted keys (`train__epochs=3`) changed and everything checked again.

        Only what was set is carried over, so that another backbone brings its own defaults.

        >>> Recipe().replaced(model__backbone="fast_cnn").train.optimizer
        'muon'
        """
        changes = {key.replace("__", "."): value for key, value in dotted.items()}
        return Recipe.from_mapping({**dict(flatten(self.model_dump(exclude_unset=True))), **changes})


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys with those added that others bring along: the method, and those of BACKBONE_DEFAULTS."""
    filled = _plain_sections(values)
    train = filled.get("train")
    if isinstance(train, Mapping) and "method" not in train and not CLASSIC_FIELDS.isdisjoint(train):
        filled["train"] = {**train, "method": "finetune"}
    data = filled.get("data", {})
    if isinstance(data, Mapping) and any(data.get(name) for name in MULTI_LABEL_FIELDS):
        filled["train"] = {"loss": "bce", **filled.get("train", {})}
    train = filled.get("train")
    if isinstance(train, Mapping) and (own := METHOD_DEFAULTS.get(str(train.get("method")))):
        filled["train"] = {**own, **train}
    model = filled.get("model")
    backbone = own_name(str(model.get("backbone", ""))) if isinstance(model, Mapping) else ""
    if isinstance(model, Mapping) and ":" in backbone and not model.get("weights"):
        filled["model"] = {"pretrained": False, **model}  # a function of the user: random weights
    for name, defaults in BACKBONE_DEFAULTS.get(backbone, {}).items():
        given = filled.get(name, {})
        if isinstance(given, Mapping):
            filled[name] = {**defaults, **given}
    return filled


def _plain_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with each section as a dict of what was set in it."""
    return {
        name: part.model_dump(exclude_unset=True) if isinstance(part, Section) else part
        for name, part in values.items()
    }


@cache
def field_table() -> tuple[FieldRow, ...]:
    """(dotted key, type, default, description) of every field, in order.

    >>> field_table()[0]
    FieldRow(key='seed', kind='int', default=0, description='Random seed of every draw.')
    """
    return tuple(fields_of(Recipe))


def refused(error: pydantic.ValidationError, where: str) -> RecipeError:
    """One problem in two lines; several below each other, each with what to do.

    where: what the values come from; "" leaves it out.
    """
    found = problems(error.errors(), field_table())
    place = f"{where}: " if where else ""
    if len(found) == 1:
        (message, hint), *_ = found
        return RecipeError(f"{place}{message}", hint=hint)
    lines = [f"{message}; {hint}" if hint not in ("", LISTED) else message for message, hint in found]
    shared = LISTED if any(hint == LISTED for _, hint in found) else ""
    return RecipeError(f"{place}{len(found)} fields are not valid", *lines, hint=shared)
