"""What people who know other tools type: it works, or one line is said that can be pasted."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from saccade.called_elsewhere import FLAGS
from saccade.cli import main
from saccade.cli.elsewhere import COMMANDS_ELSEWHERE, in_our_words
from saccade.cli.flags import chosen_recipe
from saccade.cli.help import EXAMPLES, flags_of
from saccade.cli.parsing import parsed
from saccade.cli.suggestions import nearest

RECIPE = {"backbone": "model.backbone", "epochs": "train.epochs", "size": "data.image_size"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where people type: photos/, new/ and two runs, the second of them the latest."""
    for name in ("photos/cat/1.jpg", "photos/dog/1.jpg", "new/1.jpg", "photo.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    for age, name in enumerate(("photos-1", "flat-2", "flat-1")):
        recipe = tmp_path / "runs" / name / "recipe.toml"
        recipe.parent.mkdir(parents=True)
        recipe.touch()
        os.utime(recipe, (1000 - age, 1000 - age))
    (tmp_path / "model.onnx").touch()
    monkeypatch.chdir(tmp_path)


def chosen(line: str) -> tuple[str, dict[str, object], Mapping[str, object]]:
    """The command, what stands first after it, and the recipe's fields that a line chooses."""
    command, given = parsed(shlex.split(line)[1:])
    if command.__name__ not in ("train", "audit", "split", "augment"):
        return command.__name__, dict(given.arguments), {}
    named = inspect.signature(command).parameters
    own = {name: value for name, value in given.arguments.items() if name in named}
    values = {name: value for name, value in given.kwargs.items() if name not in named}
    recipe, _ = chosen_recipe(command.__name__, values, "")
    return command.__name__, own, {key: recipe.flat()[key] for key in recipe.given}


TIMM = (
    "saccade train photos --model resnet50 -b 64 --epochs 5 --lr 0.01 --opt sgd --sched cosine --mixup 0.2 "
    "--cutmix 1.0 --aa rand-m9-mstd0.5-inc1 --pretrained --num-classes 5 --img-size 224 -j 4 --amp"
)
WORKS: list[tuple[str, str, dict[str, object], dict[str, object]]] = [
    # Ultralytics
    (
        "saccade train data=photos epochs=10 imgsz=224 batch=16 patience=5 device=0",
        "train",
        {"data": "photos"},
        {
            "train.epochs": 10,
            "data.image_size": 224,
            "train.batch_size": 16,
            "train.early_stopping": 5,
            "device": "cuda:0",
        },
    ),
    ("saccade classify train data=photos epochs=10", "train", {"data": "photos"}, {"train.epochs": 10}),
    ("saccade train --data photos --imgsz 64", "train", {"data": "photos"}, {"data.image_size": 64}),
    (
        "saccade train photos lr0=0.01 cos_lr=True",
        "train",
        {},
        {"train.lr": 0.01, "train.schedule": "cosine"},
    ),
    ("saccade predict model=runs/photos-1 source=new", "predict", {"inputs": ["new"]}, {}),
    ("saccade predict model.onnx new --topk 5", "predict", {"top_k": 5}, {}),
    ("saccade export model=runs/photos-1 format=onnx", "export", {"run": "runs/photos-1"}, {}),
    # timm
    (
        TIMM,
        "train",
        {"data": "photos"},
        {
            "model.backbone": "resnet50",
            "train.batch_size": 64,
            "train.optimizer": "sgd",
            "augment.mix_up": 0.2,
            "augment.cut_mix": 1.0,
            "augment.automatic": "rand_augment",
            "data.image_size": 224,
            "train.workers": 4,
        },
    ),
    (
        "saccade train photos --smoothing 0.1 --reprob 0.25 --hflip 0.5 --clip-grad 1 --output out",
        "train",
        {"out": "out"},
        {
            "train.label_smoothing": 0.1,
            "augment.cutout": 0.25,
            "augment.horizontal_flip": 0.5,
            "train.gradient_clip": 1.0,
        },
    ),
    (
        "saccade train photos --drop-path 0.1 --layer-decay 0.75 --opt lamb --sched multistep",
        "train",
        {},
        {
            "model.drop_path": 0.1,
            "train.layer_decay": 0.75,
            "train.optimizer": "lamb",
            "train.schedule": "multi_step",
        },
    ),
    # fastai
    (
        "saccade train photos --arch resnet34 --bs 64 --valid-pct 0.2 --wd 0.1",
        "train",
        {},
        {
            "model.backbone": "resnet34",
            "train.batch_size": 64,
            "split.validation": 0.2,
            "train.weight_decay": 0.1,
        },
    ),
    # Keras
    (
        "saccade train photos --learning-rate 0.001 --batch-size 32 --validation-split 0.2 --optimizer Adam",
        "train",
        {},
        {"train.lr": 0.001, "split.validation": 0.2, "train.optimizer": "adam"},
    ),
    (
        "saccade train photos --loss categorical_crossentropy --epochs 3",
        "train",
        {},
        {"train.loss": "cross_entropy", "train.epochs": 3},
    ),
    ("saccade train photos --loss focal", "train", {}, {"train.loss": "focal"}),
    ("saccade train photos loss=FocalLoss", "train", {}, {"train.loss": "focal"}),
    ("saccade train photos --loss BinaryCrossentropy", "train", {}, {"train.loss": "bce"}),
    ("saccade train photos --loss asl", "train", {}, {"train.loss": "asymmetric"}),
    # scikit-learn
    (
        "saccade train photos --test-size 0.2 --random-state 42 --n-jobs -1",
        "train",
        {},
        {"split.test": 0.2, "seed": 42, "train.workers": "auto"},
    ),
    # Hugging Face
    (
        "saccade train --train_dir photos --output_dir out --num_train_epochs 3 --learning_rate 5e-5 "
        "--per_device_train_batch_size 16 --model_name_or_path timm/vit_small_patch16_224 --do_train --fp16",
        "train",
        {"data": "photos", "out": "out"},
        {
            "train.epochs": 3,
            "train.lr": 5e-5,
            "train.batch_size": 16,
            "model.backbone": "timm/vit_small_patch16_224",
        },
    ),
    (
        "saccade train photos --loss CrossEntropyLossFlat --task classify",
        "train",
        {},
        {"train.loss": "cross_entropy"},
    ),
    ("saccade train photos cos_lr=False", "train", {}, {"train.schedule": "linear"}),
    ("saccade train photos amp=False", "train", {}, {"precision": "float32"}),
    ("saccade train photos --class-weight None --gpu 0", "train", {}, {"device": "cuda"}),
    ("saccade train photos --no-augment False --cuda False", "train", {}, {"device": "cpu"}),
    ("saccade train photos --schedule CosineLR --augment heavy", "train", {}, {"augment.policy": "strong"}),
    ("saccade train photos --tta --mean 0.5,0.5,0.5", "train", {}, {"evaluate.flip": True}),
    ("saccade evaluate model=runs/photos-1 data=new", "evaluate", {"data": "new"}, {}),
    ("saccade evaluate runs/photos-1 --data moved", "evaluate", {"moved": "moved"}, {}),
    # plain
    ("saccade train photos --gpu", "train", {}, {"device": "cuda"}),
    ("saccade train photos --device gpu -e 10 -o out", "train", {"out": "out"}, {"device": "cuda"}),
    ("saccade train photos --no-augmentation -v", "train", {}, {"augment.policy": "none"}),
    ("saccade train photos --image_size 96", "train", {}, {"data.image_size": 96}),
    ("saccade split photos -o split.csv --test-size 0.3", "split", {"out": "split.csv"}, {"split.test": 0.3}),
    ("saccade -v", "version_print", {}, {}),
    ("saccade --version", "version_print", {}, {}),
    ("saccade train --help me", "print_help", {}, {}),
    ("saccade help train", "print_help", {}, {}),
]


@pytest.mark.parametrize(("line", "command", "own", "fields"), WORKS, ids=[line for line, *_ in WORKS])
def test_what_other_tools_call_it_works(
    line: str, command: str, own: dict[str, object], fields: dict[str, object]
) -> None:
    found, arguments, recipe = chosen(line)
    assert found == command
    assert {name: arguments[name] for name in own} == own
    assert {key: recipe[key] for key in fields} == fields


ANSWERED = [
    # line, part of the error, the line that is said
    ("saccade photos/", "unknown command: photos/", "saccade train photos/"),
    ("saccade photo.jpg", "unknown command: photo.jpg", "saccade predict runs/photos-1 photo.jpg"),
    ("saccade runs/photos-1 new", "unknown command: runs", "saccade predict runs/photos-1 new"),
    ("saccade train", "saccade train needs DATA, or --resume RUN", "saccade train photos"),
    (
        "saccade predict photo.jpg",
        "saccade predict needs a run, or an .onnx file, before photo.jpg",
        "saccade predict runs/photos-1 photo.jpg",
    ),
    ("saccade predict", "saccade predict needs RUN and IMAGES", "saccade predict runs/photos-1 new_photos"),
    ("saccade fit photos", "unknown command: fit", "saccade train photos"),
    ("saccade test", "unknown command: test", "saccade evaluate runs/photos-1 new_photos"),
    ("saccade val runs/photos-1 new", "unknown command: val", "saccade evaluate runs/photos-1 new"),
    ("saccade deploy runs/photos-1", "unknown command: deploy", "saccade serve runs/photos-1"),
    (
        "saccade train data=photos model=yolov8n-cls.pt epochs=10 imgsz=224",
        "yolov8n-cls.pt is a network of Ultralytics",
        "saccade train photos --epochs=10 --image-size=224",
    ),
    ("saccade train photos/cat photos/dog", "one word too many: photos/dog", "saccade train photos"),
    ("saccade resume runs/photos-1", "unknown command: resume", "saccade train --resume runs/photos-1"),
    (
        "saccade export runs/photos-1 --format tflite",
        "unknown export format: tflite",
        "saccade export RUN --format onnx",
    ),
    ("saccade train photos --epoch 3", "unknown flag: --epoch", "did you mean --epochs?"),
    ("saccade train photos --freeze 3", "unknown flag: --freeze", "write --method finetune --unfreeze 2"),
    ("saccade train photos freeze=3", "unknown flag: --freeze", "write --method finetune --unfreeze 2"),
    ("saccade train photos --model-ema", "unknown flag: --model-ema", "write --train.ema_decay 0.98"),
    ("saccade train photos --name exp1", "unknown flag: --name", "write --out runs/exp1"),
    ("saccade train photos --project=here", "unknown flag: --project", "write --out here/NAME"),
    ("saccade train photos --lrf 0.01", "saccade has no --lrf", "leave it out: --schedule"),
    (
        "saccade train photos --config cfg.yaml",
        "cfg.yaml is YAML; a recipe is TOML",
        "write it as a .toml file",
    ),
    ("saccade train photos --loss mse", "train.loss should be 'cross_entropy', 'bce'", "--help-all"),
    ("saccade train photos --task detect", "saccade has no --task detect", "classifies whole images"),
    ("saccade train photos shuffle=False", "saccade has no --shuffle False", "in random order"),
    (
        "saccade train photos class_weight={0:1}",
        "saccade has no --class_weight {0:1}",
        "--train.class_weights",
    ),
    (
        "saccade val model=runs/photos-1 data=new",
        "unknown command: val",
        "saccade evaluate runs/photos-1 new",
    ),
    (
        "saccade train photos model=yolo11n-cls.pt epochs=3 freeze=10 lrf=0.01",
        "yolo11n-cls.pt is a network of Ultralytics",
        "saccade train photos --epochs=3 --method finetune --unfreeze 2",
    ),
    (
        "saccade train resume model=runs/photos-1",
        "--resume takes a run folder",
        "saccade train --resume runs/photos-1",
    ),
    (
        "saccade train photos --min-lr 1e-6",
        "unknown flag: --min-lr",
        "write --schedule plateau --train.plateau_min_lr 1e-6",
    ),
    ("saccade train photos --method haed", "train.method should be", "did you mean 'head'?"),
    ("saccade train photos --schedule cosin", "train.schedule should be", "did you mean 'cosine'?"),
    ("saccade train photos --resume", "--resume takes a run folder", "saccade train --resume runs/photos-1"),
    ("saccade train flat --resume", "--resume takes a run folder", "saccade train --resume runs/flat-2"),
    ("saccade train --resume", "--resume takes a run folder", "saccade train --resume runs/photos-1"),
    ("saccade train photos --epochs", "--epochs needs a value", "`saccade train --help epochs`"),
    ("saccade predict model.onnx new --batch 8", "unknown flag: --batch", "`saccade predict --help`"),
]


@pytest.mark.parametrize(("line", "error", "meant"), ANSWERED, ids=[line for line, *_ in ANSWERED])
def test_what_cannot_work_is_answered_with_the_line_that_does(
    capsys: pytest.CaptureFixture[str], line: str, error: str, meant: str
) -> None:
    assert main(shlex.split(line)[1:]) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("note: ")]
    assert len(said) == 2
    assert said[0].startswith("error: ")
    assert error in said[0]
    assert meant in said[1]
    if meant.startswith("saccade "):
        pasted = f"saccade {said[1].partition('saccade ')[2]}"
        assert pasted == meant
        parsed(shlex.split(pasted)[1:])


def test_there_are_thirty_lines() -> None:
    assert len(WORKS) + len(ANSWERED) >= 30


# -- aliases and suggestions ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", FLAGS)
def test_each_name_from_elsewhere_becomes_a_flag_that_exists(word: str) -> None:
    assert any(FLAGS[word] in flags_of(command) for command in EXAMPLES)


def test_no_name_from_elsewhere_hides_a_flag_of_ours() -> None:
    lines = [[command, flag, "x"] for command in EXAMPLES for flag in flags_of(command)]
    assert len(lines) > 200
    for line in lines:
        words = list(line)
        in_our_words(words, list(EXAMPLES))
        assert words == line


def test_no_command_from_elsewhere_hides_one_of_ours() -> None:
    assert set(COMMANDS_ELSEWHERE).isdisjoint(EXAMPLES)
    assert set(COMMANDS_ELSEWHERE.values()) <= set(EXAMPLES)


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("train", "--epochs", "--epochs"),
        ("train", "--epoc", "--epochs"),
        ("train", "--resum", "--resume"),
        ("train", "--resumee", "--resume"),
        ("train", "--recipie", "--recipe"),
        ("train", "--modle", "--backbone"),
        ("train", "--backbon", "--backbone"),
        ("train", "--learningrate", "--lr"),
        ("train", "--batchsize", "--batch-size"),
        ("train", "--imagesize", "--image-size"),
        ("train", "--augmentations", "--augment"),
        ("train", "--weight", "--weights"),
        ("train", "--val", "--split.validation"),
        ("train", "--test", "--split.test"),
        ("train", "--finsh", "--finish"),
        ("train", "--ema", "--train.ema_decay"),
        ("train", "--class-weight", "--train.class_weights"),
        ("train", "--outdir", "--out"),
        ("train", "--foo", ""),
        ("train", "--name", ""),
        ("train", "--save", ""),
        ("audit", "--resume", ""),
        ("audit", "--groups", "--group"),
        ("split", "--fold", "--folds"),
        ("predict", "--top", "--top-k"),
        ("predict", "--resume", ""),
        ("export", "--formt", "--format"),
        ("evaluate", "--label-colum", "--label-column"),
    ],
)
def test_the_nearest_flag_is_a_sensible_one(command: str, typed: str, meant: str) -> None:
    assert nearest(command, typed) == meant


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("saccade audit photos --resume runs/x", "--resume is a flag of `saccade train`, not of audit"),
        (
            "saccade predict model.onnx new --epochs 3",
            "--epochs is a flag of `saccade train`, not of predict",
        ),
        ("saccade augment photos --out x.png --model resnet50 --foo", "unknown flag: --foo"),
    ],
)
def test_a_flag_of_another_command_is_said_to_be_one(
    capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    assert main(shlex.split(line)[1:]) == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_every_translation_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    parsed(shlex.split(TIMM)[1:])
    notes = capsys.readouterr().err.splitlines()
    assert "note: --model is --backbone here" in notes
    assert "note: rand-m9-mstd0.5-inc1 is rand_augment here" in notes
    assert "note: --num-classes is not needed: the classes are those of the data" in notes
    assert all(re.match(r"note: \S+ is ", note) for note in notes)


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ("--train.class_weights", "auto"),
        ("--train.class_weights --epochs 3", "auto"),
        ("--train.class-weights", "auto"),
        ("--no-train.class_weights", "none"),
        ("--train.class_weights none", "none"),
        ("--train.class_weights=auto", "auto"),
        ("--train.class_weights rose=3,tulip=1.5", {"rose": 3.0, "tulip": 1.5}),
    ],
)
def test_class_weights_need_no_value_and_take_names(words: str, weights: object) -> None:
    assert chosen(f"saccade train photos {words}")[2]["train.class_weights"] == weights
    assert chosen(f"saccade train {words} --seed 1 photos")[2]["train.class_weights"] == weights


def test_a_file_with_an_equals_sign_is_a_file(tmp_path: Path, make_list: Callable[[str], None]) -> None:
    make_list("epochs=10")
    assert chosen("saccade audit epochs=10")[1]["data"] == "epochs=10"
    assert chosen("saccade train photos --model.options pad_type=same")[2]["model.options"] == {
        "pad_type": "same"
    }


@pytest.fixture
def make_list(tmp_path: Path) -> Callable[[str], None]:
    return lambda name: (tmp_path / name).mkdir()
