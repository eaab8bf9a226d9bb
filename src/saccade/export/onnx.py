"""A trained network and its preprocessing as one ONNX file: pixels in, probabilities out.

The graph has three parts, told apart by the prefix of their names: `preprocess/` (from uint8 pixels of
any size to the network's input), `network/` (what torch exported) and `answer/` (temperature, softmax). A
fourth, `unfamiliar/`, may read the network's features: how unlike the training images an image is.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from saccade._version import __version__
from saccade.answer import Answer
from saccade.artefact import (
    ANSWER_KEY,
    CLASSES_KEY,
    FINGERPRINT_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    PREPROCESS_KEY,
    SCHEMA,
    SCHEMA_KEY,
    UNFAMILIAR_KEY,
    UNFAMILIAR_NAME,
    VERSION_KEY,
)
from saccade.deciding import FAMILIAR
from saccade.errors import MissingExtraError, ModelError
from saccade.evaluation.unfamiliar import QUANTILE, SMALLEST, Unfamiliar
from saccade.export.folding import fold_shapes
from saccade.export.graph import Part, Value
from saccade.export.preprocessing import add_preprocess
from saccade.onnx_file import OPERATORS
from saccade.preprocess import Preprocess
from saccade.run_folder import write_bytes

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 18
IR_VERSION = 8  # the lowest that holds opset 18; older runtimes refuse a higher one for its number alone
MAX_WEIGHT_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB, and the graph needs some of it
PREPROCESS_PREFIX, NETWORK_PREFIX, ANSWER_PREFIX = "preprocess/", "network/", "answer/"
UNFAMILIAR_PREFIX = "unfamiliar/"
PIXELS = f"{PREPROCESS_PREFIX}pixels"  # (batch, 3, size, size) float32, normalised
LOGITS = f"{NETWORK_PREFIX}logits"
FEATURES = f"{NETWORK_PREFIX}features"  # (batch, F), where the file says how unfamiliar an image is
EXPORT_BATCH = 2  # a batch of 1 would be taken for a constant
CHECKED_BATCHES = (1, 3)
NETWORK_TOLERANCE = 1e-4  # of a probability, behind the preprocessing
FEATURES_TOLERANCE = 1e-3  # of the features' length


class Exportable(Protocol):
    """What a file is written from; `saccade.bundle.Bundle` is one."""

    @property
    def module(self) -> torch.nn.Module: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def answer(self) -> Answer: ...
    @property
    def data_fingerprint(self) -> str: ...


def write_onnx(
    bundle: Exportable,
    path: str | Path,
    *,
    extra: Mapping[str, Any] | None = None,
    unfamiliar: Unfamiliar | None = None,
    write: Callable[[Path, bytes], None] = write_bytes,
) -> Path:
    """Write `bundle` as one self-contained ONNX file, return its path; same bundle, same bytes.

    `extra` is further metadata by full key (`saccade.thresholds`, ...), stored as JSON. With `unfamiliar` the
    file has a second output; the network must then be a `Classifier`. Raises ModelError when the network
    cannot be exported or does not fit one file, MissingExtraError without `onnx`.
    """
    _require("onnx")
    import onnx

    from saccade.bundle import check_finite  # which imports torch; `joined` and others do not need it

    _check_weight_bytes(bundle.module)
    check_finite(bundle.module)
    module = _with_features(bundle.module) if unfamiliar else bundle.module
    network = export_network(module, bundle.preprocess.size, channels=bundle.preprocess.pixels.count)
    model = joined(network, bundle.preprocess, bundle.answer, len(bundle.classes), unfamiliar)
    texts = file_metadata(bundle.classes, bundle.preprocess, bundle.data_fingerprint)
    more = {} if bundle.answer.is_plain else {ANSWER_KEY: bundle.answer.as_json()}
    more |= {UNFAMILIAR_KEY: _about(unfamiliar)} if unfamiliar else {}
    onnx.helper.set_model_props(model, {**texts, **_as_json({**more, **(extra or {})})})
    write_model(model, Path(path), write=write)
    return Path(path)


def _with_features(module: Any) -> torch.nn.Module:
    from saccade.models.network import WithFeatures

    return WithFeatures(module)


def _about(unfamiliar: Unfamiliar) -> dict[str, Any]:
    """What the file says of its second output."""
    features, dimensions = unfamiliar.basis.shape
    return {
        "limit": FAMILIAR,
        "quantile": QUANTILE,
        "images": unfamiliar.images,
        "held_out": unfamiliar.held_out,
        "features": features,
        "dimensions": dimensions,
    }


def preprocessing_of(path: str | Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """The preprocessing inside a file that `write_onnx` wrote, alone.

    It takes one image, uint8 (height, width, 3) or as `preprocess.pixels` says, and gives the network's
    input, float32 (3, size, size).
    """
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    whole = onnx.load(str(path))
    values = json.loads({p.key: p.value for p in whole.metadata_props}[PREPROCESS_KEY])
    side, channels = values["size"], len(values["mean"])
    graph = helper.make_graph(
        [node for node in whole.graph.node if node.name.startswith(PREPROCESS_PREFIX)],
        "preprocessing",
        list(whole.graph.input),
        [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", channels, side, side])],
        [tensor for tensor in whole.graph.initializer if tensor.name.startswith(PREPROCESS_PREFIX)],
    )
    alone = helper.make_model(graph, ir_version=whole.ir_version, opset_imports=whole.opset_import)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a resize of one image, in microseconds
    session = onnxruntime.InferenceSession(
        alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(pixels: NDArray[Any]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = session.run(None, {INPUT_NAME: pixels[None]})[0][0]
        return answer

    return run


def write_model(
    model: onnx.ModelProto, path: Path, *, write: Callable[[Path, bytes], None] = write_bytes
) -> None:
    """Check `model` and write it by `write`, the same bytes for the same model."""
    import onnx

    data = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(data, full_check=True)
    write(path, data)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, "train", "exporting to ONNX")


def file_metadata(classes: Sequence[str], preprocess: Preprocess, fingerprint: str) -> dict[str, str]:
    """What every file says about itself, each value as JSON."""
    return _as_json(
        {
            SCHEMA_KEY: SCHEMA,
            VERSION_KEY: __version__,
            CLASSES_KEY: list(classes),
            PREPROCESS_KEY: preprocess.as_json(),
            FINGERPRINT_KEY: fingerprint,
        }
    )


def _as_json(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in values.items()}


def _check_weight_bytes(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    needed = sum(tensor.numel() * 4 for tensor in tensors)
    if needed > MAX_WEIGHT_BYTES:
        raise ModelError(
            f"the network needs {needed / 1e9:.1f} GB of float32 weights, one ONNX file holds "
            f"{MAX_WEIGHT_BYTES / 1e9:.0f} GB",
            hint="choose a smaller backbone",
        )


# ── the network ──────────────────────────────────────────────────────────────────────────────────────


def export_network(module: torch.nn.Module, size: int, *, channels: int = 3) -> onnx.ModelProto:
    """The network alone: `pixels` float32 (batch, channels, size, size) to `logits` (batch, classes).

    Of a network that gives two tensors, the second are its `features` (batch, F).

    torch has two exporters: one traces the network (about a second), one captures its program (5 to 20);
    the second is asked where the first fails. Either is believed only once its graph has answered like
    the network itself, alone and in a batch.
    """
    import torch

    network = copy.deepcopy(module).to(device="cpu", dtype=torch.float32).eval()
    network.requires_grad_(False)
    problems = []
    for exporter in (_trace, _capture):
        try:
            model = exporter(network, size, channels)
            _check_operators(model)
            _check_network(model, network, size, channels)
        except Exception as error:  # exporters raise anything; the reason is kept for the message
            problems.append(f"{exporter.__name__.strip('_')}: {_first_words(error)}")
        else:
            return _stripped(model)
    raise ModelError(
        f"the network {type(module).__name__} cannot be exported to ONNX ({'; '.join(problems)})",
        hint="choose another backbone",
    )


def _first_words(error: Exception) -> str:
    return f"{type(error).__name__} {' '.join(str(error).split())[:120]}".strip()


def _capture(network: torch.nn.Module, size: int, channels: int) -> onnx.ModelProto:
    import torch

    example = torch.zeros(EXPORT_BATCH, channels, size, size)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=2**16)},),
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=_outputs_of(network),
            external_data=False,
            verbose=False,
        )
    assert program is not None, "torch.onnx.export with dynamo=True returns the program"
    return program.model_proto


def _trace(network: torch.nn.Module, size: int, channels: int) -> onnx.ModelProto:
    import io

    import onnx
    import torch

    file = io.BytesIO()
    with _quiet(), _ctrl_c_waits():
        torch.onnx.export(
            network,
            (torch.zeros(EXPORT_BATCH, channels, size, size),),
            file,  # type: ignore[arg-type]  # a file object is what this exporter takes
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in ("pixels", *_outputs_of(network))},
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=_outputs_of(network),
        )
    return fold_shapes(onnx.load_model_from_string(file.getvalue()), size, channels)


def _outputs_of(network: torch.nn.Module) -> list[str]:
    from saccade.models.network import WithFeatures

    return ["logits", "features"] if isinstance(network, WithFeatures) else ["logits"]


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C, however often, is answered once, at the end: in the midst of tracing torch prints its graph."""
    asked: list[int] = []
    here = threading.current_thread() is threading.main_thread()  # signals come to no other
    before = signal.getsignal(signal.SIGINT)
    if not here or before is None:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asked:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporters warn and log about their own inner workings."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_operators(model: onnx.ModelProto) -> None:
    """Raise ValueError for what `artefact` would refuse to open."""
    foreign = {node.op_type for node in model.graph.node} - OPERATORS
    if foreign:
        raise ValueError(f"it needs the operators {', '.join(sorted(foreign))}, which saccade does not open")


def _check_network(model: onnx.ModelProto, network: torch.nn.Module, size: int, channels: int) -> None:
    """Raise ValueError when a probability behind the preprocessing differs from torch's by more than 1e-4."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a failure is answered here, by the next exporter
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    for batch in CHECKED_BATCHES:
        pixels = random.standard_normal((batch, channels, size, size), dtype=np.float32)
        with torch.inference_mode():
            given = network(torch.from_numpy(pixels))
        logits, *features = given if isinstance(given, tuple) else (given,)
        expected = logits.softmax(dim=1)
        answer, *more = map(torch.from_numpy, session.run(None, {"pixels": pixels}))
        if answer.shape != expected.shape:
            raise ValueError(f"answers have shape {tuple(answer.shape)} at batch {batch}")
        difference = float((answer.softmax(dim=1) - expected).abs().max())
        if not difference <= NETWORK_TOLERANCE:  # also when it is not a number
            raise ValueError(f"probabilities differ by {difference:.2g} at batch {batch}")
        for expected, found in zip(features, more, strict=True):
            apart = float((found - expected).norm() / expected.norm().clamp(min=1e-9))
            if found.shape != expected.shape or not apart <= FEATURES_TOLERANCE:
                raise ValueError(f"features differ by {apart:.2g} at batch {batch}")


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they name source files of this machine and change nothing."""
    import onnx

    model.ClearField("metadata_props")
    for field in ("metadata_props", "doc_string", "value_info"):
        model.graph.ClearField(field)
    graph = model.graph
    for entry in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    return onnx.compose.add_prefix(model, NETWORK_PREFIX)


# ── preprocessing and answer around it ───────────────────────────────────────────────────────────────


def joined(
    network: onnx.ModelProto,
    preprocess: Preprocess,
    answer: Answer,
    classes: int,
    unfamiliar: Unfamiliar | None = None,
) -> onnx.ModelProto:
    """The whole graph: `image` (batch, height, width, C), uint8 RGB or what `preprocess.pixels` says, to
    `probabilities` (batch, classes), and of a network with features to `unfamiliar` (batch, 1) as well.

    Raises ModelError where the answer is not for so many classes.
    """
    import onnx
    from onnx import TensorProto, helper

    answer.check_classes(classes)
    before, after, beside = Part(PREPROCESS_PREFIX), Part(ANSWER_PREFIX), Part(UNFAMILIAR_PREFIX)
    add_preprocess(before, preprocess)
    _add_answer(after, answer)
    outputs = {OUTPUT_NAME: classes}
    if unfamiliar:
        _add_unfamiliar(beside, unfamiliar)
        outputs[UNFAMILIAR_NAME] = 1
    side, form = preprocess.size, preprocess.pixels
    kind = TensorProto.UINT8 if form.bits == 8 else TensorProto.UINT16
    graph = helper.make_graph(
        [*before.nodes, *_with_input(network.graph, PIXELS), *after.nodes, *beside.nodes],
        "saccade",
        [helper.make_tensor_value_info(INPUT_NAME, kind, ["batch", "height", "width", form.count])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
            for name, width in outputs.items()
        ],
        [*before.constants, *network.graph.initializer, *after.constants, *beside.constants],
        # The network's input has a fixed size, which no shape inference could find behind the resize.
        value_info=[
            helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", form.count, side, side])
        ],
    )
    return helper.make_model(
        graph,
        producer_name="saccade",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        functions=network.functions,
    )


def _with_input(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The graph's nodes, reading `name` in place of its input and writing LOGITS, and FEATURES if any."""
    written = (value.name for value in graph.output)
    rename = {graph.input[0].name: name, **dict(zip(written, (LOGITS, FEATURES), strict=False))}
    for node in graph.node:
        node.input[:] = [rename.get(value, value) for value in node.input]
        node.output[:] = [rename.get(value, value) for value in node.output]
    return list(graph.node)


def _add_answer(part: Part, answer: Answer) -> None:
    one = len(answer.temperatures) == 1
    divisor = part.constant("temperature", answer.temperatures[0] if one else answer.temperatures, np.float32)
    scaled = part.node("Div", [LOGITS, divisor], "calibrated")
    if answer.offsets:
        offsets = part.constant("offsets", answer.offsets, np.float32)
        scaled = part.node("Add", [scaled, offsets], "adjusted")
    if answer.activation == "softmax":
        part.node("Softmax", [scaled], OUTPUT_NAME, output=OUTPUT_NAME, axis=1)
    else:
        part.node("Sigmoid", [scaled], OUTPUT_NAME, output=OUTPUT_NAME)


def _add_unfamiliar(part: Part, unfamiliar: Unfamiliar) -> None:
    """`evaluation.unfamiliar.Unfamiliar.scores` of the network's features."""
    centre = part.constant("centre", unfamiliar.centre, np.float32)
    basis = part.constant("basis", unfamiliar.basis, np.float32)
    along = part.constant("along", [1])
    features = Value(part, FEATURES)
    length = part.node("ReduceL2", [features, along], keepdims=1).apply("Max", SMALLEST)
    values = features / length - centre
    inside = values.apply("MatMul", basis)
    # values - inside @ basis.T: a difference of two sums of squares would lose digits
    outside = part.node("Gemm", [inside, basis, values], alpha=-1.0, transB=1)
    rest = part.node("ReduceL2", [outside, along], keepdims=1)
    usual = part.constant("usual", unfamiliar.usual, np.float32)
    part.node("Div", [rest, usual], UNFAMILIAR_NAME, output=UNFAMILIAR_NAME)
