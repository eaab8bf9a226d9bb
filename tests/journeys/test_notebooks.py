"""The notebooks of examples/ run from the first cell to the last; what is stored of them can be shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|usr|opt|Users|private|var)/|[A-Z]:\\\\")
MOST_BYTES = 300_000


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text("utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_are_there() -> None:
    assert [path.name for path in NOTEBOOKS] == ["first_steps.ipynb", "scikit_learn.ipynb"]


def _runs_again_with_another_setting(client: Any, folder: Path) -> None:
    """What everybody does next: a number is changed and the cells are run again."""
    cell = next(
        cell for cell in client.nb.cells if "image_size=96" in cell["source"] and cell["cell_type"] == "code"
    )
    cell["source"] = cell["source"].replace("image_size=96", "image_size=64")
    client.execute()
    assert {path.name for path in (folder / "runs").iterdir()} >= {"digits", "digits-2"}
    assert "holds a run of other images or settings, so this one is in" in str(cell["outputs"])


@pytest.mark.examples
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="executes notebooks: pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="is the kernel: pip install ipykernel")
    pytest.importorskip("pandas", reason="the notebooks make tables")
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path / "cache"))
    content = nbformat.read(notebook, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(content, timeout=600, resources=folder).execute()
    shown = [cell["outputs"] for cell in content["cells"] if cell["cell_type"] == "code"]
    stored = [cell["outputs"] for cell in code_cells(notebook)]
    kinds = [[[output["output_type"] for output in cell] for cell in cells] for cells in (shown, stored)]
    assert kinds[0] == kinds[1], "stored outputs are those of these cells: make notebooks"
    if notebook.stem == "first_steps":
        _runs_again_with_another_setting(
            nbclient.NotebookClient(content, timeout=600, resources=folder), tmp_path
        )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_small_and_of_no_machine(notebook: Path) -> None:
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    kinds = {output.get("name", output["output_type"]) for cell in cells for output in cell["outputs"]}
    assert kinds.isdisjoint({"error", "stderr"})
    assert MACHINE_PATH.search(notebook.read_text("utf-8")) is None
    assert notebook.stat().st_size < MOST_BYTES
