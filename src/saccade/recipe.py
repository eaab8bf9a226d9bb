"""The recipe: every choice that changes the result, frozen, strict, TOML both ways.

Each field's description is its only documentation: flags, `docs/recipe.md` and error messages come from
here. "auto" means: worked out later; what it became stands in `environment.json`, never here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    model_validator,
)

from saccade.errors import RecipeError
from saccade.files import read_text


def _unfreeze_spec(value: Any) -> Any:
    """2 and 0.3 may stand without quotes; what no network could follow is refused before one is built."""
    text = str(value) if type(value) in (int, float) else value
    if isinstance(text, str) and not re.fullmatch(r"all|\d+|\d*\.\d+|layers:-?\d+", text.strip()):
        raise ValueError(
            f'train.unfreeze: got {value!r}; give a number of stages ("2"), a share of the layers ("0.3"), '
            '"layers:-100" (all but the first 100) or "all"'
        )
    return text


def _own_name(value: str) -> str:
    """`saccade/small_cnn` is small_cnn: everything that asks for a backbone by name sees one spelling."""
    name = value.removeprefix(OWN_PREFIX)
    return name if name in ALWAYS_FROM_SCRATCH else value


Auto = Literal["auto"]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Deviation = Annotated[float, Field(ge=1e-3)]  # pixels are 0 to 1; less makes inputs that end in infinities
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Unfreeze = Annotated[str, BeforeValidator(_unfreeze_spec)]
Backbone = Annotated[str, AfterValidator(_own_name)]
Triple = tuple[float, float, float]

HARD_FINETUNE_RATIO = 0.1
OWN_PREFIX = "saccade/"
ALWAYS_FROM_SCRATCH = ("small_cnn", "fast_cnn")  # our own, which have no published weights
AUTO_BACKBONE = "auto"
DEFAULT_FINETUNE_RATIO = 0.01
# rate of an optimizer, for training from scratch, where train.lr is "auto"
SCRATCH_RATES = {"sgd": 0.05, "muon": 0.24}

# What `batch_size` "auto" chooses among, and how many steps an epoch must have for the larger ones.
AUTO_BATCH_SIZES = {"fast_cnn": (16, 32, 64, 128, 256, 500)}
USUAL_BATCH_SIZE = 32
LEAST_STEPS_AN_EPOCH = 10

# What `epochs` "auto" is. Measured: docs/lab-notes.md.
USUAL_EPOCHS, EPOCHS_FROM_FITTED_HEAD = 20, 10

# What a backbone is trained with where neither flag nor file says otherwise. Measured: docs/lab-notes.md.
BACKBONE_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "fast_cnn": {
        "augment": {"policy": "small"},
        "train": {
            "epochs": 8,
            "batch_size": "auto",
            "optimizer": "muon",
            "momentum": 0.85,
            "weight_decay": 0.0,
            "schedule": "linear",
            "warmup_epochs": 0.0,
            "early_stopping": 0,
            "label_smoothing": 0.2,
            "ema_decay": 0.95,
        },
        "evaluate": {"flip": True},
    }
}

# Who gives one of these has the classic two phases in mind.
CLASSIC_FIELDS = frozenset({"epochs", "head_epochs", "lr", "finetune_lr", "unfreeze"})
# method -> what it does, and which of these have no effect on that
WITHOUT_EFFECT = {
    "head": ("fits the head alone, without epochs or rates", CLASSIC_FIELDS),
    "full": ("fits the head at once and fine-tunes everything", frozenset({"head_epochs", "unfreeze"})),
    "auto": ("fits the head at once and fine-tunes everything", frozenset({"head_epochs", "unfreeze"})),
    "tail": ("fits the head at once", frozenset({"head_epochs"})),
}
# method -> its own defaults of training; measured: docs/fast-training.md
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {"tail": {"unfreeze": "0.42", "epochs": 6}}
TAIL_VIEWS = 4


class Section(BaseModel):
    """A frozen part of the recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """Which images, and how they become the network's input."""

    image_size: AtLeastOne | Auto = "auto"
    """Side of the network's square input in pixels; auto: the backbone's own (small_cnn: 32 to 224,
    fast_cnn: 28 to 64, by the images).
    """
    resize: Literal["crop", "pad", "squash"] | Auto = "auto"
    """crop: short side to the size, centre cut out; pad: whole image, bars; squash: aspect ignored;
    auto: the weights' own, squash for small_cnn and fast_cnn.
    """
    interpolation: Literal["bilinear", "bicubic"] | Auto = "auto"
    """Resampling filter (antialiased); auto: the weights' own."""
    crop_fraction: Annotated[float, Field(ge=0.1, le=1)] | Auto = "auto"
    """Share of the resized short side that the centre crop keeps; auto: the weights' own."""
    mean: Triple | Auto = "auto"
    """Channel means (RGB, 0 to 1); auto: the weights' own, for training from scratch the training
    images' own.
    """
    std: tuple[Deviation, Deviation, Deviation] | Auto = "auto"
    """Channel standard deviations (RGB, 0 to 1); auto: as for mean."""
    drop_empty: bool = False
    """Leave out class folders without images instead of stopping."""
    max_pixels: AtLeastOne = 50_000_000
    """An image with more pixels is set aside before it is decoded."""
    background: tuple[Count, Count, Count] = (255, 255, 255)
    """Colour (RGB, 0 to 255) behind transparent pixels."""
    gray_maximum: Annotated[int, Field(ge=0, le=65535)] = 0
    """Value that means white in 16-bit grey images, such as 4095 for 12 bits; 0: what the file says (65535).
    It travels with the model.
    """
    decisions: str = ""
    """A CSV of what you decided about earlier findings (path, other, decision); empty: audit-
    decisions.csv beside the data, if there.
    """
    cache_gb: NotNegative = 8.0
    """Gigabytes of decoded training images kept on disk in your cache folder, for this and later runs; those
    unused for longest go first. 0: none.
    """


class SplitConfig(Section):
    """How the images are divided into train, validation and test."""

    validation: Share = 0.15
    """Share of the images that validates (unsplit data, or training images where no validation part is
    given).
    """
    test: Share = 0.15
    """Share of the images that tests (unsplit data only)."""
    group: str = ""
    """Column of the list that names what must stay together (patient, video, site)."""
    group_pattern: str = ""
    """Regular expression on the path; its first group (or the whole match) names what must stay together."""
    near_duplicates: bool = True
    """Search near-duplicates and keep them in one part."""
    repair: bool = False
    """Move images of a given split so that no group and no near-duplicate crosses parts."""
    allow_leaks: bool = False
    """Train on a given split although groups cross its parts; the report shows promise 1 as broken."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must lie below 1, got {self.validation} + {self.test}; "
                "the rest of the images go to training"
            )
        return self


class AugmentConfig(Section):
    """What training images (never others) may look like. A named policy fills every "auto" below it."""

    policy: Literal["none", "small", "light", "medium", "strong"] = "medium"
    """Named set of strengths; each field below overrides its part. small: what images of 64 pixels and less
    bear, a crop with two reflected pixels of 32 around it and alternate_flip.
    """
    random_resized_crop: Annotated[float, Field(gt=0, le=1)] | Auto = "auto"
    """Smallest share of the area that a random crop of random aspect may keep; 1 is off."""
    random_crop: Share | Auto = "auto"
    """Padding before a random crop of the input's size, as a share of it; 0 is off."""
    crop_border: Literal["mean", "reflect"] | Auto = "auto"
    """What that padding is filled with: the mean colour, or the image reflected at its edge."""
    horizontal_flip: Probability | Auto = "auto"
    """Probability of mirroring left to right."""
    alternate_flip: bool | Auto = "auto"
    """Mirror each image in every second epoch (which, is drawn once) instead of drawing afresh; needs
    horizontal_flip above 0.
    """
    vertical_flip: Probability | Auto = "auto"
    """Probability of mirroring top to bottom."""
    rotation: Annotated[float, Field(ge=0, le=180)] | Auto = "auto"
    """Largest rotation to either side, in degrees."""
    zoom: Share | Auto = "auto"
    """Largest zoom in or out, as a share: 0.2 is 0.8 to 1.2 times."""
    shift: Share | Auto = "auto"
    """Largest shift in each direction, as a share of the side."""
    shear: Annotated[float, Field(ge=0, lt=90)] | Auto = "auto"
    """Largest shear to either side, in degrees."""
    brightness: Probability | Auto = "auto"
    """Largest change of brightness, as a share: 0.2 is 0.8 to 1.2 times."""
    contrast: Probability | Auto = "auto"
    """Largest change of contrast, as a share."""
    saturation: Probability | Auto = "auto"
    """Largest change of saturation, as a share."""
    hue: Annotated[float, Field(ge=0, le=0.5)] | Auto = "auto"
    """Largest turn of the hue, as a share of the full circle (with the three above: colour jitter)."""
    automatic: Literal["none", "auto_augment", "rand_augment", "trivial_augment"] | Auto = "auto"
    """A published automatic policy, applied after the crop and before all else."""
    cutout: Probability | Auto = "auto"
    """Probability of erasing a random rectangle (Cutout, random erasing)."""
    mix_up: NotNegative | Auto = "auto"
    """Alpha of MixUp's Beta distribution; 0 is off. With cut_mix also on, each batch draws one of the two."""
    cut_mix: NotNegative | Auto = "auto"
    """Alpha of CutMix's Beta distribution; 0 is off."""


class ModelConfig(Section):
    """The network: which backbone, which weights, which head."""

    backbone: Backbone = "efficientnet_b0"
    """A name from `saccade backbones`; `timm/NAME` and `torchvision/NAME` force the library; auto: the best
    of those whose weights are at hand (a folder given as weights, else the hub's local cache), by
    cross-validation on training images and by latency.
    """
    max_latency_ms: NotNegative = 0.0
    """With backbone auto: milliseconds that one photo may take on one core of this machine, preprocessing
    included, in the exported file; 0 is no limit.
    """
    pretrained: bool = True
    """Start from ImageNet weights (small_cnn and fast_cnn have none and always start from scratch)."""
    weights: str = ""
    """A safetensors file with the backbone's weights, instead of its hub; with backbone auto a folder of
    them.
    """
    head: Literal["linear", "mlp"] = "linear"
    """linear: one dense layer on the pooled features; mlp: Dense 256, ReLU, Dropout 0.5, Dense."""
    dropout: Share | Auto = "auto"
    """Dropout before the linear head; auto: the 0.2 of common practice for pretrained backbones.
    small_cnn has its own, fast_cnn none.
    """
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Build options for the backbone, such as pad_type = "same" (fast_cnn: width = 32); the weights file's
    header wins nothing over these.
    """

    @model_validator(mode="after")
    def _choose_only_where_there_is_a_choice(self) -> ModelConfig:
        if self.max_latency_ms and self.backbone != AUTO_BACKBONE:
            raise ValueError(
                f"model.max_latency_ms = {self.max_latency_ms:g} chooses among backbones, but "
                f"{self.backbone} is named; leave it out, or set backbone = 'auto'"
            )
        if self.backbone == AUTO_BACKBONE and not self.pretrained:
            raise ValueError(
                "backbone = 'auto' compares pretrained weights; name a backbone, or leave --no-pretrained out"
            )
        if self.backbone == AUTO_BACKBONE and self.options:
            raise ValueError(
                "model.options belong to one backbone, but backbone = 'auto' chooses among "
                "several; name the backbone, or leave the options out"
            )
        return self


class TrainConfig(Section):
    """How the weights are learnt."""

    method: Literal["auto", "head", "tail", "full", "finetune"] = "auto"
    """How pretrained weights are adapted. head: only the head, fitted in seconds on frozen features; tail:
    from that head fine-tune what unfreeze names (there 0.42), on kept activations of what is frozen; full:
    from that head fine-tune everything; auto: head, then full if a trial on training images says that it
    pays, or tail where time_limit is too short for full; finetune: the classic two phases, head_epochs of the
    head step by step, then what unfreeze names.
    Where epochs, head_epochs, lr, finetune_lr or unfreeze are given, and no method, it is finetune; with a
    method on which one of them has no effect it is refused. From scratch there is one phase whatever stands
    here, and head and tail are refused.
    """
    epochs: AtLeastOne | Auto = "auto"
    """Epochs of the main phase (fine-tuning, or training from scratch); auto: 20, from a fitted head, which
    is near its goal already, 10 (methods auto and full) or 6 (tail).
    """
    head_epochs: Count = 5
    """Epochs of phase 1 of method finetune, in which only the new head learns on a frozen base."""
    batch_size: AtLeastOne | Auto = 32
    """Images in one step; auto: 32, for fast_cnn 16 to 500, as many as leave ten steps in an epoch."""
    lr: Positive | Auto = "auto"
    """Learning rate of phase 1 (method finetune) or of training from scratch; auto: for Adam and AdamW
    3e-3 on a frozen base and 1e-3 from scratch, for SGD 0.05, for muon 0.24.
    """
    finetune_lr: Positive | Auto = "auto"
    """Learning rate of fine-tuning; auto: a hundredth of lr, from a fitted head (methods auto, tail and
    full) a tenth; more than a tenth is refused.
    """
    allow_large_finetune_lr: bool = False
    """Permit a fine-tuning rate above a tenth of lr."""
    unfreeze: Unfreeze = "2"
    """What fine-tuning of methods finetune and tail unfreezes: a number of stages from the end ("2"), a share
    of the layers ("0.3"), "layers:-100" (all but the first 100), "all".
    """
    kept_views: Count | Auto = "auto"
    """Of how many augmented views of a training image (methods tail and finetune) the activations at the end
    of the frozen stages are computed once and kept, in at most a quarter of the memory; epochs then go
    through them in turn. 0: none, every epoch goes through the whole network; auto: 4 for tail, else 0.
    """
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adamw"
    """Adam, AdamW, SGD with Nesterov momentum, or Muon (orthogonalised steps for filters, SGD for the rest):
    for training from scratch where norms follow the convolutions.
    """
    momentum: Share = 0.9
    """Momentum of SGD, and of what Muon trains by SGD."""
    weight_decay: NotNegative = 0.01
    """Weight decay; never applied to norms and biases."""
    schedule: Literal["constant", "cosine", "linear", "one_cycle", "step", "plateau"] = "cosine"
    """How the rate changes in each phase; linear: a straight line to 0; one_cycle: up over 30 % of it, down
    to next to nothing; plateau: ReduceLROnPlateau on the validation loss, and no other schedule looks at
    it. With a time limit, cosine, linear and one_cycle run through in the epochs that fit.
    """
    warmup_epochs: NotNegative = 1.0
    """Epochs (or part of one) over which the rate rises to its value (one_cycle has a rise of its own)."""
    step_epochs: AtLeastOne = 10
    """Epochs between two drops of the step schedule."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Factor of each drop of the step schedule."""
    plateau_patience: Count = 3
    """Epochs without a better validation loss before the plateau schedule drops the rate."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor of each drop of the plateau schedule."""
    plateau_min_lr: NotNegative = 0.0
    """Learning rate below which the plateau schedule does not drop."""
    early_stopping: Count = 8
    """Epochs without a better validation loss after which a phase stops; the best weights are restored.
    0 is off.
    """
    progressive_size: Share = 0.0
    """Share of the input's side with which a whole network starts to learn (0.57 is usual); it grows to the
    full side, in steps of 32 pixels, over the first three quarters of the epochs. Validation is always at
    full size. 0 is off.
    """
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""
    class_weights: bool = False
    """Weigh the loss by the inverse frequency of each class."""
    ema_decay: Share | Auto = "auto"
    """Decay of an exponential moving average of the weights, taken at each step. What is validated, kept and
    exported is then the average; the weights themselves go on training. 0 is off; auto: 0.98 where a fitted
    head is fine-tuned (methods auto, tail and full), else 0. From scratch and with method finetune it warms
    up: at step t it is the lesser of this and (1 + t) / (10 + t).
    """
    gradient_clip: NotNegative = 0.0
    """Largest norm of the gradient; 0 is off."""
    workers: Count | Auto = "auto"
    """Processes that decode images; auto: none on 4 cores or fewer."""
    cache_images: bool = True
    """Decode each training image once: keep it on disk (data.cache_gb), where that is impossible in memory up
    to a quarter of it.
    """
    time_limit: NotNegative = 0.0
    """Seconds for the whole command; training stops early enough to finish within it. 0 is no limit."""


class EvaluateConfig(Section):
    """How the model is judged."""

    top_k: tuple[AtLeastOne, ...] = (1, 5)
    """Which k of top-k accuracy to report; only those up to the number of classes are."""
    calibrate: bool = True
    """Fit one temperature on the validation part, so that confidences mean what they say."""
    flip: bool = False
    """Answer with the mean of the image and its mirror image (logits), in the exported file too: twice the
    work for each answer. The history of training is measured without.
    """


class ExportConfig(Section):
    """What leaves the run folder, and how far it may differ."""

    onnx: bool = True
    """Write and certify export/model.onnx at the end of training."""
    tolerance: Positive = 1e-3
    """Largest difference of a probability between the exported file and the trained model."""
    max_drop: NotNegative = 0.01
    """Largest fall of validation accuracy of a reduced (int8) model; its 95 % bound may be 0.04 more."""
    certify_images: AtLeastOne = 1000
    """At most so many validation and test images are used for the certificate."""
    calibration_images: AtLeastOne = 200
    """At most so many training images calibrate an int8 model."""


class Recipe(Section):
    """Every choice of a run. With the data it determines the result."""

    seed: Count = 0
    """Source of every random draw."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["float32", "bfloat16"] | Auto = "auto"
    """Arithmetic of training; auto: bfloat16 on a GPU that has it, on a CPU float32 or, where training is
    long, what a short timing of both on the network at hand finds quicker. Evaluation is always float32.
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
        recipe._forget_given(dict(_flatten(filled)).keys() - dict(_flatten(_plain_sections(values))).keys())
        return recipe

    def _forget_given(self, keys: Iterable[str]) -> None:
        for key in keys:
            section, _, name = key.rpartition(".")
            (getattr(self, section) if section else self).model_fields_set.discard(name)

    @property
    def given(self) -> frozenset[str]:
        """Dotted keys that flags, a file or a caller set; not what a method or a backbone brings along."""
        return frozenset(dict(_flatten(self.model_dump(exclude_unset=True))))

    @model_validator(mode="after")
    def _keep_views_where_something_is_frozen(self) -> Recipe:
        if self.kept_views and self.starts_pretrained and self.train.method not in ("tail", "finetune"):
            raise ValueError(
                f"train.kept_views = {self.kept_views} has no effect with method {self.train.method}, which "
                "trains the head alone or everything; use --method tail or finetune, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _fine_tune_gently(self) -> Recipe:
        lr, finetune = self.learning_rate, self.finetune_learning_rate
        # the tiny factor forgives the rounding of, say, 0.003 * 0.1
        if finetune > HARD_FINETUNE_RATIO * lr * (1 + 1e-9) and not self.train.allow_large_finetune_lr:
            raise ValueError(
                f"train.finetune_lr = {finetune:g} is more than a tenth of train.lr = {lr:g}, which destroys "
                f"pretrained features; use {HARD_FINETUNE_RATIO * lr:g} or less "
                f"(default {DEFAULT_FINETUNE_RATIO * lr:g}), or set allow_large_finetune_lr = true"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """`train.lr`, with "auto" worked out."""
        if self.train.lr != "auto":
            return self.train.lr
        if self.train.optimizer in SCRATCH_RATES:
            return SCRATCH_RATES[self.train.optimizer]
        # a head alone, on frozen features, bears a higher rate than a whole network: docs/lab-notes.md
        return 3e-3 if self.starts_pretrained else 1e-3

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
        """The recipe with "auto" as `train.batch_size` worked out for so many training images."""
        if self.train.batch_size != "auto":
            return self
        least, *larger = AUTO_BATCH_SIZES.get(self.model.backbone, (USUAL_BATCH_SIZE,))
        fitting = [size for size in larger if size * LEAST_STEPS_AN_EPOCH <= images]
        train = self.train.model_copy(update={"batch_size": max(fitting, default=least)})
        return self.model_copy(update={"train": train})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
        """Build from nested or dotted keys; every problem is reported at once in one RecipeError."""
        nested = nest(values)
        try:
            return cls.model_validate(nested)
        except pydantic.ValidationError as error:
            lines = _problems(error.errors())
            raise RecipeError(f"{where}: " + "; ".join(lines)) from None

    @classmethod
    def from_toml(cls, text: str, *, where: str = "recipe") -> Recipe:
        """Read TOML text; raises RecipeError for bad TOML, unknown keys and values that do not hold."""
        return cls.from_mapping(parse_toml(text, where=where), where=where)

    def to_toml(self) -> str:
        """Every field, defaults included; `from_toml` gives an equal recipe."""
        import tomli_w

        return tomli_w.dumps(_plain(self.model_dump()))

    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, for comparing two recipes."""
        return dict(_flatten(self.model_dump()))

    def replaced(self, **dotted: Any) -> Recipe:
        """A copy with some dotted keys (`train__epochs=3`) changed and everything checked again.

        Only what was set is carried over, so that another backbone brings its own defaults.
        """
        changes = {key.replace("__", "."): value for key, value in dotted.items()}
        return Recipe.from_mapping({**dict(_flatten(self.model_dump(exclude_unset=True))), **changes})


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys with those added that others bring along: the method, and those of BACKBONE_DEFAULTS."""
    filled = _plain_sections(values)
    train = filled.get("train")
    if isinstance(train, Mapping) and "method" not in train and not CLASSIC_FIELDS.isdisjoint(train):
        filled["train"] = {**train, "method": "finetune"}
    train = filled.get("train")
    if isinstance(train, Mapping) and (own := METHOD_DEFAULTS.get(str(train.get("method")))):
        filled["train"] = {**own, **train}
    model = filled.get("model")
    backbone = _own_name(str(model.get("backbone", ""))) if isinstance(model, Mapping) else ""
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


# Short flags of the command line: name -> field.
SHORT_FLAGS: dict[str, str] = {
    "backbone": "model.backbone",
    "weights": "model.weights",
    "max-latency-ms": "model.max_latency_ms",
    "pretrained": "model.pretrained",
    "head": "model.head",
    "method": "train.method",
    "epochs": "train.epochs",
    "head-epochs": "train.head_epochs",
    "lr": "train.lr",
    "finetune-lr": "train.finetune_lr",
    "unfreeze": "train.unfreeze",
    "optimizer": "train.optimizer",
    "schedule": "train.schedule",
    "image-size": "data.image_size",
    "batch-size": "train.batch_size",
    "augment": "augment.policy",
    "seed": "seed",
    "device": "device",
    "precision": "precision",
    "time-limit": "train.time_limit",
    "group": "split.group",
    "group-pattern": "split.group_pattern",
    "drop-empty": "data.drop_empty",
    "repair-split": "split.repair",
    "allow-leaks": "split.allow_leaks",
}


# What people call a field elsewhere -> its name here; used only in suggestions.
SYNONYMS: dict[str, str] = {
    "learning_rate": "lr",
    "fine_tune_lr": "finetune_lr",
    "patience": "early_stopping",
    "dropout_rate": "dropout",
    "architecture": "backbone",
    "img_size": "image_size",
    "input_size": "image_size",
    "mixup": "mix_up",
    "cutmix": "cut_mix",
    "random_erasing": "cutout",
    "color_jitter": "saturation",
    "lr_schedule": "schedule",
    "scheduler": "schedule",
    "test_size": "test",
    "validation_split": "validation",
}


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """TOML text as nested dicts; raises RecipeError that says where it is broken."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where}: not valid TOML ({error}); correct that place") from None
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply; a recipe has sections and values") from None


def read_recipe_file(path: str | Path) -> dict[str, Any]:
    """The keys a recipe file sets, nested; raises RecipeError when it cannot be read."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe file {path} cannot be read ({error}); check the path") from None
    return parse_toml(text, where=str(path))


def merged_recipe(flags: Mapping[str, Any], file_values: Mapping[str, Any], *, where: str) -> Recipe:
    """Precedence: flag, then recipe file, then default; raises RecipeError for what would have no effect."""
    from_file, from_flags = dict(_flatten(nest(file_values))), dict(_flatten(nest(flags)))
    recipe = Recipe.from_mapping({**from_file, **from_flags}, where=where)
    # a run's own recipe.toml holds every field: nobody chose them all
    complete = all(f"train.{name}" in from_file for name in CLASSIC_FIELDS)
    if complete:
        recipe._forget_given(_as_by_default(recipe, from_file) - from_flags.keys())
    _refuse_without_effect(recipe, from_flags if complete else {**from_file, **from_flags}, where=where)
    return recipe


def _as_by_default(recipe: Recipe, keys: Iterable[str]) -> set[str]:
    """Those of `keys` whose values a recipe of this backbone and method has anyway."""
    chosen = {"model.backbone": recipe.model.backbone, "train.method": recipe.train.method}
    usual, has = Recipe.model_validate(nest(chosen)).flat(), recipe.flat()
    return {key for key in keys if has[key] == usual[key]}


def _refuse_without_effect(recipe: Recipe, given: Mapping[str, Any], *, where: str) -> None:
    """Raise RecipeError for `given` fields of training that the recipe's method would pass over.

    From scratch no method passes over what is given: `pipeline.effects` says there what has no effect.
    """
    if not recipe.starts_pretrained:
        return
    method = recipe.train.method
    does, fields = WITHOUT_EFFECT.get(method, ("", frozenset()))
    tunes_everything = method != "head"
    idle = [
        f"{key} = {value}"
        for key, value in given.items()
        if key.removeprefix("train.") in fields and not (tunes_everything and value == "all")
    ]
    if idle:
        raise RecipeError(
            f"{where}: {', '.join(idle)} would have no effect, because method {method} {does}; leave that "
            "out, or take --method finetune, the classic two phases"
        )


def field_table() -> list[tuple[str, str, Any, str]]:
    """(dotted key, type, default, description) of every field, in order."""
    return list(_walk(Recipe, ""))


def recipe_as_markdown() -> str:
    """The content of docs/recipe.md: one table a section, made from the fields themselves."""
    short = {field: flag for flag, field in SHORT_FLAGS.items()}
    lines = ["# The recipe", "", _RECIPE_INTRODUCTION]
    section = None
    for key, kind, default, text in field_table():
        head = key.partition(".")[0] if "." in key else "top level"
        if head != section:
            section = head
            lines += [
                "",
                f"## {head}",
                "",
                "| key | flags | type | default | meaning |",
                "|---|---|---|---|---|",
            ]
        flags = f"`--{key}`" + (f" `--{short[key]}`" if short.get(key, key) != key else "")
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).replace("{}", "")
        cells = (f"`{key}`", flags, kind.replace("|", "\\|"), shown, text.replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_backbone_defaults_as_markdown()]) + "\n"


def _backbone_defaults_as_markdown() -> list[str]:
    lines = ["", "## Defaults of a backbone", "", "Where neither flag nor file says otherwise:"]
    for backbone, sections in BACKBONE_DEFAULTS.items():
        lines += ["", f"| key | default with `{backbone}` |", "|---|---|"]
        lines += [f"| `{key}` | {value} |" for key, value in _flatten(sections)]
    return lines


_RECIPE_INTRODUCTION = (
    "Every choice that changes the result. A flag wins over the recipe file (`--recipe FILE.toml`), which "
    "wins over the default.\nUnknown keys are refused. `auto` is worked out later; what it became stands in "
    "`environment.json`.\n\nThis page is made from the fields in `src/saccade/config.py` (`make docs`)."
)


def differing_keys(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two recipes differ, with both values."""
    a, b = first.flat(), second.flat()
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys become nested dicts: {"train.epochs": 3} -> {"train": {"epochs": 3}}."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        if isinstance(value, Mapping) and isinstance(place.get(name), dict):
            place[name].update(value)
        else:
            place[name] = nest(value) if isinstance(value, Mapping) and key != "model.options" else value
    return nested


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, Any, str]]:
    for name, info in section.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{prefix}{name}.")
        else:
            default = info.get_default(call_default_factory=True)
            description = " ".join((info.description or "").split())
            yield f"{prefix}{name}", _type_name(annotation), default, description


def _type_name(annotation: Any) -> str:
    import types
    from typing import Union, get_args, get_origin

    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(part) for part in get_args(annotation))
    if origin is tuple:
        return ",".join("..." if part is Ellipsis else _type_name(part) for part in get_args(annotation))
    return getattr(annotation, "__name__", "value") if origin is None else origin.__name__


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "model.options":
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return value


def _problems(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a field: of a union's branches only the first complaint, with "or auto" where that is open."""
    lines: dict[str, str] = {}
    for entry in entries:
        key = _field_of([str(part) for part in entry["loc"]])
        is_auto = entry["loc"][-1:] == ("literal['auto']",)
        if is_auto and key in lines:
            lines[key] = lines[key].replace(", got ", " (or 'auto'), got ")
        else:
            lines.setdefault(key, _problem(entry))
    return list(lines.values())


def _problem(entry: Mapping[str, Any]) -> str:
    parts = [str(part) for part in entry["loc"]]
    if entry["type"] == "extra_forbidden":
        return unknown_key(".".join(parts))
    if entry["type"] == "value_error":
        return str(entry["ctx"]["error"])
    key = _field_of(parts)
    if entry["type"] in ("model_type", "dict_type"):
        return f"{key} is a section with keys of its own, got {entry['input']!r}; write them below [{key}]"
    return f"{key}: {entry['msg'].lower()}, got {entry['input']!r}"


def _field_of(parts: list[str]) -> str:
    """The recipe's key in a location, without the branch of a union that pydantic appends."""
    known = {key for key, *_ in field_table()}
    candidates = (".".join(parts[:n]) for n in (2, 1))
    return next((key for key in candidates if key in known), ".".join(parts))


def unknown_key(key: str) -> str:
    """Words for a key that no field has, with the nearest one that exists."""
    section, _, name = key.rpartition(".")
    known = [k.rpartition(".") for k, *_ in field_table()]
    names = [tail for head, _, tail in known if head == section]
    if not section:
        names = list(Recipe.model_fields)
    synonyms = {other: ours for other, ours in SYNONYMS.items() if ours in names}
    close = difflib.get_close_matches(name, [*names, *synonyms], n=1)
    if not close:
        elsewhere = [".".join((head, tail)) for head, _, tail in known if head and tail == name]
        hint = f"did you mean {elsewhere[0]!r}?" if elsewhere else f"known: {', '.join(sorted(names))}"
    elif close[0] in synonyms:
        hint = f"did you mean {synonyms[close[0]]!r} (the {close[0]})?"
    else:
        hint = f"did you mean {close[0]!r}?"
    return f"unknown key {key!r}; {hint}"
