"""`saccade plan`: what it is told of a manifest, and figures that follow from the rates."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saccade.errors import RecipeError, SourceError
from saccade.pipeline import forecast, planning
from saccade.pipeline.forecast import Machines, Rates, stages
from saccade.pipeline.planning import plan
from saccade.sources.indexing import write_index
from saccade.sources.sampling import sampled
from saccade.terminal import Terminal

RATES = Rates(0.02, 0.004, 0.002, 0.005, 0.01, 1.0, 4.0, 5120)


@pytest.fixture
def manifest(make_photos: Callable[..., Path], tmp_path: Path) -> Path:
    write_index(str(make_photos(images=10, side=16)), tmp_path / "manifest.parquet")
    return tmp_path / "manifest.parquet"


def test_a_sample_is_even_and_the_sum_is_of_all(manifest: Path) -> None:
    sample = sampled(manifest, 10)
    chosen = ["000", "003", "006", "009", "002", "005", "008", "001", "004", "007"]  # three classes
    assert [record.path[-7:-4] for record in sample.dataset.records] == chosen
    assert sample.images == 30
    files = list(sample.dataset.root.rglob("*.png"))
    assert sample.total_bytes == sum(path.stat().st_size for path in files)
    with pytest.raises(SourceError, match="is no manifest"):
        sampled(manifest.with_suffix(".csv"), 10)


def test_where_the_time_goes() -> None:
    slow = Rates(1.0, 0.004, 0.002, 0.005, 0.01, 1.0, 4.0, 5120)  # a bucket that answers after a second
    for name, wait in (("audit", 1 / forecast.READ_AHEAD), ("predict", 1 / forecast.READ_AHEAD)):
        stage = next(stage for stage in stages(10**6, 10**11, slow, Machines(1, 10)) if stage.name == name)
        search = forecast.SEARCH_SECONDS * 10**6 * math.log2(10**6) if name == "audit" else 0.0
        assert stage.seconds - search == pytest.approx(10**5 * wait, rel=0.2)
        assert stage.requests == 10**6
        assert stage.read_bytes == 10**11
    near = replace(RATES, read=0.0)
    plain, quick = (stages(10**6, 10**11, near, Machines(1, 10, images))[2] for images in (0.0, 16000.0))
    saved = forecast.QUICK_PASSES * RATES.quick + forecast.FLOAT32_PASSES * RATES.float32
    assert plain.seconds - quick.seconds == pytest.approx(10**5 * saved)


def test_the_plan_is_printed_and_written(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "measured", lambda sample, start: RATES)
    stream = io.StringIO()
    terminal = Terminal(stream=stream)
    plan(str(manifest), terminal, machines=8, cores=32, gpu="H200", out=str(tmp_path / "plan.json"))
    said = stream.getvalue()
    assert "30 images" in said
    assert "8 machines of 32 cores" in said
    assert "(assumed)" in said
    values = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["name"] for stage in values["stages"]] == [
        "index",
        "audit",
        "train --method head",
        "predict",
    ]
    assert values["rates"]["float32"] == RATES.float32
    with pytest.raises(RecipeError, match="h200"):
        plan(str(manifest), terminal, machines=1, cores=1, gpu="abacus")
    with pytest.raises(RecipeError, match="at least one"):
        plan(str(manifest), terminal, machines=0, cores=1)


@pytest.mark.slow
def test_rates_are_measured_on_the_images_themselves(manifest: Path) -> None:
    rates = planning.measured(sampled(manifest, 10), start=1.0)
    assert rates.read > 0
    assert rates.examine > 0
    assert rates.float32 > rates.network_input > 0
    assert rates.quick > 0
    assert rates.start_training > rates.start == 1.0
    assert rates.feature_bytes == 4 * 1280
