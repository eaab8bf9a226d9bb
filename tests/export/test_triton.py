"""A model repository as Triton reads it: the schema is its own, the server is not there to be asked."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import tritonclient
from google.protobuf import text_format

from saccade.artefact import INPUT_NAME, OUTPUT_NAME, Artefact
from saccade.errors import ModelError
from saccade.export.triton import config_of, engines, labels_of, load_triton, model_name, write_triton

CLASSES = ("blue", "green: dark", "größer")


@pytest.fixture(scope="module")
def schema():
    """`model_config_pb2` by its path: its package imports grpc, which nothing here needs."""
    file = Path(tritonclient.__file__).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path, make_model):
    run = tmp_path / "flowers, 2nd try"
    (run / "export").mkdir(parents=True)
    model = make_model(run / "export" / "model.onnx", classes=CLASSES)
    write_triton(SimpleNamespace(classes=CLASSES), tmp_path / "triton", float_onnx=model)
    return tmp_path / "triton"


def test_the_folder_is_laid_out_as_triton_wants(repository):
    found = sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*.*"))
    assert found == [f"flowers_2nd_try/{name}" for name in ("1/model.onnx", "config.pbtxt", "labels.txt")]


def test_the_configuration_holds_by_tritons_schema_and_fits_the_model(repository, schema):
    folder = repository / "flowers_2nd_try"
    config = text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())
    session = Artefact.open(folder / "1" / "model.onnx").session
    (pixels,), (probabilities,) = config.input, config.output
    assert (config.name, config.platform) == (folder.name, "onnxruntime_onnx")
    assert not config.HasField("dynamic_batching")
    assert config.max_batch_size > 1  # with it, the first side of the model's tensors is left out of `dims`
    assert (pixels.name, pixels.data_type, list(pixels.dims)) == (INPUT_NAME, schema.TYPE_UINT8, [-1, -1, 3])
    assert [session.get_inputs()[0].shape[3], len(session.get_inputs()[0].shape)] == [3, 4]
    assert (probabilities.name, probabilities.data_type) == (OUTPUT_NAME, schema.TYPE_FP32)
    assert list(probabilities.dims) == session.get_outputs()[0].shape[1:] == [3]
    labels = (folder / probabilities.label_filename).read_text("utf-8").splitlines()
    assert tuple(labels) == CLASSES


def test_a_wrong_field_is_noticed_by_the_schema(schema):
    text = config_of("m", classes=3).replace("max_batch_size", "max_batch")
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, schema.ModelConfig())


def test_a_line_end_in_a_name_moves_no_other_label():
    assert labels_of(("a\r\nb", "c")).splitlines() == [b"a b", b"c"]


@pytest.mark.parametrize(("run", "name"), [("run5", "run5"), ("../..", "model"), ("größer", "gr_er")])
def test_a_run_gives_a_name_that_can_stand_in_an_address(run, name):
    assert model_name(run) == name


def test_the_certificate_does_not_say_that_triton_ran(repository):
    (row,), not_run = engines(repository)
    assert (row.name, not_run) == ("ONNX Runtime", {})


def test_a_repository_without_its_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds 0 models"):
        load_triton(tmp_path)
