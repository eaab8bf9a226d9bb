"""Device, precision and randomness."""

from __future__ import annotations

import json

import pytest
import torch

from saccade import processes
from saccade import runtime as runtime_module
from saccade.errors import RecipeError
from saccade.runtime import Runtime, draw_seed, resolve_device, resolve_precision


def test_auto_is_float32_on_a_cpu():
    runtime = Runtime.create("cpu", "auto")
    assert (runtime.device.type, runtime.precision) == ("cpu", "float32")
    assert runtime.ranks == 1


def test_a_cluster_on_which_srun_is_installed_is_no_reason_to_warn(tmp_path, monkeypatch):
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Runtime.create("cpu", "float32").device.type == "cpu"  # a warning is an error here


def test_bfloat16_can_be_asked_for_on_a_cpu_and_is_what_the_network_computes_in():
    runtime = Runtime.create("cpu", "bfloat16")
    module = torch.nn.Linear(4, 2)
    seen = []
    module.register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    forward, stepper = runtime.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
    runtime.backward(forward(torch.randn(3, 4)).float().sum())
    stepper.step()
    assert seen == [torch.bfloat16]
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cpu:1", "cuda:x", "gpu"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name):
    with pytest.raises(
        RecipeError, match=rf"device '{name}' is not available.*\nhint: choose from: auto, cpu"
    ):
        resolve_device(name)


@pytest.mark.parametrize(
    ("built", "tool", "why"),
    [
        (None, None, r"torch \S+ is built without CUDA"),
        ("13.2", None, "no GPU driver is found"),
        ("13.2", "/usr/bin/nvidia-smi", r"torch sees no GPU \(CUDA_VISIBLE_DEVICES='7'\)"),
    ],
)
def test_why_there_is_no_gpu_is_said(monkeypatch, built, tool, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr("shutil.which", lambda name: tool)
    monkeypatch.setattr("os.path.exists", lambda path: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(
        RecipeError, match=f"device 'cuda' is not available: {why}\nhint: choose from: auto, "
    ):
        resolve_device("cuda")


def test_an_unknown_precision_is_refused():
    with pytest.raises(RecipeError, match="precision must be auto, float32 or bfloat16, got 'float16'"):
        resolve_precision("float16", torch.device("cpu"))


@pytest.mark.parametrize(
    "environment", [{"WORLD_SIZE": "4"}, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}]
)
def test_several_processes_are_refused_rather_than_all_training_the_same(monkeypatch, environment):
    monkeypatch.setattr(processes._Asked, "place", False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="started as 4 processes"):
        Runtime.create("cpu")


def test_what_it_runs_on_can_be_written_as_json():
    described = json.loads(json.dumps(Runtime.create("cpu").describe()))
    assert described["device"] == "cpu"
    assert described["precision"] == "float32"
    assert described["deterministic"] is True
    assert described["threads"] == torch.get_num_threads()


def test_training_leaves_the_callers_settings_and_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with Runtime.create("cpu").training_arithmetic():
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(100)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.equal(torch.rand(2), expected)


def test_evaluation_is_exact_float32_without_gradients():
    before = torch.backends.cudnn.conv.fp32_precision
    layer = torch.nn.Linear(2, 2)
    with torch.autocast("cpu", torch.bfloat16), Runtime.create("cpu").evaluation_arithmetic():
        output = layer(torch.ones(1, 2))
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert (output.dtype, output.requires_grad) == (torch.float32, False)


def test_a_seed_depends_on_every_part_and_on_nothing_else():
    seeds = {
        draw_seed(*parts) for parts in [(0, "step", 1), (0, "step", 2), (1, "step", 1), (0, "mix", 1), (0,)]
    }
    assert len(seeds) == 5
    assert draw_seed(0, "step", 1) == 4413158142644703930
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_convolution_weights_are_placed_channels_last():
    module = torch.nn.Conv2d(3, 4, 3)
    runtime = Runtime.create("cpu")
    runtime.place(module)
    assert module.weight.is_contiguous(memory_format=torch.channels_last)
    assert runtime.images(torch.randn(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("known", "precision", "slow"),
    [(False, "bfloat16", True), (True, "bfloat16", False), (False, "float32", False)],
)
def test_bfloat16_on_a_processor_without_it_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, known: bool, precision: str, slow: bool
) -> None:
    monkeypatch.setattr(runtime_module, "knows_bfloat16", lambda: known)
    assert runtime_module.imitates_bfloat16(Runtime.create("cpu", precision)) is slow


def test_an_apple_gpu_is_known_by_its_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps:0") == resolve_device("mps") == torch.device("mps", 0)
