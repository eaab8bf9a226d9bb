"""Break one line for each promise, in a copy of the source: its test must turn red, and so must its line in
the report of a small run.

    python benchmarks/break_promises.py [--report-only] [PROMISE...]

Where saccade refuses to go on with the broken line (promise 4), that is said, and the run is made again with
the refusal taken away: the report's line rests on what the run measured, not on the refusal.

Exit 1 when a broken promise leaves its test green, or its line in the report as it was.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PREPARE = """
import sys, timm, torch
from pathlib import Path
from safetensors.torch import save_file
from conftest import write_photos
torch.manual_seed(0)
state = timm.create_model("test_efficientnet", pretrained=False).state_dict()
save_file(state, sys.argv[1], metadata={"arch": "test_efficientnet"})
write_photos(Path(sys.argv[2]), images=40)
"""
SCRATCH = ("--backbone", "small_cnn", "--image-size", "16", "--batch-size", "16")
TRANSFER = ("--backbone", "test_efficientnet", "--image-size", "32", "--batch-size", "16", "--no-export.onnx")
RUNS = {
    "scratch": (*SCRATCH, "--epochs", "2", "--group-pattern", r"_(\d+)"),
    "stopped": (*SCRATCH, "--epochs", "6", "--no-export.onnx"),
    "finetune": (*TRANSFER, "--method", "finetune", "--epochs", "1", "--train.head_epochs", "1"),
    "tail": (*TRANSFER, "--method", "tail", "--epochs", "1"),
    # an mlp that learns its training images by heart
    "by heart": (*TRANSFER, "--method", "head", "--head", "mlp", "--split.validation", "0.3"),
}


class Change(NamedTuple):
    """In `file`, `line` becomes `broken`."""

    file: str
    line: str
    broken: str


class Break(NamedTuple):
    """With `change`, `test` must fail, and the report of the run `made` must call the promise broken.

    `refusal` ends such a run before there is a report; `instead` is another change for the report, where the
    first does not touch what happens in a run.
    """

    promise: int
    change: Change
    test: str
    made: str
    refusal: Change | None = None
    instead: Change | None = None


EXPORTED_STD = Change(
    "export/preprocessing.py",
    "mean, std = np.array(preprocess.mean), np.array(preprocess.std)",
    "mean, std = np.array(preprocess.mean), np.array(preprocess.std) / 50",
)
BREAKS = (
    Break(
        1,
        Change(
            "split/atoms.py",
            "forest.join(index, first_with.setdefault(mark, index))",
            "first_with.setdefault(mark, index)",
        ),
        "tests/split/test_split.py::test_groups_clusters_and_copies_stay_together",
        "scratch",
    ),
    Break(
        2,
        Change(
            "transforms/batches.py",
            "self.limits), self.preprocess)",
            "self.limits), self.preprocess).flip(-1)",
        ),
        "tests/transforms/test_batches.py::test_promise_2_evaluation_sees_each_image_as_it_is",
        "scratch",
    ),
    Break(
        3,
        EXPORTED_STD,
        "tests/export/test_onnx_file.py::test_pixels_reach_the_network_as_in_torch",
        "scratch",
    ),
    Break(
        4,
        Change(
            "models/finetune.py",
            "for module in _frozen_modules(classifier):\n        module.training = False",
            "for module in _frozen_modules(classifier):\n        module.training = True",
        ),
        "tests/training/test_loop.py::"
        "test_promise_4_the_frozen_base_and_its_batch_norm_statistics_do_not_move",
        "finetune",
        refusal=Change("training/job.py", "if not evidence.kept:", "if False:"),
    ),
    Break(
        5,
        Change("recipe/presets.py", "HARD_FINETUNE_RATIO = 0.1", "HARD_FINETUNE_RATIO = 10.0"),
        "tests/test_recipe.py::test_promise_5_a_large_fine_tuning_rate_is_refused",
        "tail",
    ),
    Break(
        6,
        Change("evaluation/curves.py", "OVERFIT_GAP = 0.10", "OVERFIT_GAP = 10.0"),
        "tests/evaluation/test_diagnosis.py::test_overfitting_is_a_gap_beyond_chance",
        "by heart",
    ),
    Break(
        7,
        Change(
            "pipeline/batches.py",
            'self._records = dataset.used("validation")',
            "self._records = [record for record in dataset.used() if record.part != 'train']",
        ),
        "tests/journeys/test_promise_7.py",
        "scratch",
    ),
    Break(
        8,
        Change(
            "export/certify.py",
            "passed=not problems, extra=extra",
            "passed=True, extra=extra",
        ),
        "tests/journeys/test_train.py::test_promise_8_a_file_that_answers_differently_fails_its_certificate",
        "scratch",
        instead=EXPORTED_STD,
    ),
    Break(
        9,
        Change(
            "training/loop.py", "learner.load_optimizer(checkpoint.optimizer, checkpoint.scalars)", "pass"
        ),
        "tests/training/test_resume.py::test_killed_in_mid_epoch_and_mid_write_it_ends_bit_identical",
        "stopped",
    ),
    Break(
        10,
        Change("models/pretrained.py", "weights_only=True", "weights_only=False"),
        "tests/test_no_code_in_data.py::test_the_one_pickle_is_read_as_tensors_only",
        "scratch",
        instead=Change(
            "training/state.py",
            "write_bytes(self._best(state), best)",
            "write_bytes(self._best(state), best)\n"
            "            write_bytes(self.folder / 'more.json', __import__('pickle').dumps({}))",
        ),
    ),
)


class Copy(NamedTuple):
    """A copy of the source that may be broken, with photos and weights beside it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join((str(self.folder / "src"), str(self.folder / "tests")))
        return {**os.environ, "PYTHONPATH": paths, "SACCADE_CACHE": str(self.folder / "cache")}

    @contextmanager
    def changed(self, *changes: Change) -> Iterator[None]:
        """Within it these lines are broken."""
        before = {}
        for file, line, broken in changes:
            path = self.folder / "src" / "saccade" / file
            whole = path.read_text("utf-8")
            assert whole.count(line) == 1, f"{file}: {line!r} stands there {whole.count(line)} times"
            before[path] = whole
            path.write_text(whole.replace(line, broken), "utf-8")
        try:
            yield
        finally:
            for path, whole in before.items():
                path.write_text(whole, "utf-8")

    def python(self, *words: str) -> int:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True).returncode

    def passes(self, test: str) -> bool:
        return self.python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", test) == 0

    def state(self, made: str, promise: int) -> str:
        """What the report of a small run says of a promise, or that there is none, and why."""
        out = self.folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        weights = (
            ("--weights", str(self.folder / "weights.safetensors")) if "efficientnet" in RUNS[made][1] else ()
        )
        words = (
            "-m",
            "saccade.cli",
            "train",
            str(self.folder / "photos"),
            "--out",
            str(out),
            *RUNS[made],
            *weights,
        )
        if made == "stopped":
            self._stopped_after_an_epoch(words, out / "history.jsonl")
        code = self.python(*words)
        page = out / "report" / "report.html"
        if not page.is_file():
            return f"no report (exit {code})"
        row = rf'id="promises".*?<td class="n">{promise}</td>.*?<span class="tag [^"]*">([^<]*)</span>'
        found = re.search(row, page.read_text("utf-8"), re.DOTALL)
        assert found, f"the report has no line for promise {promise}"
        return found[1]

    def _stopped_after_an_epoch(self, words: Sequence[str], history: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not history.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.wait()


def turns(copy: Copy, broken: Break) -> tuple[bool, str]:
    """Whether the report's line turns, and from what to what."""
    before = copy.state(broken.made, broken.promise)
    change, story = broken.instead or broken.change, ""
    with copy.changed(change):
        after = copy.state(broken.made, broken.promise)
    if broken.refusal and after.startswith("no report"):
        story = f" ({after}: the run is refused; then with the refusal taken away)"
        with copy.changed(change, broken.refusal):
            after = copy.state(broken.made, broken.promise)
    if broken.promise == 8 and after == "Broken":
        with copy.changed(
            change, broken.change
        ):  # the file differs, and its certificate claims to have passed
            after = copy.state(broken.made, broken.promise)
    return (before, after) == ("Kept", "Broken"), f"report: {before}, then {after}{story}"


def turns_red(copy: Copy, broken: Break) -> tuple[bool, str]:
    """Whether the test is green, and red with the broken line."""
    green = copy.passes(broken.test)
    with copy.changed(broken.change):
        red = not copy.passes(broken.test)
    return green and red, f"{broken.test}: {'green' if green else 'RED'}, then {'red' if red else 'GREEN'}"


def main(words: Sequence[str]) -> int:
    failures, wanted = 0, [int(word) for word in words if word.isdigit()]
    checks = (turns,) if "--report-only" in words else (turns, turns_red)
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for name in ("src", "tests", "docs"):
            shutil.copytree(ROOT / name, copy.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy.folder)
        assert copy.python("-c", PREPARE, "weights.safetensors", "photos") == 0, (
            "photos and weights are needed"
        )
        for broken in BREAKS:
            if wanted and broken.promise not in wanted:
                continue
            for check in checks:
                well, story = check(copy, broken)
                failures += not well
                print(f"promise {broken.promise:>2}: {'' if well else 'FAILED '}{story}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
