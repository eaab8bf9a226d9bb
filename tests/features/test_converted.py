"""Exported backbones that are kept: found again, never believed blindly, bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from saccade.export import onnx as exporting
from saccade.features import exported as converted
from saccade.features.engines import feature_engines
from saccade.features.exported import exported
from saccade.models import build_model
from saccade.runtime import Runtime

SIZE = 32


def backbone_of(seed: int = 0) -> nn.Module:
    return build_model("test_efficientnet", 3, pretrained=False, image_size=SIZE, seed=seed).module.backbone


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes for which a network was really exported."""
    sizes: list[int] = []
    own = exporting.export_network

    def counted(module: nn.Module, size: int, *, channels: int) -> object:
        sizes.append(size)
        return own(module, size, channels=channels)

    monkeypatch.setattr(exporting, "export_network", counted)
    return sizes


def kept_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.onnx"))


def test_the_same_backbone_is_exported_once(tmp_path: Path, exports: list[int]) -> None:
    first = exported(backbone_of(), SIZE, tmp_path)
    again = exported(backbone_of(), SIZE, tmp_path)
    assert exports == [SIZE]
    assert again.SerializeToString() == first.SerializeToString()


def test_other_weights_sizes_and_statistics_are_exported_anew(tmp_path: Path, exports: list[int]) -> None:
    exported(backbone_of(), SIZE, tmp_path)
    exported(backbone_of(), SIZE + 32, tmp_path)
    changed, normed = backbone_of(), backbone_of()
    with torch.no_grad():
        next(changed.parameters()).add_(1e-3)
        next(buffer for name, buffer in normed.named_buffers() if name.endswith("running_mean")).add_(1e-3)
    exported(changed, SIZE, tmp_path)
    exported(normed, SIZE, tmp_path)
    assert exports == [SIZE, SIZE + 32, SIZE, SIZE]


def test_kept_or_not_the_features_are_the_same_bits(tmp_path: Path) -> None:
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    runtime = Runtime.create("cpu")
    found = [
        feature_engines(backbone_of().eval(), runtime, SIZE, kept=kept).exact(images)
        for kept in (None, tmp_path, tmp_path)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_exported_anew(tmp_path: Path, exports: list[int], damage: str) -> None:
    first = exported(backbone_of(), SIZE, tmp_path)
    (file,) = kept_in(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"cut": content[:-100], "changed": content, "empty": b""}[damage])
    assert exported(backbone_of(), SIZE, tmp_path).SerializeToString() == first.SerializeToString()
    assert exports == [SIZE, SIZE]
    exported(backbone_of(), SIZE, tmp_path)
    assert exports == [SIZE, SIZE]  # mended


def test_a_kept_network_that_answers_otherwise_is_not_used(tmp_path: Path) -> None:
    exported(backbone_of(seed=1), SIZE, tmp_path)
    (wrong,) = kept_in(tmp_path)
    content = wrong.read_bytes()
    wrong.unlink()
    exported(backbone_of(), SIZE, tmp_path)
    (file,) = kept_in(tmp_path)
    file.write_bytes(content)  # whole, but of other weights
    engines = feature_engines(backbone_of().eval(), Runtime.create("cpu"), SIZE, kept=tmp_path)
    assert engines.exact_name.startswith("torch")


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path, exports: list[int]) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    for _ in range(2):
        exported(backbone_of(), SIZE, blocked / "networks")
    assert exports == [SIZE, SIZE]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(backbone_of(0), SIZE, tmp_path)
    (first,) = kept_in(tmp_path)
    monkeypatch.setattr(converted, "MAX_BYTES", int(2.5 * first.stat().st_size))
    exported(backbone_of(1), SIZE, tmp_path)
    (second,) = set(kept_in(tmp_path)) - {first}
    os.utime(second, (0, 0))
    exported(backbone_of(0), SIZE, tmp_path)
    exported(backbone_of(2), SIZE, tmp_path)
    assert first in kept_in(tmp_path)
    assert second not in kept_in(tmp_path)
    assert len(kept_in(tmp_path)) == 2


class Padded(nn.Module):
    """A network that computes its padding from the image's size, as "same" padding does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        missing = max((images.shape[-1] // 2 - 1) * 2 + 3 - images.shape[-1], 0)
        padded = nn.functional.pad(images, (missing // 2, missing - missing // 2, 0, missing))
        return self.stem(padded).mean(dim=(2, 3))


def test_exported_graphs_belong_to_their_version() -> None:
    """Raise EXPORTING_VERSION when this changes on purpose: graphs of earlier versions go unused then."""
    model = exported(Padded(), SIZE, None)
    assert converted.EXPORTING_VERSION == 1
    assert [node.op_type for node in model.graph.node] == ["Pad", "Conv", "Relu", "ReduceMean"]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        *("network/pixels", "network/logits")
    ]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert [opset.version for opset in model.opset_import] == [18]
