"""The methods by name, and from a recipe to the plan of a run: every "auto" worked out in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from saccade.images.decoder import Limits
from saccade.methods import auto, classic, full, head, scratch, tail
from saccade.methods.phases import finetune_rate, last_layers, refuse_large_finetune_rate
from saccade.methods.probe import Probe
from saccade.models import BuiltModel
from saccade.plan import InputPlan, LossPlan, NetworkPlan, OptimizerPlan, Phase, Plan, SchedulePlan
from saccade.recipe import Recipe, TrainConfig
from saccade.threads import usable_cores
from saccade.training.job import TrainingJob
from saccade.training.loop import FitResult
from saccade.transforms import Augmentation

FEW_CORES, MOST_WORKERS = 4, 8


@dataclass(frozen=True, slots=True)
class Method:
    """`phases` of a recipe, and the training that goes through them; `probe` has the frozen features."""

    phases: Callable[[Recipe], tuple[Phase, ...]]
    train: Callable[[TrainingJob, Probe | None], FitResult]


SCRATCH = "scratch"

# name in the recipe -> method; what starts from scratch has its own, whatever stands there
METHODS: dict[str, Method] = {
    "head": Method(head.phases, head.train),
    "tail": Method(tail.phases, tail.train),
    "full": Method(full.phases, full.train),
    "auto": Method(auto.phases, auto.train),
    "finetune": Method(classic.phases, classic.train),
    SCRATCH: Method(scratch.phases, scratch.train),
}


def phases_of(recipe: Recipe) -> tuple[str, tuple[Phase, ...]]:
    """The name of a recipe's method, and its phases.

    Raises RecipeError for a method that needs pretrained weights and has none, PromiseError for fine-tuning
    that is not gentle (promise 5).
    """
    if not recipe.starts_pretrained:
        return SCRATCH, METHODS[SCRATCH].phases(recipe)
    refuse_large_finetune_rate(recipe)
    return recipe.train.method, METHODS[recipe.train.method].phases(recipe)


def make_plan(recipe: Recipe, network: BuiltModel) -> Plan:
    """The plan of a run: `plan_training`, with the built network and how images become its input.

    `recipe` names one backbone and one batch size. Raises RecipeError and PromiseError as `phases_of` does.
    """
    built = NetworkPlan(
        backbone=recipe.model.backbone,
        weights=recipe.model.weights,
        weights_sha256=network.weights_sha256,
        architecture=network.architecture,
        notes=tuple(network.notes),
        weights_source=network.origin.source if network.origin else "",
        weights_licence=network.origin.licence if network.origin else "",
        head=recipe.model.head,
    )
    inputs = InputPlan(
        preprocess=network.preprocess,
        augmentation=Augmentation.from_config(recipe.augment),
        limits=Limits.of(recipe.data, network.preprocess.pixels),
        workers=worker_count(recipe),
        cache_images=recipe.train.cache_images,
        cache_bytes=int(recipe.data.cache_gb * 1e9),
    )
    return replace(plan_training(recipe), network=built, input_plan=inputs)


def plan_training(recipe: Recipe) -> Plan:
    """What of the plan needs neither network nor images."""
    train, augmentation = recipe.train, Augmentation.from_config(recipe.augment)
    method, phases = phases_of(recipe)
    return Plan(
        method=method,
        pretrained=recipe.starts_pretrained,
        phases=phases,
        last_layers=last_layers(recipe) if method == "auto" else None,
        learning_rate=recipe.learning_rate,
        finetune_lr=finetune_rate(recipe),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        precision=recipe.precision,
        accumulate=train.accumulate,
        optimizer=_optimizer(train),
        schedule=_schedule(train),
        loss=_loss(recipe),
        mixing=augmentation.mixing,
        sampling=train.sampling,
        multi_label=recipe.multi_label,
        progressive_size=train.progressive_size,
        average_with_pretrained=train.average_with_pretrained,
        time_limit=train.time_limit,
        checkpoint_every=train.checkpoint_every,
        bounded=train.epochs == "auto" and not train.time_limit,
    )


def _optimizer(train: TrainConfig) -> OptimizerPlan:
    return OptimizerPlan(
        name=train.optimizer,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        gradient_clip=train.gradient_clip,
        clip_by=train.gradient_clip_by,
        layer_decay=train.layer_decay,
    )


def _schedule(train: TrainConfig) -> SchedulePlan:
    """The fields of a schedule have the same names in the recipe and in the plan."""
    same = [field.name for field in fields(SchedulePlan) if field.name != "name"]
    return SchedulePlan(name=train.schedule, **{name: getattr(train, name) for name in same})


def _loss(recipe: Recipe) -> LossPlan:
    train = recipe.train
    return LossPlan(
        name=train.loss,
        gamma=recipe.loss_gamma,
        label_smoothing=train.label_smoothing,
        class_weights=train.class_weights,
        logit_adjustment=train.logit_adjustment,
    )


def worker_count(recipe: Recipe) -> int:
    """Processes that decode images: none on four cores or fewer, where they would only fight."""
    if recipe.train.workers != "auto":
        return recipe.train.workers
    cores = usable_cores()
    return 0 if cores <= FEW_CORES else min(MOST_WORKERS, cores - 2)
