"""What the command line says and returns before any image is read."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from saccade.cli import commands, main
from saccade.cli.flags import SECTIONS
from saccade.cli.help import EXAMPLES
from saccade.cli.parsing import parsed
from saccade.recipe import field_table
from saccade.recipe.fields import LISTED

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


COMMANDS = (
    *("audit", "augment", "backbones", "bench", "certify", "compare", "demo"),
    *(
        "doctor",
        "evaluate",
        "export",
        "index",
        "leaderboard",
        "lr",
        "plan",
        "predict",
        "replay",
        "report",
        "search",
        "serve",
        "split",
        "summary",
        "track",
        "train",
    ),
)


def test_help_lists_every_command_and_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from saccade.cli import main; code = main(['--help'])\n"
        "heavy = [m for m in ('torch', 'numpy', 'PIL', 'onnxruntime', 'pydantic') if m in sys.modules]\n"
        "print('LOADED', heavy); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("module", ["cyclopts", "saccade.recipe"])
def test_ctrl_c_while_the_command_line_is_loaded_is_answered_in_words(module: str) -> None:
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from saccade.__main__ import main\n"
        "sys.argv = ['saccade', 'train', 'photos', '--out', 'run']\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("stopped: received SIGINT\nhint: to start again: saccade train")
    assert "Traceback" not in done.stderr


def test_what_training_needs_and_is_not_there_is_named(
    answer: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    code, _, err = answer("summary", "resnet18")
    assert code == 2
    assert "`saccade summary` needs the package 'timm'" in err
    assert "pip install 'saccade[train]'" in err


def test_without_torch_training_says_so_before_anything_else(
    answer: Command, monkeypatch: pytest.MonkeyPatch, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos()
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = answer("train", "photos")
    assert (code, out) == (2, "")
    assert "`saccade train` needs the package 'torch'" in err


def test_hints_name_no_file_that_only_a_checkout_has() -> None:
    source = Path(commands.__file__).parents[1]
    lines = [line for path in source.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if re.search(r"hint=.*docs/", line)] == []
    from saccade.cli.elsewhere import ABSENT, NEEDLESS

    assert not [text for text in (*ABSENT.values(), *NEEDLESS.values(), LISTED) if "docs/" in text]


def test_importing_saccade_imports_no_torch() -> None:
    code = "import sys, saccade; saccade.ImageClassifier(epochs=3); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_train_offers_a_flag_for_every_field(answer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # narrow terminals break long names over two lines
    code, out, _ = answer("train", "--help-all")
    text = "".join(out.split())
    assert code == 0
    assert len(field_table()) > 60
    assert [key for key, *_ in field_table() if f"--{key}" not in text] == []


def test_help_shows_the_usual_flags_and_says_where_all_of_them_stand(answer: Command) -> None:
    code, out, _ = answer("train", "--help")
    assert code == 0
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*", out))
    usual = "backbone weights method epochs lr image-size batch-size augment device time-limit"
    usual += " group out track resume finish recipe help-all"
    assert flags == {f"--{name}" for name in usual.split()}
    assert "saccade train --help-all" in out
    assert "--epochs INT|auto       Epochs of fine-tuning, or from scratch. [auto]" in out


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_on_a_screen_with_types_and_examples(
    answer: Command, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = answer(*filter(None, [command]), "--help")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert len(lines) <= (25 if command else 32)
    assert max(map(len, lines)) <= columns
    if command:
        assert EXAMPLES[command][0] in out
        assert out.startswith(f"saccade {command}")
    if command == "train":
        assert out.count("  saccade train") + out.count(" saccade train ph") >= 3
        assert all(kind in out for kind in ("INT", "FLOAT", "DIR", "RUN", "auto|head|tail|full|finetune"))


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == {command.__name__ for command in commands.COMMANDS} == set(COMMANDS)


@pytest.mark.parametrize("command", ["train", "audit", "split", "augment"])
def test_the_whole_help_has_a_heading_for_each_section(answer: Command, command: str) -> None:
    _, out, _ = answer(command, "--help-all")
    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    shared = ["Usage:", "Data:", "Split:"]
    assert headings[:1] == ["Usage:"]
    assert set(shared) <= set(headings) <= {"Usage:", *(f"{title}:" for title in SECTIONS.values())}
    assert len(headings) == len(set(headings))
    assert (len(headings) == 1 + len(SECTIONS)) == (command == "train")


EXAMPLE_LINES = [line for lines in EXAMPLES.values() for line in lines]


@pytest.mark.parametrize("line", EXAMPLE_LINES)
def test_each_example_of_the_help_is_a_command(line: str) -> None:
    words = shlex.split(line)[1:]
    assert parsed(list(words))[0].__name__ == words[0]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["help"], "saccade COMMAND"),
        ([], "saccade COMMAND"),
        (["help", "split"], "saccade split DATA --out FILE.csv [FLAGS]"),
        (["train", "photos", "--help"], "saccade train [DATA] [FLAGS]"),
        (["train", "--help", "me"], "saccade train [DATA] [FLAGS]"),
        (["train", "--help", "lr"], "  --lr --train.lr FLOAT|auto  Learning rate."),
        (["train", "--help", "--train.early_stopping"], "  --train.early_stopping INT  Epochs without"),
    ],
)
def test_help_is_found_by_every_way_to_ask_for_it(answer: Command, words: list[str], start: str) -> None:
    code, out, _ = answer(*words)
    assert code == 0
    assert out.startswith(start)


@pytest.mark.parametrize("command", ["train", "search", "lr"])
def test_class_weights_need_no_value(command: str) -> None:
    _, given = parsed([command, "photos", "--out", "x", "--train.class_weights", "--seed", "1"])
    assert given.kwargs["train__class_weights"] == "auto"


@pytest.mark.parametrize("command", ["audit", "split", "augment"])
def test_other_commands_show_their_own_flags_only(answer: Command, command: str) -> None:
    code, out, _ = answer(command, "--help-all")
    assert code == 0
    assert "--split.group" in out
    assert "--train." not in out
    assert ("--augment.cutout" in out) == (command == "augment")
    assert ("--split.repair" in out) == (command != "audit")


@pytest.mark.parametrize("command", ["audit", "split", "augment"])
@pytest.mark.parametrize("flag", ["--epochs=3", "--train.lr=1", "--learning-rate=1", "--no-export.onnx"])
def test_what_belongs_to_training_is_refused_elsewhere(answer: Command, command: str, flag: str) -> None:
    code, _, err = answer(command, "no/such", *([] if command == "audit" else ["--out", "x.csv"]), flag)
    assert code == 2
    assert err.splitlines() == [
        f"error: {flag.partition('=')[0]} has no effect on `saccade {command}`",
        "hint: leave it out; it belongs to `saccade train`",
    ]


def test_what_a_recipe_file_has_for_training_is_said_to_have_no_effect(
    answer: Command, tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[train]\nepochs = 3\n[split]\ntest = 0.2\n")
    _, out, _ = answer("audit", "no/such", "--recipe", str(file))
    assert out == "Recipe    without effect on `saccade audit`: train.epochs\n"
    file.write_text("[split]\ntest = 0.2\n")
    assert answer("audit", "no/such", "--recipe", str(file))[1] == ""


def test_main_calls_the_command_itself(answer: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade import pipeline

    stack: list[str] = []

    def look(*_: object, **__: object) -> int:
        frame = inspect.currentframe()
        while frame is not None and frame.f_code is not main.__code__:
            stack.append(frame.f_code.co_name)
            frame = frame.f_back
        return 1

    monkeypatch.setattr(pipeline, "list_backbones", look)
    assert answer("backbones")[0] == 0
    assert stack == ["look", "backbones"]


SEVERAL = {"data.mean": "0.5,0.4,0.3", "data.std": "0.2,0.2,0.2"}


@pytest.mark.parametrize(("key", "default"), [(key, default) for key, _, default, _ in field_table()])
def test_every_default_is_taken_as_a_flag(answer: Command, tmp_path: Path, key: str, default: object) -> None:
    """Written as the table of the recipe has it; so it gets as far as looking for the images."""
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    flag = [f"--{key}"] if default is True else [f"--no-{key}"] if default is False else [f"--{key}", text]
    if default == {}:
        flag = [f"--{key}", "pad_type=same"]
    if key in SEVERAL:
        flag = [f"--{key}", SEVERAL[key]]
    code, _, err = answer("train", "no/such/folder", "--out", str(tmp_path / "run"), *flag)
    assert code == 2
    assert "data path does not exist" in err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["trian"], "unknown command: trian\nhint: did you mean train?"),
        (["train", "x", "--out", "y", "--epchs", "3"], "unknown flag: --epchs\nhint: did you mean --epochs?"),
        (["train", "x", "--out", "y", "--train.patience", "3"], "did you mean --train.early_stopping?"),
        (["train", "x", "--out", "y", "--train.learning_rat", "3"], "did you mean --train.lr?"),
        (["train", "x", "--out", "y", "--foo", "3"], "hint: `saccade train --help-all` lists every flag"),
        (["train"], "needs DATA, or --resume RUN"),
        (["train", "x", "y", "--out", "z"], "one word too many: y"),
        (["augment", "x", "--out", "y", "--images", "few"], "unable to convert"),
        (["train", "x", "--out", "y", "--pretrained=maybe"], "--pretrained"),
        (["train", "x", "--out", "y", "--epochs=3", "--epochs=4"], "--epochs"),
        (
            ["predict", "model.onnx"],
            "saccade predict needs IMAGES\nhint: for example: saccade predict runs/",
        ),
        (["predict"], "saccade predict needs RUN and IMAGES\nhint: for example: saccade predict runs/"),
        (["split"], "saccade split needs DATA and --out FILE.csv\nhint: for example: saccade split photos"),
        (["split", "photos"], "saccade split needs --out FILE.csv\nhint: for example: saccade split photos"),
        (["compare", "a"], "saccade compare needs OTHER_RUN"),
        (["certify", "model.onnx"], "saccade certify needs --against RUN"),
        (["summary"], "saccade summary needs NAME"),
        (["--epochs", "3"], "unknown flag: --epochs\nhint: `saccade --help` lists the commands"),
        (["train", "x", "--out", "y", "--epochs", "0"], "train.epochs"),
        (["train", "no/such/folder", "--out", "y"], "data path does not exist"),
        (["train", "x", "--out", "y", "--recipe", "none.toml"], "none.toml"),
        (["train", "x", "--out", "y", "--model.options", "pad_type"], "name=value"),
        (["evaluate", "no/such/run"], "is not a run folder"),
        (["export", "no/such/run"], "is not a run folder"),
        (["export", "no/such/run", "--format", "tflite"], "unknown export format: tflite"),
        (["summary", "resnet_18"], "resnet18"),
    ],
)
def test_what_cannot_go_on_exits_2_with_error_and_hint(
    answer: Command, words: Sequence[str], wanted: str
) -> None:
    code, _, err = answer(*words)
    assert code == 2
    assert wanted in err
    assert "Traceback" not in err
    assert [line.partition(":")[0] for line in err.splitlines()] in (["error"], ["error", "hint"])


def test_a_defect_of_ours_is_called_one_without_a_traceback(
    answer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade import pipeline

    def broken(*_: object, **__: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.delenv("SACCADE_TRACEBACK", raising=False)
    monkeypatch.setattr(pipeline, "list_backbones", broken)
    code, _, err = answer("backbones")
    assert code == 2
    assert "this is a defect of saccade" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory (2 GiB)")])
def test_too_little_memory_is_no_defect_of_ours(
    answer: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from saccade import pipeline

    def greedy(*_: object, **__: object) -> int:
        raise error

    monkeypatch.delenv("SACCADE_TRACEBACK", raising=False)
    monkeypatch.setattr(pipeline, "list_backbones", greedy)
    code, _, err = answer("backbones")
    assert code == 2
    assert err.startswith("error: out of memory\nhint: use a smaller --batch-size")


def test_the_tutorial_network_has_the_tutorials_parameters(answer: Command) -> None:
    code, out, _ = answer("summary", "small_cnn", "--classes", "10", "--image-size", "224")
    assert code == 0
    assert "51,674,794" in out


def test_backbones_are_found_by_part_of_their_name(answer: Command) -> None:
    code, out, _ = answer("backbones", "squeezenet")
    assert code == 0
    assert "squeezenet1_1" in out
    assert answer("backbones", "no_such_network")[0] == 1


def test_doctor_says_what_is_there(answer: Command) -> None:
    code, out, _ = answer("doctor")
    assert code == 0
    assert re.search(r"^  ok       saccade\[train\] +audit, training, reports$", out, re.MULTILINE)
    assert re.search(r"^Training  would run on \w+ \(.+\) in \w+, \d+ threads?$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110
    assert ("would run on cpu" in out) == ("          not on a GPU: " in out)


def test_doctor_says_what_a_missing_extra_would_bring(
    answer: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade import doctor

    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "openvino" else there(name))
    code, out, _ = answer("doctor")
    assert code == 0
    assert "  missing  saccade[openvino]  quicker features and predictions on many processors\n" in out
    assert "not installed: openvino; pip install 'saccade[openvino]'\n" in out


def test_no_use_is_counted_by_others(tmp_path: Path) -> None:
    """onnxruntime keeps an identifier of the machine unless it is told not to before it is loaded."""
    code = "import saccade, onnxruntime"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*onnxruntime*")) == []


# ── nobody listens ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def predicting(make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A command that says something and needs no torch."""
    folder = tmp_path_factory.mktemp("said")
    for name in ("a", "b"):
        Image.new("RGB", (9, 9), "red").save(folder / f"{name}.png")
    return f"predict {make_model(folder / 'model.onnx')} {folder / 'a.png'} {folder / 'b.png'}"


def test_flags_may_stand_between_the_inputs(answer: Command, predicting: str) -> None:
    command, model, first, second = predicting.split()
    code, out, _ = answer(command, model, first, "--top-k", "2", second)
    assert code == 0
    assert [line.count("%") for line in out.splitlines()] == [2, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("words", "shell", "code", "said"),
    [
        ("", ">&-", 0, ""),
        ("", ">&- 2>&- <&-", 0, ""),
        ("nonsense", "2>&-", 2, ""),
        ("", "> /dev/full", 2, "No space left on device"),
        ("", "| head -n 1; exit ${PIPESTATUS[0]}", 0, ""),
        ("train --help", "| head -n 1; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_an_output_that_nobody_reads_is_no_defect(
    predicting: str, words: str, shell: str, code: int, said: str
) -> None:
    command = f"{sys.executable} -m saccade {words or predicting} {shell}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "defect", "Exception"))


@pytest.mark.parametrize("command", ["audit", "evaluate", "predict", "export", "train"])
def test_what_a_name_does_to_a_terminal_is_not_done(answer: Command, command: str) -> None:
    evil = "no\x1b[2J\x1b[1A\x9b2K\x07\r\u202esuch"
    options = {"predict": ["a.jpg"], "train": ["--out", f"run{evil}"]}
    code, out, err = answer(command, evil, *options.get(command, []))
    assert code == 2
    assert out == ""
    assert "no\\x1b[2J" in err
    assert all(line.isprintable() for line in err.splitlines())


def test_each_row_that_cannot_be_used_has_its_line(answer: Command, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na\x1b[2J.jpg,\nb.jpg,\n")
    code, _, err = answer("audit", str(tmp_path / "list.csv"))
    lines = err.splitlines()
    assert code == 2
    assert [line.partition(":")[0] for line in lines] == ["error", "  line 2", "  line 3", "hint"]
    assert all(line.isprintable() for line in lines)


def test_what_needs_no_torch_does_not_wait_for_it(tmp_path: Path) -> None:
    code = (
        "import sys; from saccade.cli import main\n"
        "words = ['train', 'photos', '--device', 'cpu', '--slurm-script', sys.argv[1] + '/job.sh']\n"
        "codes = [main(['replay', sys.argv[1]]), main(words)]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[2, 0] False", done.stderr
    assert "holds no step to take again" in done.stderr
