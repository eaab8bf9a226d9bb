"""The resize of the exported graph: Pillow's weights, in operators that no engine can read in part."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from saccade.export.graph import Part
from saccade.export.onnx import IR_VERSION, OPSET, PIXELS, PREPROCESS_PREFIX
from saccade.export.preprocessing import add_preprocess
from saccade.imports import import_openvino
from saccade.preprocess import Interpolation, Preprocess, ResizeMode

RESIZES, INTERPOLATIONS = get_args(ResizeMode), get_args(Interpolation)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LEVEL = 1e-3  # of 255: a thousandth of what one bit of a pixel is worth
SHAPES = [
    (1, 1), (1, 2), (1, 20), (20, 1), (2, 3), (7, 5),  # fewer pixels than the input has: enlarged
    (31, 31), (32, 32), (33, 33), (36, 36), (36, 50),  # the input's size, its neighbours, the crop's
    (64, 64), (100, 80), (80, 100), (257, 333), (479, 641),
    (20, 400), (400, 20), (1, 400), (1000, 3), (1500, 75),  # long
    (1999, 30), (4000, 7), (3, 4000),
]  # fmt: skip


def graph(preprocess: Preprocess) -> onnx.ModelProto:
    """The preprocessing alone, as a file would hold it."""
    part = Part(PREPROCESS_PREFIX)
    add_preprocess(part, preprocess)
    side = preprocess.size
    return helper.make_model(
        helper.make_graph(
            part.nodes,
            "preprocessing",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])],
            [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", 3, side, side])],
            part.constants,
        ),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def session(preprocess: Preprocess) -> onnxruntime.InferenceSession:
    data = graph(preprocess).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Every pixel unlike its neighbours, so that a filter that is too narrow shows at once."""
    return np.random.default_rng([seed, *shape]).integers(0, 256, (*shape, 3), dtype=np.uint8)


def by_pillow(image: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float64]:
    """The network's input by Pillow, whose weights are float64 and whose "F" images are not rounded."""
    plan, size = preprocess.geometry(*image.shape[:2]), preprocess.size
    channels = []
    for values in image.transpose(2, 0, 1):
        plane = Image.fromarray(values.astype(np.float32))
        channels.append(
            np.asarray(plane.resize((plan.width, plan.height), FILTERS[preprocess.interpolation]))
        )
    resized = np.stack(channels, axis=-1).astype(np.float64)
    if preprocess.resize == "crop":
        resized = resized[plan.top : plan.top + size, plan.left : plan.left + size]
    normalised = (resized / 255 - preprocess.mean) / preprocess.std
    if preprocess.resize == "pad":
        around = [(plan.top, size - plan.top - plan.height), (plan.left, size - plan.left - plan.width)]
        normalised = np.pad(normalised, [*around, (0, 0)])
    return normalised.transpose(2, 0, 1)


def largest_difference(found: NDArray[Any], expected: NDArray[Any], preprocess: Preprocess) -> float:
    """In grey levels."""
    assert found.shape == expected.shape
    return float((np.abs(found - expected).max(axis=(1, 2)) * preprocess.std).max() * 255)


@pytest.fixture(scope="module")
def sessions() -> dict[tuple[str, str, int], onnxruntime.InferenceSession]:
    """One of each kind; 32 is a whole number of tiles, 31 is not."""
    return {
        (resize, interpolation, size): session(Preprocess(size, resize, interpolation))
        for resize in RESIZES
        for interpolation in INTERPOLATIONS
        for size in (31, 32)
    }


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_pixels_are_pillows(
    sessions: dict[tuple[str, str, int], onnxruntime.InferenceSession], shape: tuple[int, int]
) -> None:
    image = noise(*shape)
    for (resize, interpolation, size), run in sessions.items():
        if resize == "crop" and max(shape) > 100 * min(shape):
            continue  # Pillow would make the whole strip, of which the graph makes the part that is kept
        preprocess = Preprocess(size, resize, interpolation)  # type: ignore[arg-type]
        found = run.run(None, {"image": image[None]})[0][0]
        expected = by_pillow(image, preprocess)
        assert largest_difference(found, expected, preprocess) < LEVEL, (resize, interpolation, size)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_camera_photo_is_exact_too(interpolation: Interpolation) -> None:
    """4,000 pixels a side: positions in float32 would be off by a thousandth of a pixel."""
    preprocess = Preprocess(64, "crop", interpolation)
    image = noise(1000, 4000)
    found = session(preprocess).run(None, {"image": image[None]})[0][0]
    assert largest_difference(found, by_pillow(image, preprocess), preprocess) < LEVEL


def test_a_strip_costs_what_is_kept_of_it() -> None:
    """1 x 4,000 on the short side of 36 pixels would be 144,000 wide; only its centre is made."""
    preprocess = Preprocess(32, "crop", "bicubic")
    image = noise(1, 4000)
    found = session(preprocess).run(None, {"image": image[None]})[0][0]
    middle = image[:, 1980:2020]
    expected = by_pillow(middle, preprocess)
    assert largest_difference(found, expected, preprocess) < LEVEL


@pytest.mark.parametrize("resize", RESIZES)
def test_images_of_a_batch_do_not_mix(resize: ResizeMode) -> None:
    preprocess = Preprocess(31, resize, "bicubic")
    images = np.stack([noise(90, 70, seed=seed) for seed in range(5)])
    run = session(preprocess)
    together = run.run(None, {"image": images})[0]
    for image, found in zip(images, together, strict=True):
        alone = run.run(None, {"image": image[None]})[0][0]
        np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.95, 1.0])
def test_crops_of_every_width(fraction: float) -> None:
    preprocess = Preprocess(32, "crop", "bilinear", fraction)
    image = noise(123, 77)
    found = session(preprocess).run(None, {"image": image[None]})[0][0]
    assert largest_difference(found, by_pillow(image, preprocess), preprocess) < LEVEL


def test_an_image_of_the_inputs_size_is_left_as_it_is() -> None:
    for interpolation in INTERPOLATIONS:
        preprocess = Preprocess(32, "squash", interpolation, 1.0, (0, 0, 0), (1 / 255,) * 3)
        image = noise(32, 32)
        found = session(preprocess).run(None, {"image": image[None]})[0][0]
        assert np.array_equal(found, image.transpose(2, 0, 1))


# ── in every engine ──────────────────────────────────────────────────────────────────────────────────

PLAIN = {
    "Abs", "Add", "Cast", "Concat", "Div", "Gather", "MatMul", "Max", "Min", "Mul", "Pad", "Range",
    "ReduceSum", "Relu", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose",
}  # fmt: skip
ATTRIBUTES = {"axis", "end", "keepdims", "mode", "perm", "start", "to"}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_only_plain_operators(resize: ResizeMode, interpolation: Interpolation) -> None:
    """Nothing with an attribute that an engine might not know, above all no Resize."""
    nodes = graph(Preprocess(224, resize, interpolation)).graph.node
    assert len(nodes) > 30
    assert {node.op_type for node in nodes} <= PLAIN
    assert {attribute.name for node in nodes for attribute in node.attribute} <= ATTRIBUTES


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_numpy_reads_the_graph_alike(resize: ResizeMode, interpolation: Interpolation) -> None:
    """A second engine that is always there: onnx's own, written in numpy."""
    preprocess = Preprocess(31, resize, interpolation)
    engine = ReferenceEvaluator(graph(preprocess))
    for shape in ((9, 11), (257, 190)):
        image = noise(*shape)
        found = np.asarray(engine.run(None, {"image": image[None]})[0])[0]
        assert largest_difference(found, by_pillow(image, preprocess), preprocess) < LEVEL


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_openvino_reads_the_graph_alike(resize: ResizeMode, interpolation: Interpolation) -> None:
    """It leaves `antialias` of a Resize out: on noise, far from what the network was trained on."""
    pytest.importorskip("openvino")
    preprocess = Preprocess(31, resize, interpolation)
    core = import_openvino().Core()
    model = core.read_model(graph(preprocess).SerializeToString())
    engine = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((9, 11), (900, 1200)):
        image = noise(*shape)
        found = engine({"image": image[None]})[0][0]
        assert largest_difference(found, by_pillow(image, preprocess), preprocess) < LEVEL


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_reduced_precision_costs_a_level_not_the_picture(interpolation: Interpolation) -> None:
    """OpenVINO takes bfloat16 by itself where the processor has it. Whole positions survive that."""
    pytest.importorskip("openvino")
    preprocess = Preprocess(32, "crop", interpolation)
    core = import_openvino().Core()
    model = core.read_model(graph(preprocess).SerializeToString())
    image = noise(900, 1200)
    found = core.compile_model(model, "CPU")({"image": image[None]})[0][0]
    assert largest_difference(found, by_pillow(image, preprocess), preprocess) < 4
