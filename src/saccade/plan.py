"""The plan of a run: every choice of the recipe with each "auto" worked out, made once, frozen.

`methods.make_plan` makes it from the recipe, the divided data and the built network. What trains takes values
from here and never sees the recipe. As JSON it is `resolved` in `environment.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from saccade.images.decoder import Limits
from saccade.preprocess import Preprocess
from saccade.transforms import NO_MIXING, Augmentation, Mixing

HEAD, FINETUNE, MAIN = "head", "finetune", "main"  # names of phases
WEIGHTS_SHA256 = "model.weights_sha256"


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of epochs with one learning rate and one set of learning parts.

    `fitted`: no steps, the head is fitted on frozen features. `unfreeze` is "head" (only the head learns),
    "all", or a spec of `models.finetune.unfreeze`. `keep_statistics`: BatchNorm goes on with the pretrained
    statistics, on which the head rests. `ema_decay` is that of the averaged weights, 0 for none; from a
    fitted head the average need not warm up, because where it begins is good already. `kept_views`: of how
    many views of an image the activations of the frozen stages are kept. `swa_epochs`: how many of the last
    epochs are averaged, 0 for none.
    """

    name: str
    epochs: int
    learning_rate: float
    unfreeze: str
    fitted: bool = False
    keep_statistics: bool = False
    ema_decay: float = 0.0
    ema_warm_up: bool = True
    kept_views: int = 0
    swa_epochs: int = 0


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """Which optimizer, and its settings; `gradient_clip` 0 is off, `layer_decay` 1 the same rate for all."""

    name: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    clip_by: str = "norm"
    layer_decay: float = 1.0


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """How the learning rate changes within a phase, and when a phase ends early (0 epochs: never).

    `monitor`: the validation figure that early stopping, plateau and the best checkpoint go by.
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int = 10
    step_factor: float = 0.1
    milestones: tuple[int, ...] = ()
    decay_factor: float = 0.9
    decay_power: float = 2.0
    restart_epochs: int = 5
    restart_growth: int = 1
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    plateau_min_lr: float = 0.0
    early_stopping: int = 0
    monitor: str = "loss"
    min_delta: float = 0.0


@dataclass(frozen=True, slots=True)
class LossPlan:
    """Which loss, and what it sees: smoothed targets, weighted classes.

    `class_weights`: "none", "auto" or weights by class. `logit_adjustment`: how much of the logarithms of the
    class shares is added to the logits. `gamma` is the focusing power of a loss that has one.
    """

    name: str = "cross_entropy"
    gamma: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str | Mapping[str, float] = "none"
    logit_adjustment: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The network as it was built."""

    backbone: str
    weights: str = ""
    weights_sha256: str = ""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weights_source: str = ""
    weights_licence: str = ""
    head: str = "linear"


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How images become batches, in training and in evaluation."""

    preprocess: Preprocess
    augmentation: Augmentation
    limits: Limits
    workers: int = 0
    cache_images: bool = True
    cache_bytes: int = 0  # of decoded images on disk, shared by all runs


@dataclass(frozen=True, slots=True)
class Plan:
    """All that training takes.

    `phases` are those of `method`, a name in `methods.METHODS`; `last_layers` is the phase that method auto
    takes in place of its last where the time is short. `learning_rate` is that of a head, or from scratch:
    fine-tuning is measured against it (promise 5). `precision` is as asked, "auto" included: what it becomes
    is decided a phase. `sampling`: how often an epoch visits the images of a class. `time_limit` in seconds
    for the whole command, 0 for none. `checkpoint_every`: seconds between checkpoints inside an epoch, 0 for
    none; it changes no result. `bounded`: nobody said how long to train, so method auto spends only as
    much as the gain that its trial predicts is worth.
    """

    method: str
    pretrained: bool
    phases: tuple[Phase, ...]
    learning_rate: float
    batch_size: int
    accumulate: int = 1
    epochs: int = 0  # of the main phase, as asked
    finetune_lr: float = 0.0
    seed: int = 0
    precision: str = "auto"
    optimizer: OptimizerPlan = OptimizerPlan()
    schedule: SchedulePlan = SchedulePlan()
    loss: LossPlan = LossPlan()
    mixing: Mixing = NO_MIXING
    sampling: str = "natural"
    multi_label: bool = False  # an image may have several labels: a sigmoid each, no softmax over all
    progressive_size: float = 0.0
    average_with_pretrained: float | Literal["auto"] = 0.0
    time_limit: float = 0.0
    checkpoint_every: float | Literal["auto"] = "auto"
    bounded: bool = False
    last_layers: Phase | None = None
    network: NetworkPlan = NetworkPlan("")
    input_plan: InputPlan | None = None  # None only before there is a network

    @property
    def images_a_step(self) -> int:
        """Training images of one step: `accumulate` batches, whose gradients are summed."""
        return self.batch_size * self.accumulate

    @property
    def planned_micro_batch(self) -> int:
        """Images at once where a step is several batches; 0 where it is one."""
        return self.batch_size if self.accumulate > 1 else 0

    @property
    def inputs(self) -> InputPlan:
        """How images become batches, in the plan of a run."""
        assert self.input_plan is not None, "the plan of a run says how images become batches"
        return self.input_plan

    def as_json(self) -> dict[str, Any]:
        """What every "auto" became, by the keys of the recipe."""
        return {
            "data.preprocess": self.inputs.preprocess.as_json(),
            "model.backbone": self.network.backbone,
            "model.weights": self.network.weights,
            WEIGHTS_SHA256: self.network.weights_sha256,
            "model.weights_source": self.network.weights_source,
            "model.weights_licence": self.network.weights_licence,
            "model.architecture": dict(self.network.architecture),
            "model.pretrained": self.pretrained,
            "model.notes": list(self.network.notes),
            "train.epochs": self.epochs,
            "train.lr": self.learning_rate,
            "train.finetune_lr": self.finetune_lr,
            "train.batch_size": self.batch_size,
            "train.ema_decay": self.phases[-1].ema_decay,
            "train.workers": self.inputs.workers,
            "augment": self.inputs.augmentation.as_json(),
        }
