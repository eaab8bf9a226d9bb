"""Models made to do harm: none gets an answer out, reads another file, fills the memory or runs for ever.

A file with a known content lies in the current folder; no error and no answer may show any of it.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from saccade.artefact import Artefact
from saccade.errors import ModelError
from saccade.export.onnx import file_metadata
from saccade.onnx_file import MAX_NODES, OPERATORS
from saccade.preprocess import Preprocess

CLASSES = ("cat", "dog", "owl")
CANARY = np.array([0.2718, 0.3141, 0.4141], np.float32)
GRAY = np.full((6, 8, 3), 128, np.uint8)

Nodes = Sequence[onnx.NodeProto]
Tensors = Sequence[TensorProto]


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "canary.bin").write_bytes(CANARY.tobytes())
    monkeypatch.chdir(tmp_path)


def constant(name: str, values: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(
    nodes: Nodes,
    tensors: Tensors = (),
    *,
    image: Sequence[object] = ("batch", "height", "width", 3),
    answer: Sequence[object] = ("batch", 3),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with saccade's metadata whose nodes lead from `image` to `probabilities`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, image)],
        [helper.make_tensor_value_info("probabilities", kind, answer)],
        list(tensors),
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(made, file_metadata(CLASSES, Preprocess(8), "f" * 16))
    return made


def head(values: Sequence[float], dtype: type = np.float32) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Nodes that answer `values` for every image, whatever is on it."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["column"]),
        helper.make_node("Add", ["column", "values"], ["probabilities"]),
    ]
    tensors = [constant("axes", [1, 2, 3]), constant("last", [1]), constant("nothing", 0.0, dtype)]
    return nodes, [*tensors, constant("values", [values], dtype)]


def refused(data: bytes, words: str, images: Sequence[np.ndarray] = (GRAY,)) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        Artefact.open_bytes(data, name="evil.onnx").probabilities(images)
    assert "evil.onnx" in str(caught.value)
    assert "\n" not in caught.value.args[0] + caught.value.hint
    assert not any(f"{value:.3f}" in str(caught.value) for value in CANARY)


def test_the_frame_of_these_models_is_sound() -> None:
    nodes, tensors = head([0.2, 0.3, 0.5])
    answers = Artefact.open_bytes(model(nodes, tensors).SerializeToString(), name="good.onnx").probabilities(
        [GRAY, GRAY]
    )
    np.testing.assert_allclose(answers, [[0.2, 0.3, 0.5]] * 2, atol=1e-6)


# ── bytes that two readers read differently ──────────────────────────────────────────────────────────


def number(value: int, length: int = 0) -> bytes:
    """A protobuf number; `length` bytes of it, where it is to be longer than it need be."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    groups += [0] * (length - len(groups))
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


FORMS: dict[str, Callable[[int], bytes]] = {
    "plain": number,
    "five bytes": lambda tag: number(tag, 5),
    "ten bytes": lambda tag: number(tag, 10),
    "bits above the 32nd": lambda tag: number(tag | 1 << 32),
    "bits above the 33rd": lambda tag: number(tag | 1 << 34),
}
Form = Callable[[int], bytes]


def message(field: int, content: bytes, form: Form = number) -> bytes:
    return form(field << 3 | 2) + number(len(content)) + content


def external_tensor(form: Form) -> bytes:
    location = message(1, b"location") + message(2, b"canary.bin")
    plain = TensorProto(name="values", data_type=1, dims=[1, 3]).SerializeToString()
    return plain + message(13, location, form) + form(14 << 3) + number(1)


def base() -> onnx.ModelProto:
    nodes, tensors = head([0.2, 0.3, 0.5])
    return model(nodes, tensors)


def external_initializer(form: Form) -> bytes:
    made = base()
    del made.graph.initializer[-1]
    return made.SerializeToString() + message(7, message(5, external_tensor(form)))


def external_constant(form: Form) -> bytes:
    made = base()
    del made.graph.initializer[-1]
    attribute = message(1, b"value") + message(5, external_tensor(form)) + number(20 << 3) + number(4)
    node = message(2, b"values") + message(4, b"Constant") + message(5, attribute)
    return made.SerializeToString() + message(7, message(1, node))


def node_of_a_foreign_domain(form: Form) -> bytes:
    node = (
        message(1, b"image") + message(2, b"x") + message(4, b"Identity") + message(7, b"com.microsoft", form)
    )
    return base().SerializeToString() + message(7, message(1, node))


def foreign_opset(form: Form) -> bytes:
    return base().SerializeToString() + message(
        8, message(1, b"com.microsoft", form) + number(16) + number(1)
    )


def opset_behind_a_long_tag(form: Form) -> bytes:
    return base().SerializeToString() + message(
        8, message(1, b"com.microsoft") + number(16) + number(1), form
    )


def function(form: Form) -> bytes:
    body = helper.make_node("Relu", ["a"], ["b"])
    made = helper.make_function("local", "Evil", ["a"], ["b"], [body], [helper.make_opsetid("", 18)])
    return base().SerializeToString() + message(25, made.SerializeToString(), form)


def branch(form: Form) -> bytes:
    """An If whose branch holds the external tensor; the attribute's graph stands behind the tag."""
    inner = message(5, external_tensor(number)) + message(2, b"inner")
    attribute = message(1, b"then_branch") + message(6, inner, form) + number(20 << 3) + number(5)
    node = message(1, b"c") + message(2, b"x") + message(4, b"If") + message(5, attribute)
    return base().SerializeToString() + message(7, message(1, node))


def training(form: Form) -> bytes:
    return base().SerializeToString() + message(20, b"", form)


READ_DIFFERENTLY = {
    f"{make.__name__}, {name}": make(form)
    for make in (
        external_initializer,
        external_constant,
        node_of_a_foreign_domain,
        foreign_opset,
        opset_behind_a_long_tag,
        function,
        branch,
        training,
    )
    for name, form in FORMS.items()
}


@pytest.mark.parametrize("name", READ_DIFFERENTLY)
def test_no_spelling_of_a_tag_gets_past(name: str) -> None:
    refused(READ_DIFFERENTLY[name], "is refused: it" if name.endswith("plain") else "is not an ONNX file")


LONGER_THAN_NEED_BE = {
    "length": lambda made: made + number(7 << 3 | 2) + number(0, 4),
    "opset": lambda made: made + message(8, number(16) + number(18, 9)),
    "opset above 64 bits": lambda made: made + message(8, number(16) + number(18 | 1 << 64)),
    "group": lambda made: made + number(30 << 3 | 3) + number(30 << 3 | 4),
    "field 0": lambda made: made + number(2) + number(0),
    "number without end": lambda made: made + b"\x80" * 12,
}


@pytest.mark.parametrize("name", LONGER_THAN_NEED_BE)
def test_other_spellings_are_refused(name: str) -> None:
    refused(LONGER_THAN_NEED_BE[name](base().SerializeToString()), "is not an ONNX file")


# ── operators and tensors ────────────────────────────────────────────────────────────────────────────

FOREIGN_OPERATORS = (
    "If", "Loop", "Scan", "SequenceMap", "SequenceConstruct", "SplitToSequence", "Optional", "RandomNormal",
    "RandomUniformLike", "Bernoulli", "Multinomial", "StringNormalizer", "RegexFullMatch", "TfIdfVectorizer",
    "ImageDecoder", "Unique", "NonMaxSuppression", "NoSuchOperator", "", "relu",
)  # fmt: skip


@pytest.mark.parametrize("operator", FOREIGN_OPERATORS)
def test_operators_that_no_exported_classifier_needs_are_refused(operator: str) -> None:
    made = base()
    made.graph.node.append(helper.make_node(operator, ["image"], ["unused"]))
    refused(made.SerializeToString(), f"uses the operator '{operator}'")


def test_an_endless_loop_is_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    nodes, tensors = head([0.2, 0.3, 0.5])
    nodes[-1].output[0] = "before"
    nodes.append(helper.make_node("Loop", ["", "yes", "before"], ["probabilities"], body=body))
    refused(model(nodes, [*tensors, constant("yes", True, np.bool_)]).SerializeToString(), "operator 'Loop'")


def test_too_many_nodes_are_refused() -> None:
    made = base()
    node = helper.make_node("Relu", ["a"], ["b"])
    made.graph.node.extend([node] * MAX_NODES)
    refused(made.SerializeToString(), "more than 20,000 nodes")


def declared(*sides: int) -> onnx.ModelProto:
    made = base()
    made.graph.initializer.append(TensorProto(name="big", data_type=1, dims=sides, raw_data=b"\0" * 4))
    return made


def declared_in_a_constant() -> onnx.ModelProto:
    made = base()
    tensor = TensorProto(name="big", data_type=1, dims=[10**6, 10**6])
    made.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
    return made


def sparse() -> onnx.ModelProto:
    made = base()
    values, indices = constant("big", [1.0], np.float32), constant("", [0])
    made.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=indices, dims=[10**6, 10**6])
    )
    return made


def sparse_in_a_constant() -> onnx.ModelProto:
    made = base()
    node = helper.make_node("Constant", [], ["unused"])
    attribute = node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.CopyFrom(sparse().graph.sparse_initializer[0])
    made.graph.node.append(node)
    return made


DECLARED = {
    "a large tensor": (declared(10**5, 10**5), "more values than the file holds"),
    "a negative side": (declared(-1, 4), "more values than the file holds"),
    "a side beyond all bounds": (declared(2**62, 2**62), "more values than the file holds"),
    "many dimensions": (declared(*[1] * 100), "more values than the file holds"),
    "a large constant": (declared_in_a_constant(), "more values than the file holds"),
    "a sparse tensor": (sparse(), "holds sparse tensors"),
    "a sparse constant": (sparse_in_a_constant(), "holds sparse tensors"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_tensors_that_are_larger_than_their_file_are_refused(name: str) -> None:
    made, words = DECLARED[name]
    refused(made.SerializeToString(), words)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────


def bomb(nodes: Nodes, tensors: Tensors) -> onnx.ModelProto:
    """`big` is made by the nodes from `zero` (batch,) or from constants; its sum is added to the answer."""
    before, constants = head([0.2, 0.3, 0.5])
    before[-1].output[0] = "calm"
    after = [
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["calm", "sum"], ["probabilities"]),
    ]
    return model([*before, *nodes, *after], [*constants, *tensors])


def doubled(start: str) -> list[onnx.NodeProto]:
    names = [start, *(f"d{i}" for i in range(39)), "big"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]


HUGE = constant("huge", [300_000, 300_000])
ONE = constant("one", [1.0], np.float32)
BOMBS = {
    "Expand": bomb([helper.make_node("Expand", ["zero", "huge"], ["big"])], [HUGE]),
    "Expand of a constant": bomb([helper.make_node("Expand", ["one", "huge"], ["big"])], [HUGE, ONE]),
    "ConstantOfShape": bomb([helper.make_node("ConstantOfShape", ["huge"], ["big"])], [HUGE]),
    "Tile": bomb([helper.make_node("Tile", ["zero", "times"], ["big"])], [constant("times", [10**10])]),
    "Range": bomb(
        [
            helper.make_node("Range", ["from", "to", "step"], ["long"]),
            helper.make_node("Cast", ["long"], ["big"], to=1),
        ],
        [constant("from", 0), constant("to", 10**11), constant("step", 1)],
    ),
    "Pad": bomb([helper.make_node("Pad", ["zero", "around"], ["big"])], [constant("around", [0, 10**11])]),
    "Concat, again and again": bomb(doubled("zero"), []),
    "Concat of constants, again and again": bomb(doubled("one"), [ONE]),
    "sizes that are worked out": bomb(
        [
            helper.make_node("Mul", ["huge", "huge"], ["huger"]),
            helper.make_node("Expand", ["zero", "huger"], ["big"]),
        ],
        [HUGE],
    ),
    "an outer product": bomb(
        [
            helper.make_node("Expand", ["zero", "long"], ["row"]),
            helper.make_node("Unsqueeze", ["row", "last"], ["upright"]),
            helper.make_node("Add", ["row", "upright"], ["big"]),
        ],
        [constant("long", [10**6])],
    ),
}


FITS_ONE_BY_ONE = bomb(  # 40 MB an image, all of it zero
    [
        helper.make_node("Unsqueeze", ["zero", "last"], ["columns"]),
        helper.make_node("Expand", ["columns", "wide"], ["big"]),
    ],
    [constant("wide", [1, 10**7])],
)
LIMIT = 150_000_000
SET_OFF = f"""
import resource, sys
import numpy as np
from saccade import artefact
from saccade.errors import ModelError

artefact.memory_limit = lambda: {LIMIT}  # so that nobody has to wait until gigabytes are full
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        images = [np.zeros((6, 8, 3), np.uint8)] * (8 if name.endswith("fits.onnx") else 1)
        artefact.Artefact.open(name).probabilities(images)
    except ModelError as error:
        print(error.args[0])
    else:
        print(name, "answered")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.fixture(scope="module")
def set_off(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process says in which one bomb after the other is opened; its last line is how much it grew."""
    folder = tmp_path_factory.mktemp("bombs")
    for number, made in enumerate(BOMBS.values()):
        (folder / f"{number}.onnx").write_bytes(made.SerializeToString())
    (folder / "fits.onnx").write_bytes(FITS_ONE_BY_ONE.SerializeToString())
    files = [str(folder / f"{number}.onnx") for number in range(len(BOMBS))]
    files.append(str(folder / "fits.onnx"))
    command = [sys.executable, "-c", SET_OFF, *files]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_batch_that_does_not_fit_is_answered_in_parts(set_off: list[str]) -> None:
    assert set_off[-2].endswith("fits.onnx answered")


@pytest.mark.parametrize("name", BOMBS)
def test_a_memory_bomb_gives_no_answer(name: str, set_off: list[str]) -> None:
    assert len(set_off) == len(BOMBS) + 2
    assert "cannot predict 1 images of 8 x 6 pixels" in set_off[list(BOMBS).index(name)]


def test_memory_bombs_stay_within_the_limit(set_off: list[str]) -> None:
    assert sum("it needs more than the 0.1 GB a model may use here" in line for line in set_off) >= 8
    assert int(set_off[-1]) < LIMIT + 100_000_000


# ── answers that are none ────────────────────────────────────────────────────────────────────────────

NO_PROBABILITIES = {
    "NaN": ([np.nan, 0.5, 0.5], "NaN or infinite"),
    "infinite": ([np.inf, 0, 0], "NaN or infinite"),
    "6914 %": ([69.14, 0, 0], "values from 0 to 69.1"),
    "above 1 with sum 1": ([1.5, -0.5, 0], "values from -0.5 to 1.5"),
    "just below 0": ([-0.0004, 0.5004, 0.5], "values from -0.0004"),
    "sum 0.5": ([0.2, 0.2, 0.1], "sums to 0.5"),
    "sum 1.5": ([0.5, 0.5, 0.5], "sums to 1.5"),
    "all zero": ([0, 0, 0], "sums to 0"),
    "scores": ([0.9, 0.8, 0.7], "sums to 2.4"),
}


@pytest.mark.parametrize("name", NO_PROBABILITIES)
def test_an_answer_that_cannot_be_probabilities_is_refused(name: str) -> None:
    values, words = NO_PROBABILITIES[name]
    nodes, tensors = head(values)
    refused(model(nodes, tensors).SerializeToString(), f"does not give probabilities: .*{words}")


def reshaped(shape: Sequence[int], answer: Sequence[object], images: int = 2) -> onnx.ModelProto:
    """The answers of all images in another shape."""
    nodes, tensors = head([0.2, 0.3, 0.5])
    nodes[-1].output[0] = "calm"
    return model(
        [*nodes, helper.make_node("Reshape", ["calm", "shape"], ["probabilities"])],
        [*tensors, constant("shape", shape)],
        answer=answer,
    )


def one_row_for_all() -> onnx.ModelProto:
    nodes, tensors = head([0.2, 0.3, 0.5])
    nodes[-1].output[0] = "calm"
    slices = [constant("start", [0]), constant("end", [1]), constant("axis", [0])]
    cut = helper.make_node("Slice", ["calm", "start", "end", "axis"], ["probabilities"])
    return model([*nodes, cut], [*tensors, *slices], answer=["rows", 3])


def a_row_too_many() -> onnx.ModelProto:
    nodes, tensors = head([0.2, 0.3, 0.5])
    nodes[-1].output[0] = "calm"
    twice = helper.make_node("Concat", ["calm", "calm"], ["probabilities"], axis=0)
    return model([*nodes, twice], tensors, answer=["rows", 3])


def fixed(image: Sequence[object], answer: Sequence[object] = ("batch", 3)) -> onnx.ModelProto:
    nodes, tensors = head([0.2, 0.3, 0.5])
    return model(nodes, tensors, image=image, answer=answer)


def other_type() -> onnx.ModelProto:
    nodes, tensors = head([0.2, 0.3, 0.5], np.float64)
    return model(nodes, tensors, kind=TensorProto.DOUBLE)


WRONG_SHAPE = {
    "one row for all": (one_row_for_all(), r"an array of \(1, 3\) where \(2, 3\) was due"),
    "two rows for each": (a_row_too_many(), r"an array of \(4, 3\) where \(2, 3\) was due"),
    "another number of dimensions": (reshaped([-1, 1, 3], ["batch", 1, 3]), "gives no probabilities but"),
    "a single list": (reshaped([-1], ["all"]), "gives no probabilities but"),
    "batches of four": (fixed([4, "height", "width", 3]), "one size"),
    "batches of one": (fixed([1, "height", "width", 3], [1, 3]), "one size"),
    "one size of image": (fixed(["batch", 6, 8, 3]), "one size"),
    "one row declared": (fixed(["batch", "height", "width", 3], [1, 3]), "one size"),
    "double numbers": (other_type(), "does not take one uint8 'image'"),
    "images with alpha": (
        fixed(["batch", "height", "width", 4]),
        "takes 4 channels where its metadata says RGB of 8",
    ),
}


@pytest.mark.parametrize("name", WRONG_SHAPE)
def test_an_answer_of_another_shape_is_refused(name: str) -> None:
    made, words = WRONG_SHAPE[name]
    refused(made.SerializeToString(), words, [GRAY, GRAY])


def test_minus_zero_is_zero_and_rounding_stays_within_1() -> None:
    nodes, tensors = head([-0.0, 1 + 2**-23, 0.0])
    answers = Artefact.open_bytes(model(nodes, tensors).SerializeToString(), name="m").probabilities([GRAY])
    assert answers.max() == 1
    assert not np.signbit(answers).any()


def test_the_list_of_operators_has_no_branch_text_or_chance() -> None:
    assert len(OPERATORS) > 130
    schemas = {schema.name: schema for schema in onnx.defs.get_all_schemas() if not schema.domain}
    for name in OPERATORS & schemas.keys():
        kinds = {attribute.type for attribute in schemas[name].attributes.values()}
        assert not {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS} & kinds, name
        assert name == "Dropout" or "seed" not in schemas[name].attributes, name
