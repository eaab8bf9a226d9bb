"""Build options that a recipe or a weights file may set: a closed list of names, types and values.

Numbers, switches and words out of these lists; never an import path, never a name that is looked up.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from saccade.errors import ModelError

Option = str | int | float | bool

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "selu", "silu", "swish", "mish", "gelu", "gelu_tanh",
               "quick_gelu", "hard_swish", "hard_sigmoid", "sigmoid", "tanh", "prelu", "celu")  # fmt: skip
POOLS = ("avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "token", "map")

# name -> float, int, bool, or the words allowed
KNOWN: dict[str, type | tuple[str, ...]] = {
    "act_layer": ACTIVATIONS,
    "attn_drop_rate": float,
    "bn_eps": float,
    "bn_momentum": float,
    "channel_divisor": int,
    "class_token": bool,
    "depth_multiplier": float,
    "drop_block_rate": float,
    "drop_path_rate": float,
    "dynamic_img_size": bool,
    "fc_norm": bool,
    "global_pool": POOLS,
    "init_values": float,
    "ls_init_value": float,
    "no_embed_class": bool,
    "output_stride": int,
    "pad_type": ("", "same"),
    "patch_drop_rate": float,
    "patch_size": int,
    "pos_drop_rate": float,
    "pre_norm": bool,
    "proj_drop_rate": float,
    "qk_norm": bool,
    "qkv_bias": bool,
    "reg_tokens": int,
    "stem_size": int,
    "stochastic_depth_prob": float,
    "transform_input": bool,
    "width_mult": float,
    "window_size": int,
}
# what other fields of the recipe say
ELSEWHERE = {
    "img_size": "data.image_size",
    "image_size": "data.image_size",
    "drop_rate": "model.dropout",
    "dropout": "model.dropout",
    "in_chans": "data.channels",
    "num_classes": "the class folders",
    "pretrained": "model.pretrained",
}


def checked_options(options: Mapping[str, Any], *, where: str) -> dict[str, Option]:
    """The options with their values as the types they must have; every problem in one ModelError."""
    checked, problems = {}, []
    for name, value in options.items():
        try:
            checked[name] = _checked(name, value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ModelError(f"{where}: {'; '.join(problems)}", hint="correct these options, or leave them out")
    return checked


def _checked(name: str, value: Any) -> Option:
    if name in ELSEWHERE:
        raise ValueError(f"{name} is set by {ELSEWHERE[name]}; leave it out here")
    if name not in KNOWN:
        close = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(KNOWN)}"
        raise ValueError(f"unknown build option {name!r}; {hint}")
    kind = KNOWN[name]
    if isinstance(kind, tuple):
        if value not in kind:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, kind))}, got {value!r}")
        return str(value)
    converted = _as_type(value, kind)
    if converted is None:
        raise ValueError(f"{name} must be a {_WORDS[kind]}, got {value!r}")
    return converted


_WORDS = {float: "number", int: "whole number", bool: "switch (true or false)"}
_SWITCHES = {"true": True, "false": False}


def _as_type(value: Any, kind: type) -> Option | None:
    """`value` as `kind` where nothing is lost by it, else None."""
    if kind is bool:
        return value if isinstance(value, bool) else _SWITCHES.get(str(value).lower())
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if kind is int:
        return int(number) if number.is_integer() else None
    return number if abs(number) < float("inf") else None
