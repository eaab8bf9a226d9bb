"""The Python of docs/python.md and docs/extending.md runs, in the order of the pages, on real files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade import extensions

DOCS = Path(__file__).parents[1] / "docs"
QUICK = 'backbone="small_cnn", image_size=16, epochs=1, batch_size=8'


@pytest.mark.examples
@pytest.mark.parametrize(("page", "blocks"), [("python", 5), ("extending", 3)])
def test_the_examples_of_a_page_run(
    page: str, blocks: int, photo_writer: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in photo_writer(tmp_path / "photos", classes=("red", "blue", "green"), images=16).rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem[-3:])}.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for group in ("augmentations", "backbones"):
        monkeypatch.setitem(extensions._registered, group, {})
    found = re.findall(
        r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    names: dict[str, object] = {}
    for block in found:
        if named := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / named[1]).write_text(block)
        else:
            exec(
                block.replace('method="head"', QUICK)
                .replace("fast_cnn", "small_cnn")
                .replace("epochs=4", "epochs=1"),
                names,
            )
    assert len(found) == blocks
    assert page != "python" or np.isfinite(np.asarray(names["scores"])).all()
    sys.modules.pop("my_networks", None)
