"""torch's compiler is not imported for nothing, and is there once somebody asks for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from saccade import imports

PROGRAM = """
import sys
from saccade.imports import import_training_libraries
import_training_libraries()
from saccade.pipeline import fit
from saccade.runtime import Runtime
with Runtime.create("cpu").training_arithmetic():
    pass
import torch, torchvision
print("torch._dynamo" in sys.modules, torch.compiler.disable.__module__)
from lightning_fabric.wrappers import OptimizedModule
plain = torch.nn.Linear(2, 2)
print(isinstance(plain, OptimizedModule))
from torchvision.ops.roi_align import is_compile_supported
print(is_compile_supported("cpu"), "torch._dynamo" in sys.modules)
from torch._dynamo import OptimizedModule as Own
print(isinstance(Own(plain, torch._dynamo.disable), OptimizedModule), isinstance(plain, OptimizedModule))
"""


def test_the_compiler_is_left_out_until_it_is_asked_for() -> None:
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, second, third, last = answer.stdout.split("\n")[:4]
    assert first == "False torch.compiler"
    assert second == "False"
    assert third == "True True"
    assert last == "True False"


def test_the_compiler_is_put_off_for_no_torch_that_is_newer_than_the_constraints() -> None:
    (bound,) = re.findall(
        r"^torch<(\d+)\.(\d+)$", (Path(__file__).parents[1] / "constraints.txt").read_text(), re.MULTILINE
    )
    assert (int(bound[0]), int(bound[1]) - 1) == imports.TRIED


@pytest.mark.slow
def test_a_newer_torch_gets_its_compiler() -> None:
    program = (
        "import sys, torch; from saccade import imports; torch.__version__ = '2.99.0'\n"
        "imports.import_training_libraries(); print('torch._dynamo' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "True"


ASKING_MORE = """
import sys, types
import torch
from saccade import imports
imports._stand_ins = lambda: {
    name: types.ModuleType(name) for name in ("torch._dynamo", "torch._dynamo.utils")
}
imports.import_training_libraries()
import torch._dynamo
print(hasattr(torch._dynamo, "OptimizedModule"), torch.compiler.disable.__module__)
import timm, torchvision.transforms.v2, lightning_fabric
print(len(timm.list_models()) > 100)
"""


@pytest.mark.slow
def test_versions_that_ask_more_of_the_compiler_get_it() -> None:
    answer = subprocess.run([sys.executable, "-c", ASKING_MORE], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:2] == ["True torch.compiler", "True"]


OPENVINO = """
import os, sys, time
os.register_at_fork(before=lambda: print("forked"))
from saccade.imports import import_openvino
openvino = import_openvino()
openvino.Core()
time.sleep(0.5)  # the telemetry sends in a thread
print("openvino_telemetry" in sys.modules, sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__)
print(import_openvino() is openvino)
"""


def test_openvino_comes_without_its_telemetry() -> None:
    pytest.importorskip("openvino", reason="needs the extra saccade[openvino]")
    answer = subprocess.run([sys.executable, "-c", OPENVINO], capture_output=True, text=True, check=True)
    assert answer.stdout.split("\n")[:2] == ["False openvino.tools.ovc.telemetry_stub", "True"]
