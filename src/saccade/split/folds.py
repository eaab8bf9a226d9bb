"""k folds with the same care as three parts: whole atoms, every class spread evenly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.errors import SplitError
from saccade.records import Audit, Split
from saccade.run_folder import write_csv
from saccade.split.apart import aside_sentence, divide
from saccade.split.atoms import Atom
from saccade.split.files import way_to_root
from saccade.split.making import Assignment, Shares, assign

COLUMNS = ("path", "label", "fold", "group")


@dataclass(frozen=True, slots=True)
class Folds:
    """The fold (0 to `count` - 1) of each path, and why a class is not spread as evenly as it should be."""

    fold_of: Mapping[str, int]
    count: int
    reasons: tuple[str, ...] = ()

    def split(self, audit: Audit, fold: int) -> Split:
        """One fold validates, the others train; images without a fold have no part and are left out."""
        part = {path: "validation" if k == fold else "train" for path, k in self.fold_of.items()}
        records = (replace(r, part=part[r.path]) for r in audit.dataset.used() if r.path in part)
        dataset = replace(audit.dataset, records=tuple(records), given_parts=())
        return Split(dataset, reasons=self.reasons)


def k_folds(audit: Audit, *, folds: int = 5, seed: int = 0, paths: Collection[str] | None = None) -> Folds:
    """Divide the used images (of `paths`, if given) so that no group, cluster or copy is in two folds.

    Raises SplitError when there is less to divide than folds, or a class has only one thing to divide:
    it could not be in training and held out at once.
    """
    if folds < 2:
        raise SplitError(f"folds must be at least 2, got {folds}; give --folds 5")
    used = audit.dataset.used()
    wanted = None if paths is None else frozenset(paths)
    chosen = tuple(r for r in used if wanted is None or r.path in wanted)
    names = tuple(f"fold {k}" for k in range(folds))

    def made_of(atoms: list[Atom]) -> Assignment:
        if len(atoms) < folds:
            raise SplitError(
                f"{len(chosen)} images in {len(atoms)} sets that stay together cannot fill {folds} folds; "
                f"ask for at most {len(atoms)} folds, or add images"
            )
        return assign(chosen, atoms, Shares(names, (1.0 / folds,) * folds), least=2)

    division = divide(chosen, audit, made_of, seed=seed)
    made, aside = division.made, division.twin_of
    fold_of = {chosen[i].path: names.index(name) for i, name in made.part_of.items() if i not in aside}
    return Folds(dict(sorted(fold_of.items())), folds, (*aside_sentence(chosen, aside), *made.reasons))


def write_folds_csv(folds: Folds, audit: Audit, path: Path | str) -> None:
    """Write path,label,fold,group of every image with a fold, atomically; paths as in `split.csv`."""
    target = Path(path)
    to_root = way_to_root(target, audit.dataset.root)
    rows = (
        [to_root + r.path, r.label, folds.fold_of[r.path], r.group]
        for r in audit.dataset.used()
        if r.path in folds.fold_of
    )
    write_csv(target, COLUMNS, rows)
