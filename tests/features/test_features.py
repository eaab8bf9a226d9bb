"""Frozen features: the backbone's own, of each image once, the same on any number of threads."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade import runtime
from saccade.caches.pixels import PixelCache
from saccade.errors import DataError, Interrupted, ModelError
from saccade.export.onnx import export_network
from saccade.features import compute as features
from saccade.features import engines as engine
from saccade.features.compute import BATCH_IMAGES, Images, compute_features
from saccade.features.engines import feature_engines, onnx_engine, openvino_engine, torch_engine
from saccade.images.decoder import Limits
from saccade.models import build_model
from saccade.preprocess import Preprocess
from saccade.runtime import Runtime
from saccade.sources import load_source
from saccade.testing.tiny import TinyBackbone
from saccade.training.stop import StopRequest

PREPROCESS = Preprocess(size=16)


def images_of(folder: Path, *, exact: bool = True) -> Images:
    data = load_source(folder)
    return Images(data.storage, data.records, PREPROCESS, Limits(), exact)


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    """An engine that also tells left from right: mean of each half, (B, 6)."""
    return torch.cat([images[..., :8].mean((2, 3)), images[..., 8:].mean((2, 3))], dim=1)


def test_rows_are_the_images_in_order_on_any_number_of_threads(make_photos: Callable[..., Path]) -> None:
    images = images_of(make_photos(images=BATCH_IMAGES))  # three batches
    one = compute_features(images, mean_colour)
    assert one.shape == (len(images), 6)
    assert torch.equal(one, compute_features(images, mean_colour, threads=4))
    last = len(images) - 1
    assert torch.allclose(one[last], mean_colour(images.inputs([last]))[0])


def test_the_second_view_is_the_mirror_image(make_photos: Callable[..., Path]) -> None:
    images = images_of(make_photos())
    plain, mirrored = (compute_features(images, mean_colour, mirror=mirror) for mirror in (False, True))
    assert torch.allclose(mirrored, plain[:, [3, 4, 5, 0, 1, 2]], atol=1e-6)
    assert not torch.allclose(mirrored, plain, atol=1e-3)


def test_the_quick_path_shows_what_the_exact_path_shows(make_photos: Callable[..., Path]) -> None:
    folder = make_photos(side=40)
    exact = images_of(folder).inputs(range(6))
    quick = images_of(folder, exact=False).inputs(range(6))
    assert (quick - exact).abs().max() < 0.02  # about a level of 255 behind the normalisation
    assert not torch.equal(quick, exact)


def test_an_image_that_went_bad_is_named(make_photos: Callable[..., Path]) -> None:
    folder = make_photos()
    images = images_of(folder)
    (folder / images.records[5].path).write_bytes(b"no image")
    with pytest.raises(DataError, match=images.records[5].path):
        compute_features(images, mean_colour, threads=2)


def test_a_stop_request_ends_it(make_photos: Callable[..., Path]) -> None:
    stop = StopRequest()
    stop.set(15)
    with pytest.raises(Interrupted):
        compute_features(images_of(make_photos()), mean_colour, stop=stop)


def test_torch_computes_with_as_many_threads_after_as_before(make_photos: Callable[..., Path]) -> None:
    before = torch.get_num_threads()
    compute_features(images_of(make_photos()), mean_colour, threads=2)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_the_onnx_engine_gives_the_backbones_features(name: str) -> None:
    size = 32 if name == "test_efficientnet" else 160
    backbone = build_model(name, 3, pretrained=False, image_size=size).module.backbone.eval()
    images = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = backbone(images)
    engines = feature_engines(backbone, Runtime.create("cpu"), size)
    assert engines.exact_name.startswith("ONNX Runtime")
    assert torch.allclose(engines.exact(images), expected, rtol=1e-4, atol=1e-5)


def test_the_quick_engine_gives_nearly_the_backbones_features(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engine, "bfloat16_pays", lambda: True)
    backbone = build_model("mobilenetv2_035", 3, pretrained=False, image_size=64).module.backbone.eval()
    images = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    quick = openvino_engine(export_network(backbone, 64))
    if quick is None:
        pytest.skip("this processor does not multiply bfloat16")
    with torch.inference_mode():
        expected = backbone(images)
    first = quick(images)
    assert 0 < float((first - expected).norm() / expected.norm()) < 0.3
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(first, again) for again in pool.map(quick, [images] * 4))


@pytest.mark.parametrize(
    ("amx", "avx512", "vendor", "pays"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "GenuineIntel", False),
        (False, True, "AuthenticAMD", True),
        (False, False, "AuthenticAMD", False),
        (False, False, "", False),
    ],
)
def test_where_bfloat16_pays(
    amx: bool, avx512: bool, vendor: str, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(runtime, "processor_vendor", lambda: vendor)
    assert runtime.bfloat16_pays() is pays


def test_without_bfloat16_that_pays_nothing_of_openvino_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "bfloat16_pays", lambda: False)
    monkeypatch.setattr(engine, "import_openvino", lambda: pytest.fail("it takes half a second"))
    assert feature_engines(TinyBackbone().eval(), Runtime.create("cpu"), 8).quick is None


def test_an_openvino_that_is_broken_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    backbone = TinyBackbone().eval()
    assert openvino_engine(export_network(backbone, 8)) is None
    assert feature_engines(backbone, Runtime.create("cpu"), 8).quick is None


class Sorted(TinyBackbone):
    """Asks its input for a plain number, which no exporter takes along."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (2.0 if float(images.sum()) > 0 else 1.0)


def test_a_backbone_that_cannot_be_exported_is_computed_by_torch() -> None:
    backbone = Sorted().eval()
    with pytest.raises(ModelError):
        export_network(backbone, 8)
    engines = feature_engines(backbone, Runtime.create("cpu"), 8)
    assert engines.exact_name.startswith("torch")
    assert engines.quick is None
    images = torch.ones(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(engines.exact(images), backbone(images), atol=1e-6)


def test_an_engine_with_other_features_is_refused() -> None:
    backbone, other = TinyBackbone().eval(), TinyBackbone().eval()
    with pytest.raises(ModelError, match="features differ"):
        onnx_engine(export_network(other, 8), backbone, 8)


def test_the_torch_engine_leaves_modes_and_statistics_alone() -> None:
    backbone = TinyBackbone().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch_engine(backbone, Runtime.create("cpu"))(torch.randn(4, 3, 8, 8))
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    np.testing.assert_equal(len(before) > 8, True)


def test_images_kept_on_disk_give_the_same_features_and_are_not_decoded_again(
    make_photos, tmp_path, monkeypatch
):
    images = images_of(make_photos(), exact=False)
    records = tuple(
        replace(record, sha256=hashlib.sha256(images.storage.read(record.path)).hexdigest())
        for record in images.records
    )
    plain = compute_features(images, mean_colour)
    kept = replace(images, records=records, pixels=PixelCache(tmp_path / "pixels", 10**7))
    assert torch.equal(plain, compute_features(kept, mean_colour, threads=2))
    again = replace(kept, pixels=PixelCache(tmp_path / "pixels", 10**7))
    monkeypatch.setattr(features, "read_pixels", None)
    assert torch.equal(plain, compute_features(again, mean_colour))
