"""`saccade backbones`: facts that fit timm's networks, and times that are measured once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.models import pretrained
from saccade.models.backbones import backbones
from saccade.models.origin import Origin
from saccade.models.packages import package_of
from saccade.recipe import Recipe
from saccade.selection import short_list
from saccade.selection.short_list import SHORT_LIST, Known, milliseconds

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")
KEPT = {"made": "", "milliseconds": {known.name: 12.3 for known in SHORT_LIST}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    place = tmp_path / "backbone-times.json"
    place.write_text(json.dumps({**KEPT, "made": f"torch {torch.__version__}"}))
    return place


@pytest.mark.parametrize("known", SHORT_LIST, ids=[known.name for known in SHORT_LIST])
def test_the_facts_are_those_of_the_weights_that_timm_takes(known: Known) -> None:
    origin = pretrained.origin("timm", known.name)
    if not package_of("timm", known.name):  # a package of weights has no tag
        assert origin == Origin(f"timm/{known.name}.{known.tag}", known.licence)
    config = timm.get_pretrained_cfg(f"{known.name}.{known.tag}")
    assert config.license == known.licence
    assert known.pixels in (config.input_size[-1], *(config.test_input_size or ())[-1:])
    with torch.device("meta"):  # nothing is allocated
        network = timm.create_model(f"{known.name}.{known.tag}")
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters / 1e6 == pytest.approx(known.millions, abs=0.02)


def test_the_default_stands_first() -> None:
    assert SHORT_LIST[0].name == Recipe().model.backbone


def test_without_a_pattern_there_is_a_short_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "is_cached", lambda library, name: name == "mobilenetv2_100")
    assert main(["backbones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 110
    rows = {line.split()[0]: line for line in lines if line}
    assert re.search(r" in1k +4\.7 M +224 +74\.8 % +12 +apache-2\.0 +hub", rows["tf_efficientnet_lite0"])
    assert rows["tf_efficientnet_lite1"].endswith("hub, +lite")
    assert re.search(r"lvd1689m +21\.6 M +256 +- +12 +dinov3-license", rows["vit_small_patch16_dinov3"])
    assert " dist_in22k_ft_in1k " in rows["tiny_vit_11m_224"]
    assert rows["mobilenetv2_100"].endswith("  here")
    assert "saccade backbones '*'" in rows["All"]
    assert len(backbones("*")) > 1000


def test_a_time_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    real = short_list._measured

    def counted(known: Known) -> float:
        measured.append(known.name)
        return real(known)

    monkeypatch.setattr(short_list, "_measured", counted)
    small = Known("mobilenetv3_small_050", "lamb_in1k", 1.6, 32, 57.9)
    cache.write_text("no JSON")
    assert milliseconds([small])[small.name] > 0
    assert milliseconds([small]) == milliseconds([small])
    assert measured == [small.name]
    other = Known("mobilenetv2_035", "in1k", 1.6, 32, 0.0)
    assert milliseconds([small, other], seconds=-1).keys() == {small.name}, "no time is left for it"
