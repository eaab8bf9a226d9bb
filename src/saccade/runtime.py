"""Device, precision, ranks: the only file that knows Lightning Fabric.

The training loop asks a `Runtime` to place a module, to run backward and to clip; everything else of the
loop stays plain torch and visible.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from saccade.errors import RecipeError
from saccade.processes import Place, unforeseen
from saccade.threads import keep_freed_memory

Precision = Literal["float32", "bfloat16"]

PRECISIONS = ("float32", "bfloat16")
AMX, AVX512_BF16 = "_is_amx_tile_supported", "_is_avx512_bf16_supported"  # torch.cpu's questions


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and in which arithmetic a model is trained. Evaluation is float32 whatever `precision` says."""

    device: torch.device
    precision: Precision
    fabric: Any  # lightning_fabric.Fabric

    @classmethod
    def create(cls, device: str = "auto", precision: str = "auto") -> Runtime:
        """Resolve "auto" (cuda, then mps, then cpu; bfloat16 only on a GPU that has it).

        Raises RecipeError for a device that is not here or a precision it cannot do.
        """
        _refuse_several_processes()
        chosen = resolve_device(device)
        arithmetic = resolve_precision(precision, chosen)
        keep_freed_memory()
        fabric = Fabric(
            accelerator=chosen.type,
            devices=[chosen.index] if chosen.type == "cuda" else 1,
            plugins=_plugins(arithmetic, chosen),
        )
        return cls(device=chosen, precision=arithmetic, fabric=fabric)

    def in_precision(self, precision: Precision) -> Runtime:
        """The same device in that training arithmetic."""
        return self if precision == self.precision else Runtime.create(str(self.device), precision)

    @property
    def ranks(self) -> int:
        return int(self.fabric.world_size)

    def place(self, module: nn.Module) -> None:
        """Move to the device, convolution weights in channels-last order (quicker on CPU and GPU)."""
        module.to(self.device)
        if self.device.type != "mps":
            module.to(memory_format=torch.channels_last)

    def images(self, images: Tensor) -> Tensor:
        """A batch (B, 3, S, S) on the device, in the memory order `place` gave the weights, or tokens."""
        as_it_is = self.device.type == "mps" or images.ndim != 4
        order = torch.preserve_format if as_it_is else torch.channels_last
        return images.to(self.device, non_blocking=True, memory_format=order)

    def setup(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        """The module and optimizer as Fabric wraps them: forward runs in the training precision."""
        return self.fabric.setup(module, optimizer, move_to_device=False)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        self.fabric.backward(loss)

    def clip(self, module: Any, optimizer: Any, norm: float) -> None:
        """Shorten the gradient to at most `norm`."""
        self.fabric.clip_gradients(module, optimizer, max_norm=norm)

    def clip_values(self, module: Any, optimizer: Any, most: float) -> None:
        """Cut each number of the gradient to between -`most` and `most`."""
        self.fabric.clip_gradients(module, optimizer, clip_val=most)

    def free_cache(self) -> None:
        """Give memory that torch keeps for later back to the GPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def training_arithmetic(self) -> Iterator[None]:
        """Deterministic operations on a CPU; the caller's own settings and random state come back after."""
        before = torch.get_deterministic_debug_mode()
        memory: Any = torch.utils.deterministic
        filling = memory.fill_uninitialized_memory
        forked = [self.device] if self.device.type == "cuda" else []
        try:
            if self.device.type == "cpu":
                # the same as use_deterministic_algorithms, which imports torch's compiler (a second)
                torch.set_deterministic_debug_mode("warn")
                memory.fill_uninitialized_memory = False  # slow, and nothing reads it
            with torch.random.fork_rng(devices=forked):
                yield
        finally:
            torch.set_deterministic_debug_mode(before)
            memory.fill_uninitialized_memory = filling

    @contextlib.contextmanager
    def evaluation_arithmetic(self) -> Iterator[None]:
        """Plain float32 without gradients: no autocast, and no TF32 on GPUs that would use it."""
        backends: Any = torch.backends
        switches = (backends.cudnn.conv, backends.cuda.matmul)
        before = [switch.fp32_precision for switch in switches]
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.fp32_precision = value

    def describe(self) -> dict[str, Any]:
        """What "auto" became and what it runs on, for `environment.json`."""
        import lightning_fabric

        return {
            "device": str(self.device),
            "device_name": _device_name(self.device),
            "precision": self.precision,
            "deterministic": self.device.type == "cpu",
            "threads": torch.get_num_threads(),
            "ranks": self.ranks,
            "torch": torch.__version__,
            "lightning_fabric": lightning_fabric.__version__,
        }


@contextlib.contextmanager
def in_threads(count: int) -> Iterator[None]:
    """This thread and those that start inside it compute with `count` threads each; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_each() -> contextlib.AbstractContextManager[None]:
    """This thread and those that start inside it compute on one core each; afterwards as before."""
    return in_threads(1)


def draw_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: randomness as a function, not a state."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def resolve_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda", "cuda:1" or "mps" as a device that is here; raises RecipeError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    number = int(index) if index.isdecimal() else 0
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind == "mps" and index in ("", "0") and torch.backends.mps.is_available():
        return torch.device("mps", 0)
    if kind == "cuda" and (not index or index.isdecimal()) and number < torch.cuda.device_count():
        return torch.device("cuda", number)
    why = f": {why_no_gpu()}" if kind == "cuda" and not torch.cuda.is_available() else ""
    raise RecipeError(
        f"device {name!r} is not available{why}",
        hint=f"choose from: auto, {', '.join(available_devices())}",
    )


def device_of(name: str, place: Place) -> str:
    """The device of one of several processes: a CPU, or a GPU each; raises RecipeError."""
    if place.alone:
        return name
    device = resolve_device(name)
    if device.type == "mps":
        raise RecipeError(
            "several processes cannot share an Apple GPU", hint="use --device cpu, or one process"
        )
    if device.type == "cpu":
        return "cpu"
    if name.startswith("cuda:"):
        raise RecipeError(
            f"device {name!r} is one GPU, and each of several processes has its own", hint="use --device cuda"
        )
    return f"cuda:{place.local % torch.cuda.device_count()}"


def why_no_gpu() -> str:
    """Why torch does not see a GPU of NVIDIA or AMD, as far as that shows."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not any(map(shutil.which, ("nvidia-smi", "rocm-smi"))) and not os.path.exists("/proc/driver/nvidia"):
        return "no GPU driver is found"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "torch sees no GPU" + (f" (CUDA_VISIBLE_DEVICES={hidden!r})" if hidden is not None else "")


def available_devices() -> tuple[str, ...]:
    """Names that `resolve_device` accepts on this machine, besides "auto"."""
    gpus = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return ("cpu", *(("mps",) if torch.backends.mps.is_available() else ()), *gpus)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """ "auto" is bfloat16 on a GPU that computes in it, float32 elsewhere; raises RecipeError."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bfloat16" if native else "float32"
    if name not in PRECISIONS:
        raise RecipeError(f"precision must be auto, float32 or bfloat16, got {name!r}")
    if name == "bfloat16" and device.type == "cuda" and not native:
        raise RecipeError(
            f"precision bfloat16 is not supported by {_device_name(device)}",
            hint="use float32",
        )
    return "bfloat16" if name == "bfloat16" else "float32"


def _plugins(arithmetic: Precision, device: torch.device) -> list[Any]:
    """bfloat16 as Fabric makes it when asked by name, but without its line on stderr; and one process.

    Left to itself, Fabric asks the environment about torchrun and SLURM, and warns where `srun` is installed.
    """
    reduced = [MixedPrecision("bf16-mixed", device.type)] if arithmetic == "bfloat16" else []
    return [*reduced, LightningEnvironment()]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def _refuse_several_processes() -> None:
    """Only `saccade train` knows of others; several of any other command would all do the same."""
    if processes := unforeseen():
        raise RecipeError(
            f"this was started as {processes} processes, but it runs in one",
            hint="start it once, without torchrun or with `srun -n 1`; `saccade train` runs in several",
        )


def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 quicker than float32 where nothing is trained.

    Matrix units (AMX) do, and AMD's processors with AVX-512 for bfloat16 (Zen 4: 0.6 times the time). Intel's
    without matrix units know the same instructions and take 1.6 times as long. A rule, not a clock: the same
    machine always computes the same features. Measured: docs/lab-notes.md, 2026-11-27.
    """
    return _processor_has(AMX) or (_processor_has(AVX512_BF16) and "AuthenticAMD" in processor_vendor())


def knows_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; where it is imitated, it is slow."""
    return _processor_has(AVX512_BF16) or _processor_has(AMX)


def imitates_bfloat16(runtime: Runtime) -> bool:
    """Whether training would compute in bfloat16 on a processor that has no instructions for it."""
    return runtime.device.type == "cpu" and runtime.precision == "bfloat16" and not knows_bfloat16()


def _processor_has(question: str) -> bool:
    """torch's own answer; not every version and processor knows the question."""
    ask = getattr(torch.cpu, question, None)
    return ask is not None and bool(ask())


def processor_vendor() -> str:
    """What the processor says of itself, "GenuineIntel" for one, perhaps among other words; "" if unknown."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor()
