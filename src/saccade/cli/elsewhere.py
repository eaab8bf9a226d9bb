"""What people who know Ultralytics, timm, Keras, fastai, Hugging Face or scikit-learn type, in our words.

A flag that means the same is taken and shown by its real name; where no flag does, the line to type is said.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

from saccade.called_elsewhere import FLAGS
from saccade.errors import RecipeError
from saccade.terminal import say_problem

# A flag there that needs no value -> words here
SWITCHES = {
    **dict.fromkeys(("gpu", "gpus", "cuda", "use_gpu"), ("--device", "cuda")),
    **dict.fromkeys(("cpu", "no_cuda", "use_cpu"), ("--device", "cpu")),
    "mps": ("--device", "mps"),
    "cos_lr": ("--schedule", "cosine"),
    **dict.fromkeys(("bf16", "bfloat16"), ("--precision", "bfloat16")),
    **dict.fromkeys(("no_augment", "no_aug", "no_augmentation"), ("--augment", "none")),
    "from_scratch": ("--no-pretrained",),
    "quantize": ("--int8",),
    **dict.fromkeys(("class_weight", "class_weights"), ("--train.class_weights",)),
}
# A flag there that is not needed here -> why
NEEDLESS = {
    **dict.fromkeys(("num_classes", "nc", "n_classes", "classes"), "the classes are those of the data"),
    **dict.fromkeys(("amp", "fp16", "half"), "the precision is chosen for the device (--precision)"),
    **dict.fromkeys(
        ("do_train", "do_eval", "do_predict", "plots"), "training ends with figures and a report"
    ),
    **dict.fromkeys(("v", "verbose"), "progress is shown anyway"),
    **dict.fromkeys(("shuffle", "deterministic"), "order and results follow from --seed"),
    **dict.fromkeys(("loss", "metrics"), "the loss is cross-entropy, and all metrics are measured"),
    "task": "saccade classifies images",
    "channels_last": "the memory layout is chosen for the network",
}
# A flag there, whose value is {} -> what is typed here
WRITTEN = {
    **dict.fromkeys(("drop_path", "drop_path_rate"), "--model.options drop_path_rate={}"),
    "model_ema": "--train.ema_decay 0.98",
    **dict.fromkeys(("name", "experiment", "exp_name", "run_name"), "--out runs/{}"),
    "project": "--out {}/NAME",
    "freeze": "--method finetune --unfreeze 2",
    "scale": "--augment.random_resized_crop {}",
    "color_jitter": "--augment.brightness {0} --augment.contrast {0} --augment.saturation {0}",
    "time": "--time-limit SECONDS",
}
# A flag there for which nothing here stands -> why
ABSENT = {
    "layer_decay": "all layers that are fine-tuned have one learning rate, --finetune-lr",
    "lrf": "--schedule says how the learning rate falls; cosine and linear end at 0",
    "class_map": "the classes are those of the data, in natural order",
    "fraction": "make a list of fewer images (docs/data.md)",
    "train_split": "parts are folders, or a column part of a list; --split.validation makes one",
    "log_wandb": "a callback watches the training from Python (docs/python.md)",
}
_WITH_A_VALUE = {"num_classes", "nc", "n_classes", "classes", "loss", "metrics", "task"}
_PLACES_OF_DATA = (
    *("data", "data_dir", "data_path", "train_dir", "train_data_dir", "dataset", "dataset_dir"),
    *("source", "input", "inputs", "images", "folder"),
)
_PLACES_OF_RUN = ("model", "run", "weights", "checkpoint", "model_path")
# What stands first, second, ... after a command -> names by which it is given elsewhere
PLACES = {
    **dict.fromkeys(("train", "audit", "split", "augment"), (_PLACES_OF_DATA,)),
    **dict.fromkeys(("predict", "evaluate"), (_PLACES_OF_RUN, _PLACES_OF_DATA)),
    **dict.fromkeys(("export", "bench"), (_PLACES_OF_RUN,)),
}
# (flag here, pattern of a value there) -> the value here
VALUES = (
    ("--device", r"gpu", "cuda"),
    ("--device", r"(\d)", r"cuda:\1"),
    ("--augment.automatic", r"ra(nd)?[-_ ]?.*", "rand_augment"),
    ("--augment.automatic", r"(auto[-_ ]?augment|original|v0).*", "auto_augment"),
    ("--augment.automatic", r"(ta|trivial).*", "trivial_augment"),
    ("--schedule", r"one[-_]?cycle(lr)?", "one_cycle"),
    ("--schedule", r"cosine[-_]?(annealing|decay).*", "cosine"),
    ("--schedule", r"(multi)?step(lr)?", "step"),
    ("--schedule", r"reduce[-_]?lr[-_]?on[-_]?plateau", "plateau"),
    ("--optimizer", r"momentum|nesterov", "sgd"),
    ("--optimizer", r"adamw[-_]torch.*", "adamw"),
    ("--train.workers", r"-1", "auto"),
    ("--batch-size", r"-1", "auto"),
    ("--augment.horizontal_flip", r"true", "0.5"),
    ("--augment.vertical_flip", r"true", "0.5"),
)
_WITH_VALUES = {flag for flag, *_ in VALUES}
# A command there -> the command here
COMMANDS_ELSEWHERE = {
    **dict.fromkeys(("fit", "finetune", "fine-tune", "learn", "classify", "classification", "run"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validate", "validation", "test", "eval", "score", "report"), "evaluate"
    ),
    **dict.fromkeys(("infer", "inference", "prediction", "detect", "label"), "predict"),
    **dict.fromkeys(("convert", "onnx", "save"), "export"),
    **dict.fromkeys(("benchmark", "profile", "latency", "speed"), "bench"),
    **dict.fromkeys(("models", "list", "networks", "architectures", "weights"), "backbones"),
    **dict.fromkeys(("check", "checks", "info", "env", "settings"), "doctor"),
    **dict.fromkeys(("inspect", "analyze", "analyse", "clean", "validate-data"), "audit"),
    **dict.fromkeys(("preview", "show", "augmentation"), "augment"),
    **dict.fromkeys(("example", "tutorial", "quickstart"), "demo"),
    **dict.fromkeys(("diff", "versus"), "compare"),
}
_SERVERS = ("serve", "server", "deploy", "api", "app", "web")
_TASKS = ("classify", "classification", "yolo")  # `yolo classify train data=...`


def in_our_words(words: list[str], commands: Sequence[str]) -> None:
    """Replace, in place, what is called otherwise elsewhere by its name here, and say so.

    words: what was typed after `saccade`. commands: the names of ours.

    >>> words = ["train", "data=photos", "imgsz=96", "-b", "8"]
    >>> in_our_words(words, ["train"])
    >>> words
    ['train', 'photos', '--image-size=96', '--batch-size', '8']
    """
    if words in (["-v"], ["-V"], ["version"]):
        words[:] = ["--version"]
    if len(words) > 1 and words[0] in _TASKS:
        del words[0]
    if not words or words[0] not in commands:
        return
    told = _Told(words[0])
    words[1:] = told.translated(words[1:])
    for note in told.notes:
        say_problem("note", note)
    _refuse_ultralytics(words)


class _Told:
    """Translates the words after one command, and keeps what is to be said of it."""

    def __init__(self, command: str) -> None:
        self.command, self.notes = command, list[str]()
        self.places = PLACES.get(command, ())
        self.placed: dict[int, str] = {}

    def translated(self, words: Sequence[str]) -> list[str]:
        """The words here; what has a place of its own comes first."""
        rest, done = list(words), list[str]()
        while rest:
            word = rest.pop(0)
            after_flag = bool(done) and done[-1].startswith("--") and "=" not in done[-1]
            if not word.startswith("-") and (after_flag or not self._is_pair(word)):
                done.append(word)
                continue
            flag = word if word.startswith("-") else f"--{word}"
            done += self._flag(flag, rest)
        return [*(self.placed[place] for place in sorted(self.placed)), *done]

    def _is_pair(self, word: str) -> bool:
        """Whether it is KEY=VALUE as Ultralytics writes flags, and no file of that name."""
        key, equals, _ = word.partition("=")
        flags = (*FLAGS, *SWITCHES, *NEEDLESS, *WRITTEN, *ABSENT)
        known = plain(key) in (*flags, *(name for names in self.places for name in names))
        return (
            bool(equals)
            and key.isidentifier()
            and not os.path.exists(word)
            and (known or self._has(f"--{key}"))
        )

    def _flag(self, word: str, rest: list[str]) -> list[str]:
        """What one flag is here; its value, where it has one, is in it or still the first of `rest`."""
        typed, equals, value = word.partition("=")
        name = plain(typed)
        if self._has(typed):
            return self._with_value(typed, equals, value, rest) if typed in _WITH_VALUES else [word]
        place = next((i for i, names in enumerate(self.places) if name in names), None)
        if place is not None and (equals or rest):
            self.placed[place] = value if equals else rest.pop(0)
            return []
        if name in NEEDLESS and self.command == "train":
            return self._without(typed, equals, rest)
        if name in SWITCHES and self._has(SWITCHES[name][0]):
            self.notes.append(f"{typed} is {' '.join(SWITCHES[name])} here")
            if rest[:1] and rest[0] in ("0", "1", "True", "true", "balanced"):
                rest.pop(0)
            return list(SWITCHES[name])
        flag = next(
            (ours for ours in (FLAGS.get(name, ""), f"--{name.replace('_', '-')}") if self._has(ours)), ""
        )
        if not flag:
            return [word]
        self.notes.append(f"{typed} is {flag} here")
        return self._with_value(flag, equals, value, rest)

    def _without(self, typed: str, equals: str, rest: list[str]) -> list[str]:
        """Nothing: what is said there need not be said here."""
        if plain(typed) in _WITH_A_VALUE and not equals and rest and not rest[0].startswith("-"):
            rest.pop(0)
        self.notes.append(f"{typed} is not needed: {NEEDLESS[plain(typed)]}")
        return []

    def _with_value(self, flag: str, equals: str, value: str, rest: list[str]) -> list[str]:
        if equals:
            return [f"{flag}={self._value(flag, value)}"]
        return [flag, self._value(flag, rest.pop(0))] if rest and not rest[0].startswith("--") else [flag]

    def _value(self, flag: str, value: str) -> str:
        """The value as it is called here."""
        for known, pattern, ours in VALUES:
            if flag == known and (found := re.fullmatch(pattern, value, re.IGNORECASE)):
                if found.expand(ours) != value:
                    self.notes.append(f"{value} is {found.expand(ours)} here")
                return found.expand(ours)
        return value

    def _has(self, flag: str) -> bool:
        from saccade.cli.help import flags_of

        return flag in flags_of(self.command)


def plain(flag: str) -> str:
    """A flag without dashes in front, and with _ for those within.

    >>> plain("--Batch-Size"), plain("-j")
    ('batch_size', 'j')
    """
    return flag.lstrip("-").replace("-", "_").lower()


def _refuse_ultralytics(words: Sequence[str]) -> None:
    """Raise RecipeError for a network of Ultralytics, with the line that does without it."""
    text = shlex.join(words)
    found = re.search(r" --backbone[ =]((yolo|rtdetr)\S*)", text, re.IGNORECASE)
    if found:
        raise RecipeError(
            f"{found[1]} is a network of Ultralytics; saccade has those of timm and torchvision",
            hint=f"saccade {text.replace(found[0], '')}",
        )


def line_meant(words: Sequence[str], examples: dict[str, tuple[str, ...]]) -> str:
    """The line to type instead of one whose command is called otherwise here; "" where nobody knows.

    >>> line_meant(["fit", "photos"], {})
    'saccade train photos'
    """
    word, rest = words[0], words[1:]
    if word in _SERVERS:
        return " ".join(["saccade export", *(rest or ["RUN"])])
    if word in ("resume", "continue"):
        return " ".join(["saccade train --resume", *(rest or ["RUN"])])
    ours = COMMANDS_ELSEWHERE.get(word.lower(), "")
    if not ours:
        return ""
    return f"saccade {ours} {shlex.join(rest)}" if rest else examples[ours][0]


def is_server(word: str) -> bool:
    return word in _SERVERS


def joined(words: Iterable[str]) -> str:
    return shlex.join(["saccade", *words])
