"""Networks: `build_model` by name, `rebuild` from a bundle, freezing and unfreezing, the summary table."""

from saccade.models.backbones import BACKBONES, BackboneRow, backbones
from saccade.models.build import BuiltModel, build_model, preparation, rebuild, weights_origin
from saccade.models.finetune import (
    freeze,
    freeze_backbone,
    frozen_hash,
    layers,
    parameter_groups,
    rate_scales,
    set_training_mode,
    stages,
    unfreeze,
)
from saccade.models.network import Classifier
from saccade.models.summary import LayerRow, Summary, as_text, summary

__all__ = [
    "BACKBONES",
    "BackboneRow",
    "BuiltModel",
    "Classifier",
    "LayerRow",
    "Summary",
    "as_text",
    "backbones",
    "build_model",
    "freeze",
    "freeze_backbone",
    "frozen_hash",
    "layers",
    "parameter_groups",
    "preparation",
    "rate_scales",
    "rebuild",
    "set_training_mode",
    "stages",
    "summary",
    "unfreeze",
    "weights_origin",
]
