from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from saccade.errors import ModelError
from saccade.models.options import checked_options
from saccade.models.weights import check_header, parse_metadata, read_weights, split_architecture

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def raw(header: str | dict, data: bytes = b"\0" * 8) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_a_sound_file_is_read_with_what_it_says(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(
        {"a": torch.ones(2), "b": torch.zeros(0, 3)}, path, metadata={"arch": "timm.resnet18", "mean": "0.5"}
    )
    file = read_weights(path)
    assert torch.equal(file.tensors["a"], torch.ones(2))
    assert (file.header.library, file.header.architecture) == ("timm", "resnet18")
    assert file.header.mean == (0.5, 0.5, 0.5)


BROKEN = {
    "empty": (b"", "header too small"),
    "a pickle": (b"\x80\x02}q\x00." + b"\0" * 40, "header too large"),
    "a huge header": (struct.pack("<Q", 2**40) + b"{}", "header too large"),
    "no JSON": (raw("{nonsense"), "not a sound safetensors file"),
    "not UTF-8": (struct.pack("<Q", 2) + b"\xff\xfe", "not a sound safetensors file"),
    "deep nesting": (raw("[" * 100_000), "invalid JSON in header"),
    "a list": (raw("[]"), "invalid JSON in header: invalid type: sequence"),
    "a name twice": (raw('{"a":%s,"a":%s}' % ((json.dumps(GOOD["a"]),) * 2)), "'a' stands in it twice"),
    "metadata twice": (raw('{"__metadata__":{"x":"1","x":"2"}}', b""), "'x' stands in it twice"),
    "bytes left over": (raw(GOOD, b"\0" * 9), "file not fully covered"),
    "cut short": (raw(GOOD, b"\0" * 4), "file not fully covered"),
    "a gap": (
        raw({"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}),
        "invalid offset for tensor `a`",
    ),
    "an overlap": (
        raw({**GOOD, "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        "invalid offset for tensor `b`",
    ),
    "a wrong shape": (raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}), "invalid shape"),
    "an unknown type": (
        raw({"a": {"dtype": "OBJ", "shape": [8], "data_offsets": [0, 8]}}),
        "unknown variant `OBJ`",
    ),
    "a negative size": (
        raw({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
        "integer `-2`",
    ),
    "a switch as size": (
        raw({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4),
        "boolean `true`",
    ),
    "three offsets": (
        raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}),
        "invalid length 3",
    ),
    "an extra field": (raw({"a": {**GOOD["a"], "code": "x"}}), "not described by"),
    "no description": (raw({"a": 3}), "integer `3`"),
    "a list as type": (raw({"a": {**GOOD["a"], "dtype": ["F32"]}}), "invalid type: sequence"),
    "a table as type": (raw({"a": {**GOOD["a"], "dtype": {}}}), "invalid value: map"),
    "no type": (raw({"a": {**GOOD["a"], "dtype": None}}), "invalid type: null"),
    "a list as shape's side": (raw({"a": {**GOOD["a"], "shape": [[2]]}}), "invalid type: sequence"),
    "a text as shape": (raw({"a": {**GOOD["a"], "shape": "2"}}), "invalid type: string"),
    "a fraction as side": (raw({"a": {**GOOD["a"], "shape": [2.0]}}), "floating point `2.0`"),
    "a side beyond 64 bits": (raw({"a": {**GOOD["a"], "shape": [2**64]}}), "invalid type: floating point"),
    "endless digits": (
        raw('{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % ("9" * 5000)),
        "sound",
    ),
    "countless sides": (raw({"a": {**GOOD["a"], "shape": [2**62] * 5000}}), "overflow computing buffer size"),
    "a list as metadata": (raw({"__metadata__": [], **GOOD}), "invalid type: sequence"),
    "deep metadata": (raw('{"__metadata__":' + "[" * 100_000), "invalid type: sequence"),
    "odd metadata": (raw({"__metadata__": {"x": 1}, **GOOD}), "integer `1`"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name(name, tmp_path):
    data, words = BROKEN[name]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=words) as raised:
        read_weights(path)
    assert str(path) in str(raised.value)
    assert "download it again" in raised.value.hint
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        check_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent.safetensors cannot be read \(No such file"):
        read_weights(tmp_path / "absent.safetensors")
    with pytest.raises(ModelError, match=r"is a folder\nhint: give one \.safetensors"):
        read_weights(tmp_path)


SOUND = save({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, metadata={"mean": "0.5"})


@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=0, max_size=3), st.booleans())
def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path_factory, place, put, cut):
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(SOUND[:place] + put + (b"" if cut else SOUND[place + len(put) :]))
    with contextlib.suppress(ModelError):
        read_weights(path)


def test_metadata_in_both_spellings():
    texts = {"mean": "0.5,0.4,0.3", "std": "[0.1, 0.2, 0.3]", "kwargs": "pad_type=same,drop_path_rate=0.1"}
    commas = parse_metadata({**texts, "input_size": "3,96,96", "crop_pct": "0.95"}, where="f")
    assert (commas.mean, commas.std, commas.image_size) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), 96)
    assert commas.options == {"pad_type": "same", "drop_path_rate": 0.1}
    assert commas.crop_fraction == 0.95
    as_json = parse_metadata(
        {"kwargs": '{"pad_type": "same", "class_token": false, "num_classes": 10}'}, where="f"
    )
    assert as_json.options == {"pad_type": "same", "class_token": False}
    assert parse_metadata({"format": "pt"}, where="f").mean is None
    # How many channels there are, the first convolution says.
    assert parse_metadata({"kwargs": "in_chans=4,pad_type=same"}, where="f").options == {"pad_type": "same"}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"mean": "grey"}, "mean must be numbers, got 'grey'"),
        ({"mean": "0.1,0.2"}, "one or three numbers"),
        ({"std": "nan"}, "std must be finite"),
        ({"input_size": "3,224,192"}, "must be square"),
        ({"input_size": "3,100000,100000"}, "between 1 and 4096"),
        ({"crop_pct": "0.1,0.2"}, "one number"),
        ({"kwargs": "act_layer=os.system"}, "act_layer must be one of"),
        ({"kwargs": "module=os"}, "unknown build option 'module'"),
        ({"kwargs": "in_chans=four"}, "in_chans must be a number, got 'four'"),
        ({"kwargs": "in_chans=-1"}, "in_chans must be a number, got '-1'"),
        ({"kwargs": '{"a": 1, "a": 2}'}, "'a' stands in it twice"),
        ({"kwargs": "{" * 3}, "is not valid"),
        ({"kwargs": '{"a":' * 100_000}, "nested too deeply"),
        ({"kwargs": "img_size=64"}, "set by data.image_size"),
    ],
)
def test_metadata_that_does_not_hold_is_refused(metadata, words):
    with pytest.raises(ModelError, match=words) as raised:
        parse_metadata(metadata, where="some.safetensors")
    assert "some.safetensors" in str(raised.value)


def test_names_of_architectures():
    assert split_architecture("timm.resnet18.a1_in1k") == ("timm", "resnet18.a1_in1k")
    assert split_architecture("torchvision/resnet18") == ("torchvision", "resnet18")
    assert split_architecture("resnet18") == ("", "resnet18")


def test_options_get_their_types_and_every_problem_is_told_at_once():
    good = {"bn_eps": "1e-3", "output_stride": "16", "class_token": "True", "pad_type": "same"}
    assert checked_options(good, where="x") == {
        "bn_eps": 0.001,
        "output_stride": 16,
        "class_token": True,
        "pad_type": "same",
    }
    bad = {"bn_eps": "inf", "output_stride": 1.5, "class_token": 1, "reg_tokens": True, "drop_rate": 0.1}
    with pytest.raises(ModelError) as raised:
        checked_options(bad, where="model.options")
    for words in (
        "bn_eps must be a number",
        "output_stride must be a whole number, got 1.5",
        "class_token must be a switch",
        "reg_tokens must be a whole number",
        "drop_rate is set by model.dropout",
    ):
        assert words in str(raised.value)


def test_the_real_files_pass(shared_data):
    files = sorted(Path(shared_data("weights")).glob("*.safetensors"))
    assert len(files) >= 3
    for path in files:
        check_header(path)
