"""What a run folder holds, read once; whatever is missing is None or empty, and its section is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import metrics_from_json
from saccade.evaluation.remedies import Evidence, leaks_in_words
from saccade.evaluation.shortcut_use import ShortcutUse, shortcut_use
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import EpochRow, Finding, ImageRecord, Metrics, Predictions
from saccade.run_folder import RunFolder
from saccade.run_record import USUAL_SIDE, RunRecord

JUDGED_FIRST = ("test", "validation", "folds")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """A run as the report sees it. `metrics` are by part; `predictions` are those of the judged part.

    `folds` is what `metrics/folds.json` holds besides, of a cross-validation; `search` what a search found
    that this run came from. `about` is what an evaluation of other images says of itself, empty for a run;
    recipe and model are then those of its run. `insights` are what each analysis of a full report found, by
    its name. `sizes` are bytes of exported files that are there, by name.
    """

    name: str
    recipe: Recipe | None = None
    recipe_text: str = ""
    record: RunRecord = field(default_factory=RunRecord)
    model: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[EpochRow, ...] = ()
    dataset: tuple[ImageRecord, ...] = ()
    metrics: Mapping[str, Metrics] = field(default_factory=dict)
    predictions: Predictions | None = None
    folds: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    audit_page: bool = False
    insights: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """The part that the result is told of: test, else validation, else what there is; "" for none."""
        return judged_part(self.metrics)

    @property
    def figures(self) -> Metrics | None:
        return self.metrics.get(self.part)

    @property
    def images_word(self) -> str:
        """What stands before "images": the part; "held-out" for folds; "new" for data without parts."""
        if self.part == "folds":
            return "held-out"
        return "new" if self.about.get("data") and set(self.metrics) == {"test"} else self.part

    @property
    def backbone(self) -> str:
        """What was trained: the recipe's backbone, or the one that "auto" became; "" where unknown."""
        if self.about or self.recipe is None:
            return str(self.about.get("backbone", ""))
        return trained_backbone(self.recipe, self.record)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The diagnosis: as the run wrote it down, else read from curves and figures now."""
        stored = self.record.diagnosis
        if stored is not None:
            return tuple(_finding(values) for values in stored)
        return diagnose(self.evidence()) if self.history or self.metrics else ()

    @property
    def limits(self) -> tuple[Finding, ...]:
        """The findings that limit the use of the model: without "fine", but with the leaks that it names."""
        found = self.findings
        fine = any(finding.kind == "fine" for finding in found)
        leaks = leaks_in_words(self.leaks, self.recipe or Recipe()) if fine else ""
        flattered = [Finding("leaks", "warning", leaks, "")] if leaks else []
        return (*flattered, *(finding for finding in found if finding.kind != "fine"))

    @property
    def leaks(self) -> int:
        """Pairs and groups that stand in two parts."""
        split = self.record.split
        return len(split.get("crossing", ())) + len(split.get("crossing_groups", ()))

    def evidence(self) -> Evidence:
        """What the diagnosis may look at."""
        learnt = (r for r in self.dataset if r.used and r.part == "train")
        train = Counter(label for record in learnt for label in record.labels)
        return Evidence(
            self.history,
            validation=self.metrics.get("validation") or self.metrics.get("folds"),
            test=self.metrics.get("test"),
            train=self.metrics.get("train"),
            recipe=self.recipe or Recipe(),
            train_counts=train,
            leaks=self.leaks,
            side=self.record.resolved.get("data.preprocess", {}).get("size", 0),
            usual_side=self.record.resolved.get(USUAL_SIDE, 0),
            given_split=self.record.split.get("made_by_user", False),
            series=self.record.series,
            short_side=_short_side(self.dataset),
            held_out=self.record.held_out,
            differences=self._audited("part_shift"),
            shortcuts=self._shortcuts(),
        )

    def _audited(self, kind: str) -> list[Mapping[str, Any]]:
        """The figures of the findings of one kind."""
        return [found["figure"] for found in self.audit.get("findings", ()) if found["kind"] == kind]

    def _shortcuts(self) -> list[ShortcutUse]:
        """How the model answers where a trivial property gives the label away, the surest property first."""
        if self.predictions is None or self.predictions.named is not None:
            return []
        return [
            shortcut_use(
                figure["property"],
                figure["guesses"],
                self.predictions,
                accuracy=figure["accuracy"],
                of_the_file=figure["of_the_file"],
            )
            for figure in self._audited("shortcut")
            if "guesses" in figure
        ]


def _short_side(dataset: Sequence[ImageRecord]) -> int:
    """Median shorter side of the images in use, 0 where unknown."""
    sides = sorted(min(record.width, record.height) for record in dataset if record.used)
    return sides[len(sides) // 2] if sides else 0


def trained_backbone(recipe: Recipe, record: RunRecord) -> str:
    """The recipe's backbone, or the one that "auto" became."""
    named = recipe.model.backbone
    return str(record.choice.get("backbone", named)) if named == AUTO_BACKBONE else named


def judged_part(parts: Collection[str]) -> str:
    """Which of these parts the result is told of; "" for none."""
    return next((part for part in (*JUDGED_FIRST, *sorted(parts)) if part in parts), "")


def read_facts(run: RunFolder) -> Facts:
    """Everything the page tells; raises RunError for a damaged file, never for a missing one."""
    parts = sorted(path.stem for path in run.metrics("any").parent.glob("*.json"))
    judged = judged_part(parts)
    about = _if_there(run.has(run.about), run.read_about) or {}
    of = run.own_run
    return Facts(
        name=run.root.resolve().name,
        recipe=_if_there(of.has(of.recipe), of.read_recipe),
        recipe_text=run.read(run.recipe).decode("utf-8") if run.has(run.recipe) else "",
        record=_if_there(run.has(run.environment), run.read_record) or RunRecord(),
        model=_if_there(of.has(of.model_json), of.read_model) or {},
        audit=_if_there(run.has(run.audit), run.read_audit) or {},
        certificate=_if_there(run.has(run.certificate()), run.read_certificate) or {},
        history=tuple(_if_there(run.has(run.history), run.read_history) or ()),
        dataset=_if_there(run.has(run.dataset), run.read_dataset) or (),
        metrics={part: metrics_from_json(run.read_metrics(part)) for part in parts},
        predictions=_if_there(run.has(run.predictions(judged)), lambda: run.read_predictions(judged)),
        folds=_if_there(run.has(run.metrics("folds")), lambda: run.read_metrics("folds")) or {},
        search=_if_there(run.has(run.search), run.read_search) or {},
        about=about,
        sizes={
            path.name: path.stat().st_size for path in (run.onnx, run.int8, run.class_list) if path.is_file()
        },
        audit_page=run.has(run.audit_page),
        insights=run.read_insights(),
    )


def _if_there(there: bool, read: Callable[[], T]) -> T | None:
    return read() if there else None


def _finding(values: Mapping[str, Any]) -> Finding:
    return Finding(values["kind"], values["severity"], values["message"], values["remedy"])
