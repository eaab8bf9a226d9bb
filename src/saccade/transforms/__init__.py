"""Pixels to network input: the evaluation path (`apply`), augmentation of training images, batches."""

from saccade.transforms.apply import normalise, to_input
from saccade.transforms.augment import augment
from saccade.transforms.batches import Batch, TrainingBatches, evaluation_batches, training_batches
from saccade.transforms.mix import NO_MIXING, Mixing, cut_mix, mix, mix_up, soft_targets
from saccade.transforms.strengths import Augmentation

__all__ = [
    "NO_MIXING",
    "Augmentation",
    "Batch",
    "Mixing",
    "TrainingBatches",
    "augment",
    "cut_mix",
    "evaluation_batches",
    "mix",
    "mix_up",
    "normalise",
    "soft_targets",
    "to_input",
    "training_batches",
]
