"""A network of the current folder that is named lets in nothing else that lies there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saccade import extensions
from saccade.pipeline.ahead import may_be_refused
from saccade.recipe import Recipe


def test_naming_a_function_of_this_folder_runs_no_callback_that_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "acme.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[saccade.callbacks]\nacme = networks_here:watch\n")
    (tmp_path / "networks_here.py").write_text("def build(classes): ...\ndef watch(): raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.setattr(extensions, "_named_by_user", set())
    extensions._points.cache_clear()
    try:
        extensions.allow_function("networks_here:build")
        assert callable(extensions.named_function("networks_here:build"))
        assert "acme" not in extensions.names("callbacks")
    finally:
        extensions._points.cache_clear()
        sys.modules.pop("networks_here", None)


def test_a_method_that_does_not_go_with_the_backbone_is_known_before_images_are_read() -> None:
    own, head = {"model.backbone": "small_cnn"}, {"train.method": "head"}
    assert may_be_refused(Recipe.from_mapping({**own, **head}))
    assert not may_be_refused(Recipe.from_mapping(own))
    assert not may_be_refused(Recipe.from_mapping(head))
