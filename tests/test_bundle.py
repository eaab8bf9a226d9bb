"""A bundle comes back as it was saved, or is refused with words: no damaged or foreign file is ever used."""

from __future__ import annotations

import dataclasses
import json
import math
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.answer import Answer
from saccade.bundle import Bundle, load_bundle, save_bundle, tensors_to_bytes, weights_sha256
from saccade.errors import ModelError, RecipeError, SaccadeError, TrainingError
from saccade.export.onnx import write_onnx
from saccade.models import build_model
from saccade.preprocess import Preprocess
from saccade.recipe import Recipe
from saccade.runtime import Runtime


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    built = build_model("small_cnn", 3, pretrained=False, image_size=8, head="mlp", seed=4)
    with torch.no_grad():
        for value in built.module.state_dict().values():
            value.copy_(torch.rand(value.shape) + 0.1 if value.is_floating_point() else value + 3)
    return Bundle(
        module=built.module.eval(),
        classes=("cat", "d'og", "Füchse"),
        preprocess=dataclasses.replace(built.preprocess, mean=(0.1, 0.2, 0.3)),
        architecture=built.architecture,
        answer=Answer("softmax", (1.25,)),
        thresholds={"cat": 0.5},
        data_fingerprint="abc",
        training={"best": {"epoch": 3}},
    )


@pytest.fixture
def folder(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_everything_comes_back(bundle, folder):
    again = load_bundle(folder)
    assert weights_sha256(again.module) == weights_sha256(bundle.module)
    assert not again.module.training
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.module(images), bundle.module(images))
    for field in dataclasses.fields(Bundle):
        if field.name != "module":
            assert getattr(again, field.name) == getattr(bundle, field.name), field.name


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["weight", "running_mean", "running_var"])
def test_what_is_not_finite_is_never_saved(bundle, tmp_path, kind, value):
    """Neither weights nor the statistics of BatchNorm, as `--data.std 1e-30` once made them."""
    name = next(name for name in bundle.module.state_dict() if name.endswith(kind))
    tensor = bundle.module.state_dict()[name]
    before = tensor.view(-1)[0].item()
    tensor.view(-1)[0] = value
    try:
        with pytest.raises(TrainingError, match=f"NaN or infinite.*{name}"):
            save_bundle(bundle, tmp_path / "bundle")
        with pytest.raises(TrainingError, match=f"NaN or infinite.*{name}"):
            write_onnx(bundle, tmp_path / "model.onnx")
    finally:
        tensor.view(-1)[0] = before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"std": (1e-30, 1e-30, 1e-30)}, "every std must be at least 0.001"),
        ({"std": (0.2, 0.2, 0.0)}, "every std"),
        ({"std": (0.2, 0.2, -0.2)}, "every std"),
        ({"std": (0.2, 0.2, math.inf)}, "every std"),
        ({"std": (0.2, 0.2, math.nan)}, "every std"),
        ({"mean": (1e30, 0.5, 0.5)}, "every mean must lie within 1000 of 0"),
        ({"mean": (math.nan, 0.5, 0.5)}, "every mean"),
        ({"mean": (-math.inf, 0.5, 0.5)}, "every mean"),
    ],
)
def test_a_normalisation_that_ends_in_infinities_is_refused(values, words):
    with pytest.raises(ModelError, match=words):
        Preprocess(8, **values)


def test_a_recipe_with_a_tiny_std_is_refused():
    for std in ("1e-30", "0", "-1"):
        with pytest.raises(RecipeError, match=r"data\.std"):
            Recipe.from_mapping({"data": {"std": [std] * 3}}, where="flags")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "[]", "\x00"])
def test_a_model_json_that_is_none_is_refused(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_bundle(folder)


def test_only_two_files_are_written_and_the_returned_hash_is_the_files(bundle, tmp_path):
    digest = save_bundle(bundle, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text())["weights_sha256"] == digest


def test_channels_last_weights_are_saved_as_the_same_file(bundle, folder, tmp_path):
    digest = json.loads((folder / "model.json").read_text())["weights_sha256"]
    module = load_bundle(folder).module
    Runtime.create("cpu").place(module)
    assert save_bundle(dataclasses.replace(bundle, module=module), tmp_path / "again") == digest
    assert weights_sha256(module) == weights_sha256(bundle.module)


def test_one_changed_weight_changes_the_hash(folder):
    module = load_bundle(folder).module
    before = weights_sha256(module)
    next(iter(module.state_dict().values())).view(-1)[0] += 1e-6
    assert weights_sha256(module) != before


ANSWER = Answer("softmax", (1.25,), (0.5, 0.0, -0.5))


def test_what_earlier_versions_can_read_is_written_for_them(folder):
    values = json.loads((folder / "model.json").read_text())
    assert (values["schema_version"], values["temperature"]) == (1, 1.25)
    assert "answer" not in values


def test_offsets_come_back_and_are_kept_from_earlier_versions(bundle, tmp_path):
    save_bundle(dataclasses.replace(bundle, answer=ANSWER), tmp_path)
    values = json.loads((tmp_path / "model.json").read_text())
    assert values["schema_version"] == 2
    assert "temperature" not in values
    assert load_bundle(tmp_path).answer == ANSWER


def test_an_answer_for_other_classes_is_refused(bundle, tmp_path):
    save_bundle(dataclasses.replace(bundle, answer=ANSWER), tmp_path)
    changed(tmp_path, answer=dataclasses.replace(ANSWER, offsets=(0.5, 0.5)).as_json())
    with pytest.raises(ModelError, match="1 temperatures and 2 offsets do not fit 3 classes"):
        load_bundle(tmp_path)


def changed(folder, **values) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"schema_version": 3},
            r"schema version 3, this saccade .* reads 1 and 2\nhint: use the version of saccade",
        ),
        ({"surprise": 1}, r"missing or unknown keys: surprise"),
        ({"classes": ["a", "b"]}, r"2 class names for a network with 3 outputs"),
        ({"classes": ["a", "a", "b"]}, r"class names must be different"),
        ({"classes": "abc"}, r"wrong type of classes"),
        ({"temperature": 0.0}, r"temperature must be above 0"),
        ({"preprocess": {"size": 8}}, r"the stored preprocessing cannot be read"),
        ({"weights_sha256": "0" * 64}, r"is not the file that model.json describes"),
        ({"architecture": {"classes": 3}}, r"architecture.* is not valid"),
    ],
    ids=str,
)
def test_a_model_json_that_does_not_hold_is_refused(folder, values, words):
    changed(folder, **values)
    with pytest.raises(ModelError, match=words):
        load_bundle(folder)


def test_an_architecture_is_a_name_and_never_an_import_path(folder):
    architecture = json.loads((folder / "model.json").read_text())["architecture"]
    changed(folder, architecture={**architecture, "backbone": "os.system"})
    with pytest.raises(ModelError, match=r"os\.system"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} cannot be read"):
        load_bundle(folder)


def with_weights(folder, data: bytes) -> None:
    """Other weights, with a model.json that vouches for them."""
    import hashlib

    (folder / "weights.safetensors").write_bytes(data)
    changed(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def safetensors_file(header: dict | str, body: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_weights_of_another_network_are_refused_by_name_shape_and_type(folder):
    from safetensors.torch import load, save

    tensors = load((folder / "weights.safetensors").read_bytes())
    names = list(tensors)
    wrong = {**tensors, names[0]: tensors[names[0]].double(), "stranger": torch.zeros(1)}
    del wrong[names[1]]
    with_weights(folder, save(wrong))
    with pytest.raises(ModelError, match="does not fit") as caught:
        load_bundle(folder)
    for part in (f"missing {names[1]}", "unexpected stranger", f"{names[0]} is torch.float64"):
        assert part in str(caught.value)


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95pickle",
        struct.pack("<Q", 2**62) + b"{}",
        safetensors_file({"a": ENTRY}, bytes(8)),  # bytes left over
        safetensors_file({"a": {**ENTRY, "data_offsets": [4, 8]}}, bytes(8)),  # a gap
        safetensors_file(f'{{"a": {json.dumps(ENTRY)}, "a": {json.dumps(ENTRY)}}}', bytes(4)),  # twice
        safetensors_file({"a": {**ENTRY, "shape": [2]}}, bytes(4)),
        safetensors_file({"a": {**ENTRY, "dtype": "OBJ"}}, bytes(4)),
        safetensors_file("[" * 100_000, b""),
    ],
)
def test_a_file_that_is_no_sound_safetensors_is_refused(folder, data):
    with_weights(folder, data)
    with pytest.raises(ModelError, match="no sound safetensors file"):
        load_bundle(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_in_the_header_gets_past(bundle, folder, data):
    """With the hash made to match, a mutated header is refused by saccade or means the same tensors."""
    whole = tensors_to_bytes(bundle.module.state_dict())
    length = struct.unpack("<Q", whole[:8])[0]
    place = data.draw(st.integers(0, 8 + length - 1))
    with_weights(folder, whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        loaded = load_bundle(folder)
    except SaccadeError:
        return
    assert weights_sha256(loaded.module) == weights_sha256(bundle.module)
