"""What is compared: saccade and its rivals, each with the environment it lives in and how it is started."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BACKBONE = "tf_efficientnet_lite0"  # saccade's default, so its own command names none
WEIGHTS = f"weights/{BACKBONE}.safetensors"  # below the environments; `setup` writes it
OURS = "saccade"


@dataclass(frozen=True)
class DataSet:
    """A folder below SACCADE_DATA and its two parts; `targets` are accuracies whose time is reported.

    `judged_by_test`: saccade's figure is the one it measures once on the part called test.
    """

    folder: str
    train: str
    validation: str
    targets: tuple[float, ...]
    judged_by_test: bool = False


DATA_SETS = {
    "flowers5": DataSet("data/flowers5", "train", "val", (0.848, 0.868)),
    "flowers12": DataSet("data/flowers12", "train", "test", (0.97,), judged_by_test=True),
}


@dataclass(frozen=True)
class Tool:
    """One way of training. `environment`: "saccade" (this one), or a folder that `setup` makes."""

    environment: str
    script: str
    flags: tuple[str, ...]
    what: str
    quick: bool = True  # under three minutes on two cores


TOOLS = {
    "saccade": Tool(OURS, "", (), "saccade train, defaults", quick=False),
    "saccade-head": Tool(OURS, "", ("--method", "head"), "saccade train --method head"),
    "saccade-tail": Tool(OURS, "", ("--method", "tail"), "saccade train --method tail"),
    "saccade-full": Tool(OURS, "", ("--method", "full"), "saccade train --method full", quick=False),
    "sklearn": Tool(
        "torch", "sklearn_features", (), "features by timm, float32; StandardScaler, LogisticRegression"
    ),
    "sklearn-tuned": Tool(
        "torch", "sklearn_features", ("--tuned",), "by hand: bfloat16 features; LogisticRegressionCV"
    ),
    "sklearn-mirrored": Tool(
        "torch", "sklearn_features", ("--tuned", "--mirrored"), "the same with mirrored photos"
    ),
    "keras": Tool("keras", "keras_frozen", (), "frozen base, Dense 256, dropout 0.5, Adam 1e-3, 5 epochs"),
    "keras-features": Tool(
        "keras", "keras_frozen", ("--features",), "features once, then the same head, 30 epochs"
    ),
    "fastai": Tool("torch", "fastai_finetune", (), "vision_learner(...).fine_tune(4)", quick=False),
    "timm": Tool(
        "torch", "timm_finetune", (), "AdamW 5e-4, warm-up, cosine, 5 epochs, all of the network", quick=False
    ),
    "timm-tuned": Tool(
        "torch", "timm_finetune", ("--tuned",), "the same with bfloat16 and channels-last", quick=False
    ),
}


def command(
    name: str, data_set: DataSet, data: Path, weights: Path, work: Path, environments: Path, seed: int
) -> list[str]:
    """What is typed to train one tool on `data`, a folder with the data set's two parts."""
    tool = TOOLS[name]
    if tool.environment == OURS:
        return [
            *(str(Path(sys.executable).with_name(OURS)), "train", str(data), "--out", str(work / "run")),
            *("--seed", str(seed), *tool.flags),
        ]
    return [
        *(str(interpreter(environments / tool.environment)), str(HERE / "rivals" / f"{tool.script}.py")),
        *(str(data), "--train", data_set.train, "--validation", data_set.validation),
        *("--weights", str(weights), "--curve", str(work / "curve.txt"), "--seed", str(seed), *tool.flags),
    ]


def accuracies(name: str, data_set: DataSet, work: Path) -> list[float]:
    """The accuracies a tool has made known so far, in order; read while it runs."""
    try:
        if TOOLS[name].environment != OURS:
            return [float(line.split()[1]) for line in (work / "curve.txt").read_text("ascii").splitlines()]
        if data_set.judged_by_test:
            measured = json.loads((work / "run/metrics/test.json").read_text("utf-8"))["accuracy"]
            return [float(measured["value"] if isinstance(measured, dict) else measured)]
        rows = (work / "run/history.jsonl").read_text("utf-8").splitlines()
        return [float(json.loads(row)["validation_accuracy"]) for row in rows]
    except (OSError, ValueError, IndexError):
        return []  # not there yet, or half written: the next look finds it


def interpreter(environment: Path) -> Path:
    """Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def missing(name: str, environments: Path) -> str:
    """What a tool lacks, in words; "" where it can be started."""
    place = TOOLS[name].environment
    if place == OURS:
        found = Path(sys.executable).with_name(OURS)
        return "" if found.exists() else f"no command {found}; install saccade into this environment"
    if interpreter(environments / place).exists():
        return ""
    return f"no environment {environments / place}; make it: python -m benchmarks setup {environments}"
