"""A report in a real Chromium, wide and narrow, light and dark: no error, no overflow, no injected image.

Needs a Chromium; axe-core by `npm install` in tests/pages.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.pages import AXE, looked_at, made_reports

from saccade.export.chromium import chromium_page, find_chromium

pytestmark = pytest.mark.examples


def test_names_that_try_to_break_the_page_are_shown_as_text(tmp_path: Path) -> None:
    if not find_chromium():
        pytest.skip("needs a Chromium on the PATH")
    axe = AXE.read_text("utf-8") if AXE.is_file() else ""
    ((name, file),) = made_reports(tmp_path / "runs", {"hostile"})
    with chromium_page() as page:
        seen = list(looked_at(page, name, file, tmp_path, axe))
        assert "<img src=x onerror=alert(1)>" in page.evaluate("document.body.textContent")
    assert [(view.width, view.scheme) for view in seen] == [
        (1400, "light"),
        (1400, "dark"),
        (390, "light"),
        (390, "dark"),
    ]
    assert [view.wrong for view in seen] == [[]] * 4
    assert [view.overflow for view in seen] == [0] * 4
