"""What a run is accompanied by where it goes: its model card, and its bill of materials."""

from __future__ import annotations

from saccade.report.bom import bill_of_materials
from saccade.report.facts import read_facts
from saccade.report.model_card import model_card
from saccade.run_folder import RunFolder, json_bytes


def write_documents(run: RunFolder, *, with_annex_iv: bool = False) -> None:
    """Write `report/model_card.md` and `report/bom.json` from the files of the run alone."""
    facts = read_facts(run)
    run.write(run.model_card, model_card(facts, with_annex_iv=with_annex_iv).encode())
    run.write(run.bill_of_materials, json_bytes(bill_of_materials(facts)))
