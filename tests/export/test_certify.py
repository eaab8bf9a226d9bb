"""The certificate: what passes, what fails, and what it names; judged without torch."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from saccade.artefact import Artefact
from saccade.errors import ImageError, ModelError
from saccade.evaluation.unfamiliar import Unfamiliar
from saccade.export.certify import certify, chosen_images
from saccade.export.formats import load_onnx
from saccade.export.runtimes import NODE_VARIABLE, Runtime, Runtimes
from saccade.records import Predictions

MakeModel = Callable[..., Path]
COLOURS = {"red": (200, 60, 40), "green": (60, 180, 90), "blue": (40, 70, 190)}


def photo(label: str, seed: int) -> bytes:
    """A JPEG of noise around the class's colour; sizes vary."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(9, 40, 2)
    pixels = rng.normal(COLOURS[label], 40, (height, width, 3)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


class Case:
    """A model file, images in memory, and what the trained model said about them (here: the file itself)."""

    def __init__(self, model: Path, per_class: int = 5) -> None:
        self.model = model
        self.files: dict[str, bytes] = {}
        artefact = Artefact.open(model)
        self.predictions: dict[str, Predictions] = {}
        for part in ("validation", "test"):
            names = [(f"{part}/{label}/{i}.jpg", label) for label in COLOURS for i in range(per_class)]
            self.files |= {name: photo(label, seed) for seed, (name, label) in enumerate(names)}
            pixels = [np.asarray(Image.open(io.BytesIO(self.files[name]))) for name, _ in names]
            self.predictions[part] = Predictions(
                paths=tuple(name for name, _ in names),
                labels=tuple(label for _, label in names),
                classes=artefact.classes,
                probabilities=artefact.probabilities(pixels),
            )

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise ImageError("cannot be read", "Check the disk.")
        return self.files[path]

    def shift(self, part: str, row: int, amount: float) -> None:
        """Make the trained model have said something else about one image."""
        probabilities = self.predictions[part].probabilities.copy()
        top = probabilities[row].argmax()
        probabilities[row, top] -= amount
        probabilities[row, (top + 1) % 3] += amount
        self.predictions[part] = replace(self.predictions[part], probabilities=probabilities)


@pytest.fixture
def case(make_model: MakeModel, tmp_path: Path) -> Case:
    return Case(make_model(tmp_path / "model.onnx", temperature=0.5))


def test_a_faithful_file_passes(case: Case) -> None:
    certificate = certify(case.model, case.predictions, case.read)
    assert certificate.passed
    assert (certificate.kind, certificate.images, certificate.top1_agreement) == ("float", 30, 1.0)
    assert certificate.max_probability_difference < 1e-6
    assert certificate.accuracy_change == 0
    assert certificate.tolerance == 1e-3
    assert certificate.extra["sha256"] == Artefact.open(case.model).sha256
    assert certificate.extra["validation_accuracy_before"] == certificate.extra["validation_accuracy_after"]


@pytest.mark.parametrize(("amount", "passes"), [(5e-4, True), (2e-3, False)])
def test_one_different_probability_decides(case: Case, amount: float, passes: bool) -> None:
    case.shift("test", 4, amount)
    certificate = certify(case.model, case.predictions, case.read)
    assert certificate.passed is passes
    assert certificate.max_probability_difference == pytest.approx(amount, rel=1e-2)
    assert certificate.extra["worst_image"] == case.predictions["test"].paths[4]


@pytest.mark.parametrize(("lead", "passes"), [(8e-4, True), (1.6e-3, False)])
def test_a_changed_first_class_must_be_a_tie(case: Case, lead: float, passes: bool) -> None:
    """The file says A by a hair, the trained model said B by `lead`; no probability differs by 1e-3."""
    answer = case.predictions["test"].probabilities.copy()
    answer[0] = [0.4 + 1e-5, 0.4, 0.2 - 1e-5]
    said = answer.copy()
    said[0] = [0.4 - lead / 2, 0.4 + lead / 2, 0.2]
    from saccade.export.certify import Compared, judge

    predictions = replace(case.predictions["test"], probabilities=said)
    compared = Compared("test", predictions, np.arange(len(predictions)), answer)
    certificate = judge([compared], kind="float", tolerance=1e-3, max_drop=0.01, sha256="")
    assert certificate.max_probability_difference < 1e-3
    assert certificate.top1_agreement == pytest.approx(1 - 1 / 15)
    assert certificate.passed is passes


def test_answers_that_are_no_numbers_fail(case: Case) -> None:
    from saccade.export.certify import Compared, judge

    predictions = case.predictions["test"]
    answers = predictions.probabilities.copy()
    answers[3] = np.nan
    certificate = judge(
        [Compared("test", predictions, np.arange(15), answers)],
        kind="float",
        tolerance=1e-3,
        max_drop=0,
        sha256="",
    )
    assert not certificate.passed
    assert certificate.max_probability_difference == 1.0


def test_a_file_passes_where_it_passes_in_every_runtime(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leaves a part of the graph out answers otherwise; the first one's figures stay on top."""
    from saccade.export import certify as module
    from saccade.export.runtimes import Runtime, runtimes

    def with_another(artefact: Artefact, path: Path) -> tuple[list[Runtime], dict[str, str]]:
        found, _ = runtimes(artefact, path)
        wrong = Runtime("Careless", "1.0", lambda images: artefact.probabilities(images)[:, ::-1])
        return [found[0], wrong], {"Refusing": "does not know Abs"}

    monkeypatch.setattr(module, "runtimes", with_another)
    certificate = certify(case.model, case.predictions, case.read)
    first, second = certificate.extra["runtimes"]
    assert (first["runtime"], first["passed"], first["top1_agreement"]) == ("ONNX Runtime", True, 1.0)
    assert (second["runtime"], second["version"], second["passed"]) == ("Careless", "1.0", False)
    assert second["top1_agreement"] < 0.5 < second["max_probability_difference"]
    assert certificate.max_probability_difference == first["max_probability_difference"] < 1e-6
    assert not certificate.passed
    assert [problem[:30] for problem in certificate.extra["problems"]] == [
        "in Careless: a probability dif", "in Careless: the first class c",
    ]  # fmt: skip
    assert certificate.extra["runtimes_not_run"] == {"Refusing": "does not know Abs"}


FAMILIAR = Unfamiliar(np.full(3, -0.5), np.eye(3)[:, :1], 0.5, 30, 30)


def test_another_runtime_must_find_images_as_unfamiliar(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(make_model(tmp_path / "model.onnx", temperature=0.5, unfamiliar=FAMILIAR))
    from saccade.export import certify as module

    own = module.runtimes
    factor = 1.0

    def with_another(artefact: Artefact, path: Path) -> Runtimes:
        (first, *_), _ = own(artefact, path)
        scores = first.unfamiliarity
        assert scores is not None
        return [first, replace(first, name="Other", unfamiliarity=lambda images: factor * scores(images))], {}

    monkeypatch.setattr(module, "runtimes", with_another)
    monkeypatch.setattr(module, "CHUNK_IMAGES", 2)
    for predictions in case.predictions.values():
        for path in predictions.paths[:2]:  # the first chunk tells nothing
            del case.files[path]
    for factor, passes in ((1.0001, True), (1.01, False)):  # with_another reads it
        certificate = certify(case.model, case.predictions, case.read)
        first, second = certificate.extra["runtimes"]
        assert (certificate.passed, first["passed"], second["passed"]) == (passes, True, passes)
        assert first["unfamiliarity_difference"] is None
        assert second["unfamiliarity_difference"] == pytest.approx(factor - 1, rel=1e-3)
    assert certificate.extra["problems"] == [
        "in Other: the unfamiliarity of an image differs by 0.01 of it, allowed 0.001"
    ]


def test_openvino_finds_images_as_unfamiliar(make_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    case = Case(make_model(tmp_path / "model.onnx", temperature=0.5, unfamiliar=FAMILIAR))
    certificate = certify(case.model, case.predictions, case.read)
    first, second = certificate.extra["runtimes"]
    assert (second["runtime"], certificate.passed) == ("OpenVINO", True)
    assert first["unfamiliarity_difference"] is None
    assert 0 <= second["unfamiliarity_difference"] < 1e-4


def test_openvino_has_a_row_of_its_own(case: Case) -> None:
    pytest.importorskip("openvino")
    certificate = certify(case.model, case.predictions, case.read)
    assert [row["runtime"] for row in certificate.extra["runtimes"]] == ["ONNX Runtime", "OpenVINO"]
    for row in certificate.extra["runtimes"]:
        assert row["passed"]
        assert row["images"] == 30
        assert row["top1_agreement"] == 1.0
        assert row["max_probability_difference"] < 1e-5
        assert row["version"][0].isdigit()


def test_a_resize_that_openvino_reads_in_part_fails(case: Case) -> None:
    """What was exported before: a Resize whose `antialias` OpenVINO leaves out without a word."""
    pytest.importorskip("openvino")
    model = onnx.load(case.model)
    last = next(node for node in model.graph.node if node.name == "preprocess/pixels")
    helper = onnx.helper
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=1),
        helper.make_node("Shape", ["image"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "square"], ["sizes"], axis=0),
        helper.make_node("Resize", ["floats", "", "", "sizes"], ["old"], antialias=1, mode="linear"),
        helper.make_node("Mul", ["old", "preprocess/scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "preprocess/shift"], list(last.output), name="preprocess/pixels"),
    ]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([3, 8, 8]), "square"))
    kept = [*nodes, *(node for node in model.graph.node if not node.name.startswith("preprocess/"))]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    case.model.write_bytes(model.SerializeToString())
    certificate = certify(case.model, case.predictions, case.read)
    assert [row["passed"] for row in certificate.extra["runtimes"]] == [True, False]
    assert not certificate.passed
    assert certificate.extra["problems"][0].startswith("in OpenVINO: a probability differs by")


def test_its_progress_counts_every_image_once(case: Case) -> None:
    told: list[tuple[int, int]] = []
    certify(
        case.model, case.predictions, case.read, progress=lambda done, total, _="": told.append((done, total))
    )
    total = sum(len(part.paths) for part in case.predictions.values())
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_int8_needs_validation_images(case: Case) -> None:
    with pytest.raises(ModelError, match="no labelled validation images"):
        certify(case.model, {"test": case.predictions["test"]}, case.read, kind="int8")


def test_classes_are_matched_by_name(case: Case) -> None:
    for part, predictions in case.predictions.items():
        order = [2, 0, 1]
        case.predictions[part] = replace(
            predictions,
            classes=tuple(predictions.classes[i] for i in order),
            probabilities=predictions.probabilities[:, order],
        )
    assert certify(case.model, case.predictions, case.read).passed


def test_other_classes_are_refused(case: Case) -> None:
    predictions = case.predictions["test"]
    renamed = replace(predictions, classes=("blue", "green", "rot"))
    with pytest.raises(ModelError, match=r"do not name the same classes.*red, rot"):
        certify(case.model, {"test": renamed}, case.read)


def test_an_image_that_changed_since_fails_and_is_named(case: Case) -> None:
    name = case.predictions["validation"].paths[0]
    case.files[name] = photo("blue", 99)
    certificate = certify(case.model, case.predictions, case.read)
    assert not certificate.passed
    assert certificate.extra["worst_image"] == name


def test_unreadable_images_are_named_and_left_out(case: Case) -> None:
    gone, cut = case.predictions["test"].paths[:2]
    del case.files[gone]
    case.files[cut] = case.files[cut][:200]
    certificate = certify(case.model, case.predictions, case.read)
    assert certificate.passed
    assert certificate.images == 28
    assert [entry.split(":")[0] for entry in certificate.extra["unreadable"]] == [gone, cut]


def test_nothing_to_compare_is_an_error(case: Case) -> None:
    case.files.clear()
    with pytest.raises(ModelError, match="cannot be certified"):
        certify(case.model, case.predictions, case.read)
    with pytest.raises(ModelError, match="cannot be certified"):
        certify(case.model, {}, case.read)


def test_images_are_chosen_evenly_up_to_the_limit(case: Case) -> None:
    def rows(count: int) -> Predictions:
        names = tuple(f"{i:04d}.jpg" for i in range(count))
        return Predictions(names, ("red",) * count, ("red",), np.ones((count, 1)))

    given = {"validation": rows(300), "test": rows(100)}
    both = chosen_images(given, max_images=40, kind="float")
    assert (len(both["validation"]), len(both["test"])) == (30, 10)
    assert np.diff(both["validation"]).tolist() == [10] * 29
    int8 = chosen_images(given, max_images=310, kind="int8")
    assert (len(int8["validation"]), len(int8["test"])) == (300, 10)
    every = chosen_images(given, max_images=1000, kind="float")
    assert (len(every["validation"]), len(every["test"])) == (300, 100)
    assert certify(case.model, case.predictions, case.read, max_images=7).images == 7


def test_images_that_influence_each_other_fail(case: Case) -> None:
    """A file that subtracts the mean of the batch answers an image alone as it should, and fails."""
    model = onnx.load(case.model)
    nodes = [
        onnx.helper.make_node("ReduceMean", ["network/logits", "first"], ["mean"], keepdims=1),
        onnx.helper.make_node("Sub", ["network/logits", "mean"], ["off"]),
        onnx.helper.make_node("Mul", ["off", "share"], ["little"]),
        onnx.helper.make_node("Add", ["network/logits", "little"], ["mixed"]),
    ]
    position = next(i for i, node in enumerate(model.graph.node) if "network/logits" in node.input)
    model.graph.node[position].input[0] = "mixed"
    for offset, node in enumerate(nodes):
        model.graph.node.insert(position + offset, node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.2), "share"))
    case.model.write_bytes(model.SerializeToString())
    certificate = certify(case.model, case.predictions, case.read)
    assert certificate.extra["batch_difference"] > 1e-3
    assert not certificate.passed


def test_a_certificate_can_be_made_again_beside_a_stale_one(case: Case, make_model: MakeModel) -> None:
    (case.model.parent / "certificate.json").write_text('{"extra": {"sha256": "0"}}')
    assert certify(case.model, case.predictions, case.read).passed


def test_certifying_imports_no_torch() -> None:
    code = (
        "import sys, saccade.export.certify;"
        "heavy = {'torch', 'onnx', 'timm', 'sklearn', 'pyarrow'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- engines that decode by themselves --------------------------------------------------------------------


def _reading(
    model: Path, refused: int, seen: list[bytes], *, most_images: int = 0
) -> Callable[[Path], Runtimes]:
    """ONNX Runtime, and an engine that is given files, of which it does not read the first so many."""

    def answer(contents: Sequence[bytes]) -> np.ndarray:
        first = len(seen)
        seen.extend(contents)
        pixels = [np.asarray(Image.open(io.BytesIO(content))) for content in contents]
        answers = Artefact.open(model).probabilities(pixels)
        answers[: max(0, refused - first)] = np.nan
        return answers

    engine = Runtime("page", "1", answer, reads_files=True, most_images=most_images)
    return lambda path: ([Runtime("ONNX Runtime", "", Artefact.open(path).probabilities), engine], {})


def test_an_engine_that_decodes_itself_gets_the_files_and_may_refuse_some(case: Case) -> None:
    seen: list[bytes] = []
    engines = _reading(case.model, 2, seen)
    certificate = certify(case.model, case.predictions, case.read, load=load_onnx, engines=engines)
    assert certificate.passed
    assert seen == list(case.files.values())
    rows = certificate.extra["runtimes"]
    assert [(row["runtime"], row["images"]) for row in rows] == [("ONNX Runtime", 30), ("page", 28)]
    assert rows[1]["max_probability_difference"] < 1e-6


def test_an_engine_that_decodes_itself_is_asked_for_a_part_spread_over_all(case: Case) -> None:
    seen: list[bytes] = []
    engines = _reading(case.model, 0, seen, most_images=10)
    certificate = certify(case.model, case.predictions, case.read, load=load_onnx, engines=engines)
    assert certificate.extra["runtimes"][1]["images"] == 10
    assert seen == [
        content for part in (0, 15) for content in list(case.files.values())[part : part + 15 : 3]
    ]


def test_an_engine_that_reads_nothing_is_listed_as_not_run(case: Case) -> None:
    engines = _reading(case.model, 99, [])
    certificate = certify(case.model, case.predictions, case.read, load=load_onnx, engines=engines)
    assert certificate.passed
    assert len(certificate.extra["runtimes"]) == 1
    assert certificate.extra["runtimes_not_run"] == {"page": "it read none of the images"}


def test_an_execution_provider_that_answers_otherwise_is_refused_by_name(
    case: Case, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that knows no antialiasing would: here a real session of another graph stands for it."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    with pytest.raises(ModelError, match=r"has no execution provider CUDAish; it has .*CPUExecutionProvider"):
        certify(case.model, case.predictions, case.read, provider="CUDAish")
    same = certify(case.model, case.predictions, case.read, provider="CPUExecutionProvider")
    assert same.extra["runtimes"][-1]["runtime"] == "ONNX Runtime with CPUExecutionProvider"
    assert same.passed
    other = make_model(tmp_path / "other.onnx", temperature=0.9).read_bytes()
    session = onnxruntime.InferenceSession(other, providers=["CPUExecutionProvider"])
    real = onnxruntime.InferenceSession

    def start(data: bytes, options: object, *, providers: Sequence[str], **more: object) -> object:
        return real(data, options, providers=providers, **more) if more else session

    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    certificate = certify(case.model, case.predictions, case.read, provider=providers[-1])
    assert not certificate.passed
    (problem,) = certificate.extra["problems"]
    assert problem.startswith(f"in ONNX Runtime with {providers[-1]}: a probability differs by")


NODE_MODULES = Path(__file__).parents[2] / "examples" / "node" / "node_modules"


def test_node_without_its_package_is_listed_as_not_run(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE_VARIABLE, str(tmp_path))
    certificate = certify(case.model, case.predictions, case.read)
    assert certificate.passed
    assert "holds no onnxruntime-node" in certificate.extra["runtimes_not_run"]["ONNX Runtime in Node"]


@pytest.mark.examples
def test_onnx_runtime_in_node_gives_the_same_bits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("node") or not (NODE_MODULES / "onnxruntime-node").is_dir():
        pytest.skip("needs node, and `npm install` in examples/node")
    monkeypatch.setenv(NODE_VARIABLE, str(NODE_MODULES))
    certificate = certify(case.model, case.predictions, case.read)
    rows = {row["runtime"]: row for row in certificate.extra["runtimes"]}
    assert rows["ONNX Runtime in Node"]["images"] == 30
    assert (
        rows["ONNX Runtime in Node"]["max_probability_difference"]
        == rows["ONNX Runtime"]["max_probability_difference"]
    )
