"""Pixels to network input: the evaluation path (`apply`), augmentation of training images, batches."""

from saccade.transforms.apply import normalise, to_input
from saccade.transforms.augment import Augmentation, augment
from saccade.transforms.batches import Batch, TrainingBatches, evaluation_batches, training_batches
from saccade.transforms.mix import cut_mix, mix, mix_up, soft_targets

__all__ = [
    "Augmentation",
    "Batch",
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
