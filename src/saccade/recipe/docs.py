"""The recipe's fields for people: short flags, and the page docs/recipe.md."""

from __future__ import annotations

from saccade.recipe.fields import flatten
from saccade.recipe.presets import BACKBONE_DEFAULTS
from saccade.recipe.recipe import field_table

# Short flags of the command line: name -> field.
SHORT_FLAGS: dict[str, str] = {
    "backbone": "model.backbone",
    "weights": "model.weights",
    "accept-licence": "model.accept_licence",
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
    "loss": "train.loss",
    "schedule": "train.schedule",
    "image-size": "data.image_size",
    "channels": "data.channels",
    "batch-size": "train.batch_size",
    "augment": "augment.policy",
    "seed": "seed",
    "device": "device",
    "precision": "precision",
    "target-precision": "evaluate.target_precision",
    "coverage": "evaluate.coverage",
    "average-with-pretrained": "train.average_with_pretrained",
    "time-limit": "train.time_limit",
    "checkpoint-every": "train.checkpoint_every",
    "path-column": "data.path_column",
    "label-column": "data.label_column",
    "multi-label": "data.multi_label",
    "label-delimiter": "data.label_delimiter",
    "label-columns": "data.label_columns",
    "root": "data.root",
    "folds": "split.folds",
    "group": "split.group",
    "group-pattern": "split.group_pattern",
    "drop-empty": "data.drop_empty",
    "decisions": "data.decisions",
    "repair-split": "split.repair",
    "allow-leaks": "split.allow_leaks",
}
# Field whose flag needs no value -> the value that it then has
WITHOUT_VALUE = {"train.class_weights": "auto"}


def recipe_as_markdown() -> str:
    """The content of docs/recipe.md: one table a section, made from the fields themselves.

    >>> recipe_as_markdown().splitlines()[0]
    '# The recipe'
    """
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
        lines += [f"| `{key}` | {value} |" for key, value in flatten(sections)]
    return lines


_RECIPE_INTRODUCTION = """\
The recipe holds every choice that changes the result. Each field is a flag (`--train.epochs 15`), a keyword
in Python (`ImageClassifier(train__epochs=15)`) and a line in a TOML file (`--recipe my.toml`):

```toml
seed = 1

[augment]
policy = "light"
vertical_flip = 0.5

[train]
method = "full"
epochs = 15
```

A flag wins over the file, which wins over the default. Unknown keys are refused with the nearest name.
`auto` is worked out later; `environment.json` in the run folder holds the value it got. Terms are explained
in the [glossary](glossary.md).

This page is made from the fields in `src/saccade/recipe` (`make docs`)."""
