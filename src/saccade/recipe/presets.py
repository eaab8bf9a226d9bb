"""Defaults that a backbone or a method brings along, and the rates and sizes behind "auto".

What was measured to choose them stands in docs/lab-notes.md and docs/fast-training.md.
"""

from __future__ import annotations

from typing import Any

HARD_FINETUNE_RATIO = 0.1
OWN_PREFIX = "saccade/"
ALWAYS_FROM_SCRATCH = ("small_cnn", "fast_cnn")  # our own, which have no published weights
AUTO_BACKBONE = "auto"
DEFAULT_BACKBONE = "tf_efficientnet_lite0"  # its weights are a package (models/packages.py): no hub needed
DEFAULT_FINETUNE_RATIO = 0.01
# (backbone, optimizer) -> the rate where the optimizer's usual one does not fit: docs/lab-notes.md
BACKBONE_RATES = {
    ("small_cnn", "sgd"): 0.005,
    # six epochs of 2,000 photos: 49.9 % at 0.003, 62.0 % at 0.01, 64.7 % at 0.03
    ("fast_cnn", "timm/muon"): 0.02,
}

# What `batch_size` "auto" chooses among, and how many steps an epoch must have for the larger ones.
AUTO_BATCH_SIZES = {"fast_cnn": (16, 32, 64, 128, 256, 500)}
USUAL_BATCH_SIZE = 32
LEAST_STEPS_AN_EPOCH = 10

# What `epochs` "auto" is.
USUAL_EPOCHS, EPOCHS_FROM_FITTED_HEAD = 20, 10

# loss -> its focusing power where `loss_gamma` is "auto"; others have none
USUAL_GAMMAS = {"focal": 2.0, "asymmetric": 4.0}

# backbone -> its own defaults, where neither flag nor file says otherwise
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

# Setting one of these, and no method, selects the two-phase schedule.
CLASSIC_FIELDS = frozenset({"epochs", "head_epochs", "lr", "finetune_lr", "unfreeze"})
# method -> what it does, and which of these have no effect on that
WITHOUT_EFFECT = {
    "head": ("fits only the head, without epochs or a learning rate", CLASSIC_FIELDS),
    "full": ("fits the head directly and fine-tunes all layers", frozenset({"head_epochs", "unfreeze"})),
    "auto": ("fits the head directly and fine-tunes all layers", frozenset({"head_epochs", "unfreeze"})),
    "tail": ("fits the head directly", frozenset({"head_epochs"})),
}
# method -> its own defaults of training
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {"tail": {"unfreeze": "0.42", "epochs": 6}}
# Fields of `data` each of which says that an image may have several labels.
MULTI_LABEL_FIELDS = ("multi_label", "label_delimiter", "label_columns")
TAIL_VIEWS = 4
