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
    **dict.fromkeys(("class_weight", "class_weights"), ("--train.class_weights", "auto")),
    **dict.fromkeys(("tta", "test_time_augmentation"), ("--evaluate.flip",)),
}
# What a switch says by its value; those of devices may be followed by a device's number
_ON, _OFF = ("true", "1", "yes", "on", "balanced"), ("false", "0", "no", "off", "none")
_DEVICES = ("gpu", "gpus", "cuda")
# A switch there that is off -> words here; others off are as nothing here
SWITCHED_OFF = {
    **dict.fromkeys((*_DEVICES, "use_gpu"), ("--device", "cpu")),
    "cos_lr": ("--schedule", "linear"),
    **dict.fromkeys(("amp", "fp16", "half"), ("--precision", "float32")),
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
    "metrics": "all metrics are measured",
    "task": "saccade classifies images",
    "channels_last": "the memory layout is chosen for the network",
}
# A flag there, whose value is {} -> what is typed here
WRITTEN = {
    "model_ema": "--train.ema_decay 0.98",
    "min_lr": "--schedule plateau --train.plateau_min_lr {} (cosine and linear end at 0)",
    **dict.fromkeys(("name", "experiment", "exp_name", "run_name"), "--out runs/{}"),
    "project": "--out {}/NAME",
    "log_wandb": "--track wandb",
    "freeze": "--method finetune --unfreeze 2",
    "scale": "--augment.random_resized_crop {}",
    "color_jitter": "--augment.brightness {0} --augment.contrast {0} --augment.saturation {0}",
    "time": "--time-limit SECONDS",
}
# A flag there for which nothing here stands -> why
ABSENT = {
    "lrf": "--schedule says how the learning rate falls; cosine and linear end at 0",
    "class_map": "the classes are those of the data, in natural order",
    "fraction": "make a list of fewer images, a .csv with the columns path and label",
    "train_split": "parts are folders, or a column part of a list; --split.validation makes one",
}
_WITH_A_VALUE = {"num_classes", "nc", "n_classes", "classes", "metrics", "task"}
# What is not needed here -> pattern of the values that it may have, and what is said of others
_AS_HERE = {
    "task": (r"(image[-_ ])?classif.*", "saccade classifies whole images, one class each"),
    "shuffle": (r"true|1|yes|on|", "training images are drawn in random order (--seed), others in their own"),
}
_PLACES_OF_DATA = (
    *("data", "data_dir", "data_path", "train_dir", "train_data_dir", "dataset", "dataset_dir"),
    *("source", "input", "inputs", "images", "folder"),
)
_PLACES_OF_RUN = ("model", "run", "weights", "checkpoint", "model_path")
# What stands first, second, ... after a command -> names by which it is given elsewhere
PLACES = {
    **dict.fromkeys(("train", "audit", "split", "augment", "lr"), (_PLACES_OF_DATA,)),
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
    ("--augment.automatic", r"aug[-_]?mix.*", "aug_mix"),
    ("--schedule", r"one[-_]?cycle(lr)?", "one_cycle"),
    ("--schedule", r"sgdr|cosine.*restarts", "cosine_restarts"),
    ("--schedule", r"cosine[-_]?(annealing|decay|lr|scheduler).*", "cosine"),
    ("--schedule", r"(linear|constant)[-_]?(lr|scheduler|decay)", r"\1"),
    ("--augment", r"heavy|hard|high", "strong"),
    ("--augment", r"weak|easy|low|basic|simple", "light"),
    ("--augment", r"default|normal|standard", "medium"),
    ("--augment", r"off|no|false", "none"),
    ("--schedule", r"step[-_]?lr", "step"),
    ("--schedule", r"multi[-_]?step([-_]?lr)?", "multi_step"),
    ("--schedule", r"exp(onential)?([-_]?lr)?", "exponential"),
    ("--schedule", r"poly(nomial)?([-_]?(lr|decay))?", "polynomial"),
    ("--schedule", r"reduce[-_]?lr[-_]?on[-_]?plateau", "plateau"),
    ("--loss", r"bce.*|binary[-_ ]?cross[-_ ]?entropy.*", "bce"),
    (
        "--loss",
        r"(sparse|categorical|[-_ ])*(cross[-_ ]?entropy|ce|nll|log)[-_ ]?(loss|flat)*",
        "cross_entropy",
    ),
    ("--loss", r"(sigmoid[-_ ]?)?focal[-_ ]?(loss)?(flat)?", "focal"),
    ("--loss", r"asl|asymmetric[-_ ]?loss.*", "asymmetric"),
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
    **dict.fromkeys(("val", "valid", "validate", "validation", "test", "eval", "score"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "prediction", "detect", "label"), "predict"),
    **dict.fromkeys(("convert", "onnx", "save"), "export"),
    **dict.fromkeys(("benchmark", "profile", "latency", "speed"), "bench"),
    **dict.fromkeys(("models", "list", "networks", "architectures", "weights"), "backbones"),
    **dict.fromkeys(("check", "checks", "info", "env", "settings"), "doctor"),
    **dict.fromkeys(("inspect", "analyze", "analyse", "clean", "validate-data"), "audit"),
    **dict.fromkeys(("preview", "show", "augmentation"), "augment"),
    **dict.fromkeys(("lr-find", "lr_find", "find-lr", "lr-finder", "tune-lr"), "lr"),
    **dict.fromkeys(("example", "tutorial", "quickstart"), "demo"),
    **dict.fromkeys(("diff", "versus"), "compare"),
}
_SERVERS = ("server", "deploy", "api", "app", "web")
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
    _refuse_resume(words)
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
            done += self._flag(word, rest) if word.startswith("-") else self._pair(word, rest)
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

    def _pair(self, word: str, rest: list[str]) -> list[str]:
        """What one KEY=VALUE is here: there it also names what has a place of its own, such as data."""
        key, _, value = word.partition("=")
        place = self._place(plain(key))
        if place is None:
            return self._flag(f"--{word}", rest)
        self.placed[place] = value
        return []

    def _place(self, name: str) -> int | None:
        return next((i for i, names in enumerate(self.places) if name in names), None)

    def _flag(self, word: str, rest: list[str]) -> list[str]:
        """What one flag is here; its value, where it has one, is in it or still the first of `rest`."""
        typed, equals, value = word.partition("=")
        name = plain(typed)
        if self._has(typed):
            return self._with_value(typed, equals, value, rest) if typed in _WITH_VALUES else [word]
        place = self._place(name)
        if place is not None and (equals or rest):
            self.placed[place] = value if equals else rest.pop(0)
            return []
        if name in NEEDLESS and self.command == "train":
            return self._without(typed, value, rest)
        if name in SWITCHES and self._has(SWITCHES[name][0]):
            return self._switched(typed, value or _switch_value(rest))
        flag = next(
            (ours for ours in (FLAGS.get(name, ""), f"--{name.replace('_', '-')}") if self._has(ours)), ""
        )
        if not flag:
            return [word]
        self.notes.append(f"{typed} is {flag} here")
        return self._with_value(flag, equals, value, rest)

    def _switched(self, typed: str, value: str) -> list[str]:
        """A flag there that is on, or off by its value; raises RecipeError for a value that is neither."""
        name, said = plain(typed), value.lower()
        numbered = name in _DEVICES and said.isdigit()
        if said not in ("", *_ON, *_OFF) and not numbered:
            usual = SWITCHES[name][0]
            raise RecipeError(f"saccade has no {typed} {value}", hint=f"{usual} takes no such value")
        words = SWITCHED_OFF.get(name, ()) if said in _OFF and not numbered else SWITCHES[name]
        shown = f"{typed} {value}" if said in _OFF and not numbered else typed
        self.notes.append(f"{shown} is {' '.join(words)} here" if words else f"{shown} is so without it")
        return list(words)

    def _without(self, typed: str, value: str, rest: list[str]) -> list[str]:
        """Nothing, where what is said need not be said; RecipeError where another result is asked for."""
        name = plain(typed)
        if name in _WITH_A_VALUE:
            if not value and rest and not rest[0].startswith("-"):
                value = rest.pop(0)
        else:
            value = value or _switch_value(rest)
        if value.lower() in _OFF and name in SWITCHED_OFF:
            return self._off(typed, value)
        pattern, why = _AS_HERE.get(name, ("", ""))
        if value and pattern and not re.fullmatch(pattern, value, re.IGNORECASE):
            raise RecipeError(f"saccade has no {typed} {value}", hint=f"leave it out: {why}")
        self.notes.append(f"{typed} is not needed: {NEEDLESS[name]}")
        return []

    def _off(self, typed: str, value: str) -> list[str]:
        words = SWITCHED_OFF[plain(typed)]
        self.notes.append(f"{typed} {value} is {' '.join(words)} here")
        return list(words)

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


def _switch_value(rest: list[str]) -> str:
    """The value behind a switch, taken from `rest`; "" where none stands there."""
    return rest.pop(0) if rest and rest[0].lower() in (*_ON, *_OFF) else ""


def plain(flag: str) -> str:
    """A flag without dashes in front, and with _ for those within.

    >>> plain("--Batch-Size"), plain("-j")
    ('batch_size', 'j')
    """
    return flag.lstrip("-").replace("-", "_").lower()


def _refuse_resume(words: Sequence[str]) -> None:
    """Raise RecipeError for `train resume model=RUN` and `train resume=True model=RUN`."""
    asked = words[0] == "train" and {"resume", "resume=True", "resume=true"}.intersection(words[1:2])
    if asked and not os.path.exists("resume"):
        named = [
            word.partition("=")[2] for word in words[2:] if plain(word.partition("=")[0]) in _PLACES_OF_RUN
        ]
        others = [word for word in words[2:] if "=" not in word and not word.startswith("-")]
        run = next(iter([*filter(None, named), *others]), "RUN")
        raise RecipeError("--resume takes a run folder", hint=f"saccade train --resume {shlex.quote(run)}")


def _refuse_ultralytics(words: Sequence[str]) -> None:
    """Raise RecipeError for a network of Ultralytics, with the line that does without it."""
    text = shlex.join(_taken_here(words))
    found = re.search(r" --backbone[ =]((yolo|rtdetr)\S*)", text, re.IGNORECASE)
    if found:
        raise RecipeError(
            f"{found[1]} is a network of Ultralytics; saccade has those of timm and torchvision",
            hint=f"saccade {text.replace(found[0], '')}",
        )


def _taken_here(words: Sequence[str]) -> list[str]:
    """A line without flags that only others have; those that are written otherwise here, so written."""
    rest, done = list(words), list[str]()
    while rest:
        word = rest.pop(0)
        typed, equals, value = word.partition("=")
        name = plain(typed)
        if not word.startswith("-") or not (name in WRITTEN or name in ABSENT):
            done.append(word)
            continue
        if not equals and rest and not rest[0].startswith("-"):
            value = rest.pop(0)
        done += shlex.split(WRITTEN.get(name, "").partition(" (")[0].format(value or "VALUE"))
    return done


def line_meant(words: Sequence[str], examples: dict[str, tuple[str, ...]]) -> str:
    """The line to type instead of one whose command is called otherwise here; "" where nobody knows.

    >>> line_meant(["fit", "photos"], {})
    'saccade train photos'
    """
    word, rest = words[0], words[1:]
    if word in _SERVERS:
        return joined(["serve", *(rest or ["RUN"])])
    if word in ("resume", "continue"):
        return " ".join(["saccade train --resume", *(rest or ["RUN"])])
    ours = COMMANDS_ELSEWHERE.get(word.lower(), "")
    if not ours:
        return ""
    return joined([ours, *_Told(ours).translated(rest)]) if rest else examples[ours][0]


def joined(words: Iterable[str]) -> str:
    return shlex.join(["saccade", *words])
