"""Break one line for each promise, in a copy of the source, and see the promise's test turn red.

    python benchmarks/break_promises.py

Exit 1 when a broken promise leaves its test green.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Break(NamedTuple):
    """In `file`, `line` becomes `broken`; `test` must fail then."""

    promise: int
    file: str
    line: str
    broken: str
    test: str


BREAKS = (
    Break(
        1,
        "data/split/atoms.py",
        "forest.join(index, first_with.setdefault(mark, index))",
        "first_with.setdefault(mark, index)",
        "tests/data/test_split.py::test_groups_clusters_and_copies_stay_together",
    ),
    Break(
        2,
        "transforms/batches.py",
        "self.limits), self.preprocess)",
        "self.limits), self.preprocess).flip(-1)",
        "tests/transforms/test_batches.py::test_promise_2_evaluation_sees_each_image_as_it_is",
    ),
    Break(
        3,
        "export/onnx.py",
        "mean, std = np.array(preprocess.mean), np.array(preprocess.std)",
        "mean, std = np.array((0.5, 0.5, 0.5)), np.array(preprocess.std)",
        "tests/export/test_onnx_file.py::test_pixels_reach_the_network_as_in_torch",
    ),
    Break(
        4,
        "models/finetune.py",
        "module.training = False",
        "module.training = True",
        "tests/training/test_loop.py::"
        "test_promise_4_the_frozen_base_and_its_batch_norm_statistics_do_not_move",
    ),
    Break(
        5,
        "config.py",
        "HARD_FINETUNE_RATIO = 0.1",
        "HARD_FINETUNE_RATIO = 10.0",
        "tests/test_config.py::test_promise_5_a_large_fine_tuning_rate_is_refused",
    ),
    Break(
        6,
        "evaluation/diagnosis.py",
        "OVERFIT_GAP = 0.10",
        "OVERFIT_GAP = 10.0",
        "tests/evaluation/test_diagnosis.py::test_overfitting_is_a_gap_beyond_chance",
    ),
    Break(
        7,
        "pipeline/fitting.py",
        'self._records = dataset.used("validation")',
        "self._records = dataset.used()",
        "tests/journeys/test_promise_7.py",
    ),
    Break(
        8,
        "export/certify.py",
        "passed = figures.largest_difference <= tolerance and figures.largest_tie <= tolerance",
        "passed = True",
        "tests/journeys/test_train.py::test_promise_8_a_file_that_answers_differently_fails_its_certificate",
    ),
    Break(
        9,
        "training/loop.py",
        "learner.load_optimizer(checkpoint.optimizer, checkpoint.scalars)",
        "pass",
        "tests/training/test_resume.py::test_killed_in_mid_epoch_and_mid_write_it_ends_bit_identical",
    ),
    Break(
        10,
        "models/pretrained.py",
        "weights_only=True",
        "weights_only=False",
        "tests/test_no_code_in_data.py::test_the_one_pickle_is_read_as_tensors_only",
    ),
)


def passes(copy: Path, test: str) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode == 0


def main() -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "docs"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for number, file, line, broken, test in BREAKS:
            path = copy / "src" / "saccade" / file
            whole = path.read_text("utf-8")
            assert whole.count(line) == 1, f"{file}: {line!r} stands there {whole.count(line)} times"
            green_before = passes(copy, test)
            path.write_text(whole.replace(line, broken), "utf-8")
            red_after = not passes(copy, test)
            path.write_text(whole, "utf-8")
            failures += not (green_before and red_after)
            verdict = "green, then red" if green_before and red_after else f"{green_before=}, {red_after=}"
            print(f"promise {number:>2}: {file}: {line!r} -> {broken!r}: {verdict} ({test})", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
