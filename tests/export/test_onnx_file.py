"""The exported file answers like torch: every mode, filter, size and batch, whole and behind the resize."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import nn

from saccade.answer import Answer
from saccade.artefact import Artefact
from saccade.errors import ModelError
from saccade.evaluation.unfamiliar import Unfamiliar, fit_unfamiliar
from saccade.export.graph import Part
from saccade.export.half import write_half
from saccade.export.onnx import (
    FEATURES,
    IR_VERSION,
    OPSET,
    PIXELS,
    _add_unfamiliar,
    export_network,
    joined,
    write_onnx,
)
from saccade.export.parts import network_and_answer, read_float_model
from saccade.models.network import WithFeatures
from saccade.preprocess import Preprocess
from saccade.testing.tiny import tiny_classifier
from saccade.transforms.apply import to_input

# At 40 pixels a 20:1 image keeps two columns: torch 2.15 resizes to a width of 1 wrongly (every row equal).
SIDE = 40
SIZES = [(60, 80), (80, 60), (64, 64), (9, 11), (SIDE, SIDE), (200, 10), (10, 200), (1, 1), (333, 257)]


@dataclass(frozen=True)
class Trained:
    """What `write_onnx` needs of a bundle."""

    module: nn.Module
    preprocess: Preprocess
    classes: Sequence[str] = ("a", "b", "c", "d", "e")
    answer: Answer = field(default_factory=lambda: Answer("softmax", (1.3,)))
    data_fingerprint: str = "0123456789abcdef"


class SmallNet(nn.Module):
    """Conv, BatchNorm with statistics of its own, pooling, dropout and a linear layer."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Dropout(0.25)
        )
        self.head = nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images).mean((2, 3)))


def sensitive(network: nn.Module) -> nn.Module:
    """Random statistics and a steep last layer, so that a small change of the input shows."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def small_net() -> nn.Module:
    torch.manual_seed(0)
    network = sensitive(SmallNet())
    with torch.no_grad():
        network.head.weight.mul_(8)
    return network


@pytest.fixture(scope="module")
def exported(small_net: nn.Module) -> onnx.ModelProto:
    return export_network(small_net, SIDE)


def noise(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def torch_answers(trained: Trained, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """The evaluation path: what the certificate's predictions are made with."""
    with torch.inference_mode():
        inputs = torch.stack([to_input(image, trained.preprocess) for image in images])
        return trained.answer.probabilities(trained.module(inputs).numpy())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("resize", "crop_fraction"), [("crop", 0.875), ("crop", 1.0), ("pad", 0.875), ("squash", 0.875)]
)
def test_whole_graph_agrees_with_torch(
    small_net: nn.Module,
    exported: onnx.ModelProto,
    tmp_path: Path,
    resize: str,
    crop_fraction: float,
    interpolation: str,
) -> None:
    preprocess = Preprocess(SIDE, resize, interpolation, crop_fraction, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))  # type: ignore[arg-type]
    trained = Trained(small_net, preprocess)
    artefact = opened(exported, trained, tmp_path)
    images = [noise(size, seed) for seed, size in enumerate([*SIZES, (60, 80), (60, 80)])]
    expected = torch_answers(trained, images)
    assert expected.std(axis=0).max() > 0.05, "the network must tell these images apart"
    np.testing.assert_allclose(artefact.probabilities(images), expected, rtol=0, atol=1e-4)


def opened(exported: onnx.ModelProto, trained: Trained, folder: Path) -> Artefact:
    """The file around a network that was exported before; saves the exporter's seconds."""
    from saccade.export.onnx import file_metadata, write_model

    network = onnx.ModelProto()
    network.CopyFrom(exported)
    model = joined(network, trained.preprocess, trained.answer, len(trained.classes))
    onnx.helper.set_model_props(model, file_metadata(trained.classes, trained.preprocess, "f"))
    write_model(model, folder / "model.onnx")
    return Artefact.open(folder / "model.onnx")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_pixels_reach_the_network_as_in_torch(
    exported: onnx.ModelProto, resize: str, interpolation: str
) -> None:
    """The network's input itself, to a tenth of a grey level, over sizes that a network might forgive."""
    import onnxruntime

    preprocess = Preprocess(SIDE, resize, interpolation, 0.9)  # type: ignore[arg-type]
    network = onnx.ModelProto()
    network.CopyFrom(exported)
    model = joined(network, preprocess, Answer(), 5)
    model.graph.output.append(onnx.helper.make_tensor_value_info(PIXELS, 1, ["batch", 3, SIDE, SIDE]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for seed in range(40):
        height, width = random.integers(1, 120, 2).tolist()
        image = noise((max(height, -(-width // 20)), max(width, -(-height // 20))), seed)
        pixels = session.run([PIXELS], {"image": image[None]})[0][0]
        expected = to_input(image, preprocess).numpy()
        tenth_of_a_level = 0.1 / 255 / min(preprocess.std)
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=tenth_of_a_level, err_msg=str(image.shape))


def test_file_is_complete_and_says_what_it_is(small_net: nn.Module, tmp_path: Path) -> None:
    trained = Trained(small_net, Preprocess(SIDE))
    path = write_onnx(trained, tmp_path / "new" / "model.onnx", extra={"saccade.licence": "CC0"})
    model = onnx.load(path)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["saccade.classes"] == ["a", "b", "c", "d", "e"]
    assert Preprocess.from_json(metadata["saccade.preprocess"]) == trained.preprocess
    assert metadata["saccade.data_fingerprint"] == trained.data_fingerprint
    assert metadata["saccade.licence"] == "CC0"
    assert [value.name for value in model.graph.input] == ["image"]
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", "height", "width", 3,
    ]  # fmt: skip
    assert [value.name for value in model.graph.output] == ["probabilities"]
    assert [path.name for path in path.parent.iterdir()] == ["model.onnx"]
    # ONNX Runtime 1.15 to 1.17 open no higher IR version, and nothing in the graph needs one.
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)


def test_file_names_no_place_of_this_machine(small_net: nn.Module, tmp_path: Path) -> None:
    data = write_onnx(Trained(small_net, Preprocess(SIDE)), tmp_path / "model.onnx").read_bytes()
    for word in (b".py", b"site-packages", b"stack_trace", str(tmp_path).encode()):
        assert word not in data, word


def test_notes_of_the_second_exporter_are_dropped() -> None:
    from saccade.export import onnx as exporter

    captured = exporter._capture(TracerProof().eval(), 8, 3)
    assert b"TracerProof" in captured.SerializeToString(), "the exporter notes classes and source files"
    assert b"TracerProof" not in exporter._stripped(captured).SerializeToString()


def test_a_side_is_never_less_than_a_pixel(
    small_net: nn.Module, exported: onnx.ModelProto, tmp_path: Path
) -> None:
    """2 x 200 pixels on 40: the short side would round down to nothing."""
    trained = Trained(small_net, Preprocess(SIDE, "pad"))
    image = noise((2, 200))
    answers = opened(exported, trained, tmp_path).probabilities([image])
    np.testing.assert_allclose(answers, torch_answers(trained, [image]), atol=1e-4)


def test_same_bundle_gives_the_same_bytes(small_net: nn.Module, tmp_path: Path) -> None:
    trained = Trained(small_net, Preprocess(SIDE))
    hashes = {
        hashlib.sha256(write_onnx(trained, tmp_path / name).read_bytes()).hexdigest()
        for name in ("a.onnx", "b.onnx")
    }
    assert len(hashes) == 1


def test_exporting_leaves_the_network_as_it_was(small_net: nn.Module, tmp_path: Path) -> None:
    small_net.train()
    before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
    try:
        write_onnx(Trained(small_net, Preprocess(SIDE)), tmp_path / "model.onnx")
        assert small_net.training
    finally:
        small_net.eval()
    assert all(parameter.requires_grad for parameter in small_net.parameters())
    for name, tensor in small_net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_refuses_what_one_file_cannot_hold(small_net: nn.Module, tmp_path: Path) -> None:
    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(600_000_000, device="meta"))

    with pytest.raises(ModelError, match=r"2\.4 GB of float32 weights"):
        write_onnx(Trained(Huge(), Preprocess(SIDE)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_network_no_exporter_takes(tmp_path: Path) -> None:
    class Untraceable(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.sort(images.numpy().mean((2, 3))))  # leaves torch

    with pytest.raises(ModelError, match="cannot be exported to ONNX"):
        write_onnx(Trained(Untraceable(), Preprocess(SIDE)), tmp_path / "model.onnx")


def test_refuses_an_answer_for_another_number_of_classes(exported: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="2 temperatures and 0 offsets do not fit 5 classes"):
        joined(exported, Preprocess(SIDE), Answer("softmax", (1.0, 1.0)), 5)


class FixedBatch(nn.Module):
    """Answers by the batch it was captured with, when captured carelessly."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean((2, 3)))


def test_batches_of_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = Trained(FixedBatch().eval(), Preprocess(8))
    artefact = Artefact.open(write_onnx(trained, tmp_path / "m.onnx"))
    images = [noise((12, 12), seed) for seed in range(33)]
    np.testing.assert_allclose(artefact.probabilities(images), torch_answers(trained, images), atol=1e-5)


class TracerProof(nn.Module):
    """Only the exporter that captures the program can take it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not to be traced")
        return images.flatten(2)[:, :, :5].mean(1)


def test_second_exporter_steps_in() -> None:
    model = export_network(TracerProof().eval(), 8)
    assert [value.name for value in model.graph.output] == ["network/logits"]


class OwnPadding(nn.Module):
    """Padding and views computed from the input's size, as timm's "same" padding and channel shuffles are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        below, right = (-(-side // 2) * 2 + 1 - side for side in (height, width))
        features = self.conv(nn.functional.pad(images, (0, right, 0, below)))
        batch, channels, height, width = features.shape
        shuffled = features.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return self.head(shuffled.reshape(batch, channels, height, width).mean((2, 3)))


def test_sizes_are_folded_into_constants() -> None:
    """Without folding the traced graph computes the padding anew for every image."""
    from saccade.export import onnx as exporter

    torch.manual_seed(0)
    network = OwnPadding().eval()
    model = exporter._trace(network, 16, 3)
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Shape", "Constant", "Gather", "Cast"}, operators
    exporter._check_network(model, network, 16, 3)


@pytest.mark.parametrize("batch_in_the_way", [True, False])
def test_a_graph_that_answers_otherwise_is_not_believed(batch_in_the_way: bool) -> None:
    from saccade.export import onnx as exporter

    network = FixedBatch().eval()
    model = exporter._trace(network, 8, 3)
    if batch_in_the_way:
        model.graph.node.insert(0, onnx.helper.make_node("Expand", ["pixels", "two"], ["same"]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 1, 1]), "two"))
        model.graph.node[1].input[0] = "same"
    else:
        steeper = nn.Linear(3, 5)
        network.head = steeper
    with pytest.raises(ValueError, match="at batch 1"):
        exporter._check_network(model, network, 8, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name", "size", "options"),
    [
        ("timm", "mobilenetv2_050", 64, {"pad_type": "same"}),
        ("timm", "efficientnet_b0", 64, {}),
        ("timm", "vit_tiny_patch16_224", 224, {}),
        ("torchvision", "squeezenet1_1", 64, {}),
        ("torchvision", "resnet18", 64, {}),
        ("torchvision", "shufflenet_v2_x0_5", 64, {}),
    ],
)
def test_real_backbones_agree(
    library: str, name: str, size: int, options: dict[str, str], tmp_path: Path
) -> None:
    """End to end within 1e-3 for photos of any size, within 1e-4 where nothing is resized."""
    import timm
    import torchvision

    torch.manual_seed(0)
    if library == "timm":
        network = timm.create_model(name, num_classes=5, **options)
    else:
        network = torchvision.models.get_model(name, num_classes=5)
    trained = Trained(sensitive(network), Preprocess(size, interpolation="bicubic"))
    exported = export_network(network, size)
    shapes = [(90, 120), (90, 120), (120, 90), (20, 30), (200, 10)]
    images = [noise(shape, seed) for seed, shape in enumerate(shapes)]
    answers = opened(exported, trained, tmp_path).probabilities(images)
    assert np.abs(answers - torch_answers(trained, images)).max() <= 1e-3
    ready = [noise((size, size), seed) for seed in range(3)]
    plain = replace(trained, preprocess=Preprocess(size, resize="squash"))
    answers = opened(exported, plain, tmp_path).probabilities(ready)
    assert np.abs(answers - torch_answers(plain, ready)).max() <= 1e-4


# ── the second output ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def familiar(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Unfamiliar, Path]:
    """A classifier, how unfamiliar noise is to it, and both as a file."""
    trained = Trained(sensitive(tiny_classifier()), Preprocess(SIDE), classes=("a", "b", "c"))
    unfamiliar = fit_unfamiliar(features_of(trained, 40, 0), features_of(trained, 40, 1))
    assert unfamiliar is not None
    place = tmp_path_factory.mktemp("familiar") / "model.onnx"
    return trained, unfamiliar, write_onnx(trained, place, unfamiliar=unfamiliar)


def features_of(trained: Trained, images: int, seed: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        shown = (noise((SIDE, SIDE), 1000 * seed + i) // (1 + i % 4) for i in range(images))
        inputs = [to_input(image, trained.preprocess) for image in shown]
        found: NDArray[np.float32] = trained.module.backbone(torch.stack(inputs)).numpy()  # type: ignore[union-attr, operator]
    return found


def test_the_file_scores_unfamiliar_images_as_numpy_does(
    familiar: tuple[Trained, Unfamiliar, Path],
) -> None:
    trained, unfamiliar, path = familiar
    images = [noise(size, seed) for seed, size in enumerate(SIZES)]
    found = Artefact.open(path).scores(images)
    np.testing.assert_allclose(found.probabilities, torch_answers(trained, images), rtol=0, atol=1e-4)
    with torch.inference_mode():
        inputs = torch.stack([to_input(image, trained.preprocess) for image in images])
        expected = unfamiliar.scores(trained.module.backbone(inputs).numpy())  # type: ignore[union-attr, operator]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found.unfamiliarity, expected, rtol=1e-3, atol=1e-3)
    model = onnx.load(path)
    assert [value.name for value in model.graph.output] == ["probabilities", "unfamiliar"]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["saccade.unfamiliar"])
    assert (about["images"], about["held_out"], about["features"]) == (40, 40, 6)


def test_the_score_keeps_its_digits_where_images_lie_close_to_those_of_training() -> None:
    random = np.random.default_rng(0)
    directions = random.normal(size=(4, 1280))

    def drawn(images: int) -> NDArray[np.float32]:
        near = random.normal(size=(images, 4)) @ directions
        return (near + 0.008 * random.normal(size=(images, 1280))).astype(np.float32)

    unfamiliar = fit_unfamiliar(drawn(200), drawn(100))
    assert unfamiliar is not None
    assert 0.01 < unfamiliar.usual < 0.03
    part, images = Part("unfamiliar/"), drawn(50)
    _add_unfamiliar(part, unfamiliar)
    given = helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, ["batch", 1280])
    told = helper.make_tensor_value_info("unfamiliar", onnx.TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(part.nodes, "score", [given], [told], part.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {FEATURES: images})
    np.testing.assert_allclose(found[:, 0], unfamiliar.scores(images), rtol=5e-5)


def test_a_mirror_average_has_the_features_of_the_image_itself() -> None:
    network = tiny_classifier().eval()
    network.flip = True
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, features = WithFeatures(network)(images)
        both = WithFeatures(network, joined=True)(images)
        assert torch.equal(logits, network(images))
        assert torch.equal(features, network.backbone(images))
    assert torch.equal(both, torch.cat([logits, features], dim=1))


def test_a_reduced_file_does_not_say_what_is_unfamiliar(
    familiar: tuple[Trained, Unfamiliar, Path], tmp_path: Path
) -> None:
    write_half(familiar[2], tmp_path / "half.onnx", [])
    reduced = Artefact.open(tmp_path / "half.onnx")
    assert reduced.outputs == ("probabilities",)
    assert "saccade.unfamiliar" not in reduced.metadata
    assert np.isnan(reduced.scores([noise((9, 9))]).unfamiliarity).all()


def test_two_files_give_both_outputs_together(familiar: tuple[Trained, Unfamiliar, Path]) -> None:
    behind = network_and_answer(read_float_model(familiar[2]))
    assert [value.name for value in behind.graph.output] == ["probabilities", "unfamiliar"]
    onnx.checker.check_model(behind, full_check=True)
