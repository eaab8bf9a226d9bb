"""Fields that were given and change nothing, beside the rest of the recipe or on these data.

What contradicts itself is refused elsewhere; what is here costs the user nothing but a wrong belief, so it
is said. Defaults, and what a method, a backbone or a policy brings along, do not count: nobody asked for
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from saccade.plan import Phase, Plan
from saccade.preprocess import GRAY, RGB, PixelFormat
from saccade.recipe import HARD_FINETUNE_RATIO, USUAL_GAMMAS, WITH_MOMENTUM, AugmentConfig, Recipe
from saccade.recipe.augmentation import BESIDE_STEPS
from saccade.records import Dataset
from saccade.training.schedules import growing_side
from saccade.transforms import Augmentation
from saccade.transforms.memory import fits_in_memory


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides whether a field has an effect: the recipe, and what its "auto" and the data came to.

    `device`: its kind ("cpu", "cuda"). `in_memory`: small images come augmented from memory.
    """

    recipe: Recipe
    phases: tuple[Phase, ...]
    augmentation: Augmentation
    resize: str
    side: int
    given_parts: tuple[str, ...]
    class_counts: tuple[int, ...]
    finetune_lr: float
    device: str
    in_memory: bool
    pixels: PixelFormat = RGB

    @classmethod
    def of(cls, recipe: Recipe, plan: Plan, dataset: Dataset, device: str) -> Situation:
        """That of a run whose data are divided and whose network is built."""
        inputs = plan.inputs
        fits = fits_in_memory(len(dataset.used("train")), inputs.preprocess, inputs.augmentation)
        return cls(
            recipe=recipe,
            phases=plan.phases,
            augmentation=inputs.augmentation,
            resize=inputs.preprocess.resize,
            side=inputs.preprocess.size,
            given_parts=dataset.given_parts,
            class_counts=tuple(dataset.counts("train").values()),
            finetune_lr=plan.finetune_lr,
            device=device,
            in_memory=inputs.cache_images and fits,
            pixels=inputs.preprocess.pixels,
        )

    @property
    def from_scratch(self) -> bool:
        return not self.recipe.starts_pretrained

    @property
    def head_alone(self) -> bool:
        """Whether nothing but a head is fitted, without steps."""
        return all(phase.fitted for phase in self.phases)

    @property
    def longest_phase(self) -> int:
        """Epochs of the longest phase that has any."""
        return max((phase.epochs for phase in self.phases if not phase.fitted), default=0)

    @property
    def first_milestone(self) -> int:
        """Epochs before the first drop of schedule multi_step; 0 where it is by share of the phase."""
        return min(self.recipe.train.milestones, default=0)

    @property
    def trains_everything(self) -> bool:
        return any(phase.unfreeze == "all" for phase in self.phases)

    @property
    def lr_unused(self) -> bool:
        """Whether no phase learns at `train.lr` or at a share of it."""
        train = self.recipe.train
        solved_or_none = self.recipe.from_fitted_head or not train.head_epochs
        return not self.from_scratch and solved_or_none and train.finetune_lr != "auto"

    @property
    def is_gentle(self) -> bool:
        """Whether fine-tuning needs no permission for its rate (promise 5)."""
        return self.finetune_lr <= HARD_FINETUNE_RATIO * self.recipe.learning_rate * (1 + 1e-9)

    def mirrors_without(self, field: str) -> bool:
        """Whether training images would be mirrored all the same with this field of `augment` by default."""
        usual = AugmentConfig.model_fields[field].default
        other = Augmentation.from_config(self.recipe.augment.model_copy(update={field: usual}))
        return other.mirrors == self.augmentation.mirrors


class Rule(NamedTuple):
    """Fields that change nothing where `applies`, and why."""

    fields: Iterable[str]
    why: str
    applies: Callable[[Situation], bool]


def _train(*names: str) -> tuple[str, ...]:
    return tuple(f"train.{name}" for name in names)


_CLIP = ("gradient_clip", "gradient_clip_by")
_PLATEAU = ("plateau_patience", "plateau_factor", "plateau_min_lr")
# field of a schedule -> the schedules that use it
_OF_SCHEDULE = {
    "step_epochs": ("step",),
    "step_factor": ("step", "multi_step"),
    "milestones": ("multi_step",),
    "decay_factor": ("exponential",),
    "decay_power": ("polynomial",),
    "restart_epochs": ("cosine_restarts",),
    "restart_growth": ("cosine_restarts",),
    **dict.fromkeys(_PLATEAU, ("plateau",)),
}
_OF_STEPS = _train(
    *("optimizer", "momentum", "weight_decay", "schedule", "warmup_epochs", *_OF_SCHEDULE),
    *("early_stopping", "min_delta", "progressive_size", "ema_decay", "swa_epochs", *_CLIP, "layer_decay"),
    *("average_with_pretrained", "accumulate", "batch_size", "workers", "kept_views"),
    *("allow_large_finetune_lr", "checkpoint_every"),
)
_OF_VIEWS = tuple(
    f"augment.{name}"
    for name in AugmentConfig.model_fields
    if name not in ("policy", "horizontal_flip", "steps")
)
_OF_POLICY = tuple(f"augment.{name}" for name in AugmentConfig.model_fields if name not in BESIDE_STEPS)
_OF_TWO_PHASES = _train(
    *("method", "head_epochs", "finetune_lr", "allow_large_finetune_lr", "unfreeze", "kept_views"),
    "average_with_pretrained",
)

RULES = (
    Rule(
        _OF_TWO_PHASES,
        "training from scratch has one phase, which trains the whole network",
        lambda s: s.from_scratch,
    ),
    Rule(
        ["model.pretrained"],
        "this backbone has no published weights and always starts from scratch",
        lambda s: s.from_scratch and s.recipe.model.pretrained,
    ),
    Rule(
        ["split.validation"],
        "with folds each image outside of the test part validates one of them",
        lambda s: s.recipe.split.folds > 0,
    ),
    Rule(
        [*_OF_STEPS, "model.dropout", "model.drop_path"],
        "method head fits a linear probe directly, without training steps",
        lambda s: s.head_alone,
    ),
    Rule(
        ["precision"],
        "method head has no training steps, and its features on a CPU do not depend on it",
        lambda s: s.head_alone and s.device == "cpu",
    ),
    Rule(
        _OF_POLICY,
        "augment.steps names the steps",
        lambda s: bool(s.recipe.augment.steps),
    ),
    Rule(
        _OF_VIEWS,
        "method head uses the images without augmentation and, where flips are allowed, their mirror images",
        lambda s: s.head_alone,
    ),
    *(
        Rule(
            [f"augment.{name}"],
            "method head only asks whether flips are allowed, and this setting does not change that",
            lambda s, name=name: s.head_alone and s.mirrors_without(name),  # type: ignore[misc]
        )
        for name in ("policy", "horizontal_flip", "steps")
    ),
    Rule(
        _train("lr"),
        "fine-tuning uses train.finetune_lr, and there is no other phase with training steps",
        lambda s: s.lr_unused,
    ),
    Rule(
        _train("allow_large_finetune_lr"),
        "the fine-tuning learning rate is at most a tenth of train.lr",
        lambda s: s.is_gentle,
    ),
    Rule(
        _train("kept_views"),
        "method full trains the whole network, so no activations are cached",
        lambda s: s.recipe.train.method == "full",
    ),
    Rule(
        _train("momentum"),
        "this optimizer has no momentum to be set",
        lambda s: s.recipe.train.optimizer not in WITH_MOMENTUM,
    ),
    *(
        Rule(
            _train(name),
            f"only schedule = {' and '.join(users)} uses it",
            lambda s, users=users: s.recipe.train.schedule not in users,  # type: ignore[misc]
        )
        for name, users in _OF_SCHEDULE.items()
    ),
    Rule(
        _train("step_factor"),
        "no phase is longer than the first of train.milestones, so the learning rate never drops",
        lambda s: s.recipe.train.schedule == "multi_step" and s.longest_phase <= s.first_milestone,
    ),
    Rule(
        _train("restart_growth"),
        "no phase is longer than train.restart_epochs, so the learning rate never starts again",
        lambda s: (
            s.recipe.train.schedule == "cosine_restarts" and s.longest_phase <= s.recipe.train.restart_epochs
        ),
    ),
    Rule(
        _train("step_epochs", "step_factor"),
        "no phase is longer than train.step_epochs, so the learning rate never drops",
        lambda s: s.recipe.train.schedule == "step" and s.longest_phase <= s.recipe.train.step_epochs,
    ),
    Rule(
        _train("min_delta"),
        "train.early_stopping is 0",
        lambda s: not s.recipe.train.early_stopping,
    ),
    Rule(
        _train("ema_decay"),
        "train.swa_epochs averages the weights of the last epochs instead",
        lambda s: s.recipe.train.swa_epochs > 0,
    ),
    Rule(
        _train("average_with_pretrained"),
        "fine-tuning begins with a new head, as train.head_epochs is 0",
        lambda s: not s.from_scratch and len(s.phases) == 1 and not s.head_alone,
    ),
    Rule(
        _train("gradient_clip_by"),
        "train.gradient_clip is 0",
        lambda s: not s.recipe.train.gradient_clip,
    ),
    Rule(
        _train("warmup_epochs"),
        "schedule = one_cycle has its own warm-up",
        lambda s: s.recipe.train.schedule == "one_cycle",
    ),
    Rule(
        _train("progressive_size"),
        "only training of the whole network starts with smaller images",
        lambda s: not s.trains_everything,
    ),
    Rule(
        _train("progressive_size"),
        "images grow in steps of 32 pixels, and the first step is already the full size",
        lambda s: growing_side(0.0, start=s.recipe.train.progressive_size, full=s.side) == s.side,
    ),
    Rule(
        _train("class_weights"),
        "all classes have the same number of training images",
        lambda s: len(set(s.class_counts)) == 1 and s.recipe.train.class_weights == "auto",
    ),
    Rule(
        [*_train("sampling", "logit_adjustment"), "evaluate.logit_adjustment"],
        "all classes have the same number of training images",
        lambda s: len(set(s.class_counts)) == 1,
    ),
    Rule(
        _train("loss_gamma"),
        "only the losses focal and asymmetric use it",
        lambda s: s.recipe.train.loss not in USUAL_GAMMAS,
    ),
    Rule(
        _train("workers"),
        "images of this size are kept and augmented in memory",
        lambda s: s.in_memory,
    ),
    Rule(
        ["data.cache_gb"],
        "images of this size are kept and augmented in memory",
        lambda s: s.in_memory and not s.recipe.solves_head,
    ),
    Rule(
        ["data.cache_gb"],
        "train.cache_images is false",
        lambda s: not s.recipe.train.cache_images,
    ),
    Rule(
        ["data.crop_fraction"],
        "only resize = crop uses it",
        lambda s: s.resize != "crop",
    ),
    Rule(
        ["augment.saturation", "augment.hue", "augment.grayscale"],
        "images of data.channels gray or a number have no colours",
        lambda s: not s.pixels.is_colour,
    ),
    Rule(
        ["augment.jpeg_quality"],
        "a JPEG has 8 bits, and the images have 16",
        lambda s: s.pixels.bits == 16,
    ),
    Rule(
        ["data.bits"],
        "images of data.channels rgb are read with 8 bits",
        lambda s: s.pixels.is_colour,
    ),
    Rule(
        ["data.background"],
        "a number of data.channels keeps transparency as it is, as a channel",
        lambda s: s.pixels.channels not in (RGB.channels, GRAY),
    ),
    Rule(
        ["model.dropout"],
        "the mlp head has its own dropout, 0.5",
        lambda s: s.recipe.model.head == "mlp",
    ),
    Rule(
        ["augment.crop_border"],
        "augment.random_crop is off, so there is no border to fill",
        lambda s: not s.augmentation.random_crop,
    ),
    Rule(
        ["augment.fill_mode", "augment.fill_colour"],
        "no rotation, zoom, shift, shear, perspective or random_crop is on, so nothing is uncovered",
        lambda s: not s.augmentation.uncovers,
    ),
    Rule(
        ["augment.fill_colour"],
        "only augment.fill_mode = constant uses it",
        lambda s: s.augmentation.fill_mode != "constant",
    ),
    Rule(
        ["augment.mix_switch"],
        "augment.mix_up and augment.cut_mix are not both on",
        lambda s: not (s.augmentation.mix_up and s.augmentation.cut_mix),
    ),
    Rule(
        ["augment.mix_until"],
        "augment.mix_up and augment.cut_mix are off",
        lambda s: not s.augmentation.mixing.on,
    ),
    Rule(
        ["augment.alternate_flip"],
        "augment.horizontal_flip is off",
        lambda s: not s.augmentation.horizontal_flip,
    ),
    Rule(
        ["augment.horizontal_flip"],
        "augment.alternate_flip flips each image in every second epoch, whatever the probability",
        lambda s: s.augmentation.alternate_flip and s.mirrors_without("horizontal_flip"),
    ),
    Rule(
        ["evaluate.precision"],
        "each image has one label, so there are no thresholds",
        lambda s: not s.recipe.multi_label,
    ),
    Rule(
        ["evaluate.top_k"],
        "an image may have several labels, so there is no rank of the one",
        lambda s: s.recipe.multi_label,
    ),
    Rule(
        ["evaluate.target_precision", "evaluate.coverage"],
        "an image may have several labels, and each label has a threshold of its own",
        lambda s: s.recipe.multi_label,
    ),
    Rule(
        ["data.multi_label"],
        "label_delimiter or label_columns says so already",
        lambda s: bool(s.recipe.data.label_delimiter or s.recipe.data.label_columns),
    ),
    Rule(
        ["split.validation"],
        "the data have a validation part",
        lambda s: "validation" in s.given_parts,
    ),
    Rule(
        ["split.test"],
        "the split is given, and no test part is added to a given split",
        lambda s: bool(s.given_parts),
    ),
    Rule(
        ["split.repair", "split.allow_leaks"],
        "no split is given, and a split that saccade makes has no leaks",
        lambda s: not s.given_parts,
    ),
)


def without_effect(situation: Situation, given: Iterable[str]) -> dict[str, str]:
    """Those of the `given` fields (dotted keys) that change nothing here -> why, in the recipe's order."""
    asked = set(given)
    reasons: dict[str, str] = {}
    for rule in RULES:
        if asked.intersection(rule.fields) and rule.applies(situation):
            for field in rule.fields:
                reasons.setdefault(field, rule.why)
    return {key: reasons[key] for key in situation.recipe.flat() if key in asked and key in reasons}


def as_sentence(reasons: Mapping[str, str]) -> str:
    """One line for the terminal, fields with the same reason together; "" where there is nothing to say."""
    fields: dict[str, list[str]] = {}
    for key, why in reasons.items():
        fields.setdefault(why, []).append(key)
    told = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in fields.items())
    return f"Recipe    no effect in this run: {told}" if told else ""
