"""New data for a run: in whatever form their labels are, and only such as the model answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.errors import DataError, RecipeError
from saccade.pipeline.prepare import list_again
from saccade.pipeline.reevaluate import _as_answered, evaluate
from saccade.recipe import Recipe
from saccade.sources import USUAL_COLUMNS, Columns, load_source
from saccade.terminal import Terminal

SETS = {"a.png": ("cat", "dog"), "b.png": (), "c.png": ("dog",)}
FORMS = {
    "marks": ("tags", [",".join(labels) for labels in SETS.values()], Columns(label="tags", delimiter=",")),
    "columns": (
        "cat;dog",
        [";".join(str(int(name in labels)) for name in ("cat", "dog")) for labels in SETS.values()],
        Columns(one_hot="cat,dog"),
    ),
}
RECIPES = {
    "marks": Recipe.from_mapping({"data.label_column": "tags", "data.label_delimiter": ","}),
    "columns": Recipe.from_mapping({"data.label_columns": "cat,dog"}),
}


def listed(folder: Path, form: str) -> str:
    for name in SETS:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name)
    header, cells, _ = FORMS[form]
    rows = (f"{name};{cell}" for name, cell in zip(SETS, cells, strict=True))
    (folder / "new.csv").write_text("\n".join([f"path;{header}", *rows]))
    return str(folder / "new.csv")


@pytest.mark.parametrize("trained", RECIPES)
@pytest.mark.parametrize("form", FORMS)
def test_labels_of_new_data_may_have_another_form(trained: str, form: str, tmp_path: Path) -> None:
    columns = USUAL_COLUMNS if form == trained else FORMS[form][2]
    dataset = list_again(listed(tmp_path, form), RECIPES[trained], columns)
    assert {record.path: record.labels for record in dataset.records} == SETS


@pytest.mark.parametrize(
    ("columns", "words"),
    [(Columns(delimiter="ab"), "not one mark"), (Columns(delimiter=",", one_hot="a"), "give one of them")],
)
def test_forms_that_a_recipe_would_refuse_are_refused(columns: Columns, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        evaluate("no run", "new.csv", Terminal(quiet=True), columns=columns)


def test_sets_of_labels_are_no_data_for_a_model_that_names_one(tmp_path: Path) -> None:
    sets = load_source(listed(tmp_path, "columns"), columns=Columns(one_hot="cat,dog"))
    with pytest.raises(DataError, match="any number of labels, and runs/one names one an image"):
        _as_answered(sets, Recipe(), Path("runs/one"))
    assert _as_answered(sets, RECIPES["marks"], Path("runs/several")) is sets
