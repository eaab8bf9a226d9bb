"""From a location to audited data to a split: list, decode once, say what is wrong, divide without leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from saccade.audit import SecondSearch, audit, audit_as_json
from saccade.audit.decisions import (
    DECISIONS_NAME,
    NO_DECISIONS,
    Decisions,
    decisions_beside,
    meant,
    read_decisions,
    relabelled,
)
from saccade.audit.quality import Measurements
from saccade.audit.scan import scan
from saccade.audit.shared import scanned_by
from saccade.audit.to_decide import write_template
from saccade.caches.store import cache_folder
from saccade.errors import DataError, RecipeError, RunError, SplitError
from saccade.images.decoder import Limits
from saccade.part_files import Cluster
from saccade.pipeline.many_rows import split_many
from saccade.pipeline.words import say_data, say_findings, say_folds, say_split
from saccade.preprocess import GRAY, RGB
from saccade.priors import class_meant
from saccade.recipe import Recipe
from saccade.records import Audit, Dataset, Finding, Split
from saccade.report.audit_page import write_audit_page
from saccade.run_folder import RunFolder, write_json
from saccade.sources import USUAL_COLUMNS, Columns, is_list, load_source
from saccade.sources.addresses import address_of, is_remote
from saccade.sources.naming import how_it_is_read
from saccade.sources.outputs import is_place
from saccade.sources.remote import LinkedStorage, RemoteStorage
from saccade.sources.rows import LARGE_ROWS, large_rows, on_this_disk
from saccade.sources.storage import FolderStorage
from saccade.split import (
    k_folds,
    read_split_csv,
    refuse_few_images,
    split,
    with_folds,
    write_folds_csv,
    write_split_csv,
)
from saccade.terminal import Progress, Terminal

SHOWN_BY_AUDIT = 20


def list_data(location: str, recipe: Recipe) -> Dataset:
    """What lies at `location`, listed and labelled, nothing decoded yet.

    With folds, a given validation part is part of what is divided into folds.
    """
    if recipe.split.folds and recipe.evaluate.size == "auto":
        raise RecipeError(
            "evaluate.size = auto lets each fold choose a size of its own, and one model is made of all",
            hint="leave it out with --folds",
        )
    listed = load_source(
        location,
        group_pattern=recipe.split.group_pattern or None,
        columns=replace(named_columns(recipe), group=recipe.split.group),
        drop_empty=recipe.data.drop_empty,
        read_npy=recipe.data.channels != RGB.channels,
    )
    _refuse_other_labels(listed, recipe)
    return _with_validation_in_train(listed) if recipe.split.folds else listed


def _refuse_other_labels(listed: Dataset, recipe: Recipe) -> None:
    """Raise RecipeError where images have one label each, and the recipe says several, or the reverse.

    So it may be with images that were given in Python, which bring their labels along.
    """
    if recipe.multi_label and not listed.multi_label:
        raise RecipeError(
            "--multi-label is for images with any number of labels, and each of these was given one",
            hint="give a list of names for each, such as [['daisy', 'iris'], ['daisy'], []], or leave it out",
        )
    if listed.multi_label and not recipe.multi_label:
        raise RecipeError(
            "these images may have several labels, and the recipe is for one each", hint="add --multi-label"
        )


def _with_validation_in_train(listed: Dataset) -> Dataset:
    records = (replace(r, part="train") if r.part == "validation" else r for r in listed.records)
    parts = dict.fromkeys("train" if part == "validation" else part for part in listed.given_parts)
    return replace(listed, records=tuple(records), given_parts=tuple(parts))


def named_columns(recipe: Recipe) -> Columns:
    """What the recipe calls the columns of a list, the group's aside."""
    data = recipe.data
    return Columns(
        data.path_column,
        data.label_column,
        root=data.root,
        several=data.multi_label,
        delimiter=data.label_delimiter,
        one_hot=data.label_columns,
    )


def list_again(location: str, recipe: Recipe, columns: Columns = USUAL_COLUMNS) -> Dataset:
    """What lies at `location`, for a run that was trained: any number of classes, whatever is empty.

    columns: what is called otherwise than in the recipe, whose names count for lists only. Labels in another
    form than the recipe's take its place.
    """
    usual = named_columns(recipe) if is_list(location) else USUAL_COLUMNS
    if columns.several:
        label = "" if columns.one_hot else usual.label
        usual = replace(usual, label=label, several=False, delimiter="", one_hot="")
    said = {name: value for name, value in asdict(columns).items() if value}
    read_npy = recipe.data.channels != RGB.channels
    columns = replace(usual, **said)
    return load_source(location, columns=columns, drop_empty=True, min_classes=1, read_npy=read_npy)


@dataclass(frozen=True, slots=True)
class ReadImages:
    """Decoded and measured data, and what a person decided about them; not audited yet."""

    dataset: Dataset
    measurements: Measurements
    decisions: Decisions


@dataclass(frozen=True, slots=True)
class Examined:
    """Audited data, with what a second search for near-duplicates across parts needs."""

    audit: Audit
    measurements: Measurements
    decisions: Decisions


def examine(
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    *,
    verify: bool = False,
    cache: bool = True,
    cluster: Cluster | None = None,
) -> Examined:
    """Decode every image once and search for what is wrong."""
    read = read_images(dataset, recipe, terminal, verify=verify, cache=cache, cluster=cluster)
    return audited(read, recipe, terminal, cache=cache)


def read_images(
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    *,
    verify: bool = False,
    cache: bool = True,
    watch: Callable[[], None] | None = None,
    cluster: Cluster | None = None,
) -> ReadImages:
    """Decode every image once, on this machine or by a `cluster`.

    `watch` looks after work that is done beside this: called again and again while images are read, it may
    raise to end it.
    """
    decisions = decisions_of(dataset, recipe)
    with terminal.progress("reading images") as progress:
        scanned = scan(
            dataset,
            limits=Limits.of(recipe.data),
            cache=cache_folder() if cache else None,
            verify=verify,
            beside=watch is not None,
            share=partial(scanned_by, cluster) if cluster else None,
            progress=watched(progress, watch),
        )
    read = scanned.dataset
    if recipe.data.channels != RGB.channels:
        read = replace(read, findings=(*read.findings, _rendered(recipe.data.channels)))
    return ReadImages(read, scanned.measurements, decisions)


def _rendered(channels: str) -> Finding:
    """What findings about images go by that nobody can look at as they are."""
    what = "gray images" if channels == GRAY else f"images of {channels} channels"
    return how_it_is_read(
        f"{what}: findings, near-duplicates and thumbnails go by an RGB rendering of 8 bits (means of "
        "thirds of the channels; 16 bits stretched between their 0.1 and 99.9 % points)",
        "Nothing to do",
    )


def audited(read: ReadImages, recipe: Recipe, terminal: Terminal, *, cache: bool = True) -> Examined:
    """Search for what is wrong with images that have been read."""
    with terminal.progress("searching near-duplicates", "steps") as progress:
        found = audit(
            read.dataset,
            read.measurements,
            decisions=read.decisions,
            near_duplicates=recipe.split.near_duplicates,
            gray_maximum=recipe.data.gray_maximum,
            flips=recipe.flips,
            keeps_16_bits=recipe.data.channels != RGB.channels and recipe.data.bits != 8,
            parts_to_fill=1 + (recipe.split.validation > 0) + (recipe.split.test > 0),
            cache=cache_folder() if cache else None,
            progress=progress,
        )
    return Examined(found, read.measurements, read.decisions)


def watched(progress: Progress, watch: Callable[[], None] | None) -> Progress:
    """`progress`, and `watch` before each of its steps."""
    if watch is None:
        return progress

    def follow(done: int, total: int, detail: str = "") -> None:
        watch()
        progress(done, total, detail)

    return follow


def decisions_of(dataset: Dataset, recipe: Recipe) -> Decisions:
    """What a person decided about earlier findings: in the file beside the data, and in the recipe's.

    Raises DataError for rows that cannot be used, and for new labels of images or classes that are not there.
    """
    files = (decisions_beside(dataset.root), Path(recipe.data.decisions) if recipe.data.decisions else None)
    found = NO_DECISIONS
    for file in files:
        if file:
            found = meant(read_decisions(file), (record.path for record in dataset.records)).over(found)
    relabelled(dataset, found)  # refused here, before any image is read
    return found


def divide(
    examined: Examined, recipe: Recipe, terminal: Terminal, *, fixed: Mapping[str, str] | None = None
) -> Split:
    """Train, validation and test, with nothing that belongs together in two of them; searched twice.

    `fixed` gives images the part they had in an earlier split.
    """
    if not examined.audit.dataset.used():
        total = len(examined.audit.dataset.records)
        raise DataError(
            f"none of the {total} images can be used",
            hint="do what the findings above say",
        )
    folds = recipe.split.folds
    with terminal.progress("cross-check across parts", "steps") as progress:
        search = second_search(examined, progress) if recipe.split.near_duplicates else None
        made = split(
            examined.audit,
            validation=0.0 if folds else recipe.split.validation,
            test=recipe.split.test,
            seed=recipe.seed,
            repair=recipe.split.repair,
            allow_leaks=recipe.split.allow_leaks,
            fixed=fixed,
            cross_check=search,
        )
        return with_folds(made, folds=folds, seed=recipe.seed, cross_check=search) if folds else made


def refuse_small_classes(listed: Dataset, recipe: Recipe) -> None:
    """Raise SplitError, before any image is read, for classes that cannot be in every part."""
    if listed.given_parts:
        return
    shares = {"train": 1.0, "validation": recipe.split.validation, "test": recipe.split.test}
    refuse_few_images(listed.counts(), [part for part, share in shares.items() if share])


def refuse_unknown_weights(listed: Dataset, recipe: Recipe) -> None:
    """Raise RecipeError for class weights by names that are no classes of the data."""
    weights = recipe.train.class_weights
    unknown = [] if isinstance(weights, str) else [name for name in weights if name not in listed.classes]
    if unknown:
        raise RecipeError(
            f"train.class_weights names no class of the data: {', '.join(unknown)}",
            hint=class_meant(unknown[0], listed.classes),
        )


def require_validation_to_come(listed: Dataset, recipe: Recipe) -> None:
    """Raise DataError, before any image is read, where no image can come to validate what is learnt."""
    if recipe.split.validation == 0 and "validation" not in listed.given_parts and not recipe.split.folds:
        require_validation(replace(listed, records=()), recipe)


def require_validation(divided: Dataset, recipe: Recipe) -> None:
    """Raise DataError where no image validates what is learnt."""
    if not divided.used("validation") and not recipe.split.folds:
        raise DataError(
            f"there is no validation part (split.validation = {recipe.split.validation:g}), and training "
            "needs one to choose the best epoch",
            hint=(
                "give it a share of the images (--split.validation 0.15), or images of its own (a folder or "
                "a part called validation)"
            ),
        )


def second_search(examined: Examined, progress: Progress) -> SecondSearch:
    """Finds what the audit's own search missed, by another descriptor."""
    return SecondSearch(examined.audit, examined.measurements, examined.decisions, progress=progress)


def audit_data(
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    *,
    out: str = "",
    verify: bool = False,
    cache: bool = True,
    cluster: Cluster | None = None,
) -> Audit:
    """`saccade audit`: print what one can act on; `out` names a folder for audit.json and audit.html."""
    folder = Path(out)
    if out and RunFolder(folder).recipe.exists():
        raise RunError(
            f"{out} holds a run, and audit.json there is the run's own",
            hint="give --out another folder",
        )
    listed = list_data(location, recipe)
    audited = examine(listed, recipe, terminal, verify=verify, cache=cache, cluster=cluster).audit
    say_data(audited.dataset, terminal)
    say_findings(audited, terminal, most=SHOWN_BY_AUDIT)
    if out:
        write_json(folder / "audit.json", audit_as_json(audited))
        read = audited.dataset.storage.read
        page = write_audit_page(audited, folder / "audit.html", read, limits=Limits.of(recipe.data))
        terminal.say(f"Written   {folder / 'audit.json'} and {page}")
        if to_do := write_template(audited, folder / DECISIONS_NAME):
            terminal.say(f"Decide    {to_do}")
    else:
        terminal.say("          --out FOLDER writes all findings, with pictures, and a table for decisions")
    return audited


def split_data(location: str, recipe: Recipe, terminal: Terminal, *, out: str, folds: int = 0) -> None:
    """`saccade split`: write a list that is itself a data set; an earlier list there is kept and added to."""
    target = Path(out)
    there, columns = on_this_disk(location, replace(named_columns(recipe), group=recipe.split.group))
    if large_rows(there, columns):
        split_many(there, columns, recipe, terminal, out=out, folds=folds)
        return
    listed = list_data(location, recipe)
    _check_list_can_be_written(target, location, listed)
    examined = examine(listed, recipe, terminal)
    say_data(examined.audit.dataset, terminal)
    say_findings(examined.audit, terminal)
    if folds:
        made = k_folds(examined.audit, folds=folds, seed=recipe.seed)
        write_folds_csv(made, examined.audit, target)
        say_folds(made, terminal)
    else:
        fixed = read_split_csv(target, examined.audit.dataset) if target.exists() else {}
        divided = divide(examined, recipe, terminal, fixed=fixed)
        say_split(divided, recipe, terminal)
        write_split_csv(divided, target)
        if fixed:
            terminal.say(f"          {len(fixed):,} images kept the part they had in {out}")
    sets = ' (its labels are sets: read it with --label-delimiter ",")' if listed.multi_label else ""
    terminal.say(f"Written   {out}{sets}")


def _check_list_can_be_written(target: Path, location: str, dataset: Dataset) -> None:
    """Raise SplitError, before any image is read, where a list could not be read back as a data set."""
    if target.suffix.lower() != ".csv" or target.is_dir():
        raise SplitError(
            f"--out {target} is not the name of a .csv file",
            hint=f"give a name that ends in .csv (.parquet is for lists of more than {LARGE_ROWS:,} rows)",
        )
    if not isinstance(dataset.storage, FolderStorage | RemoteStorage | LinkedStorage):
        raise SplitError(
            f"{location} holds its images in an archive or table, where a list cannot name them",
            hint=(
                "unpack it and split the folder (`saccade train` reads it as it is and makes the same split)"
            ),
        )
    here = not address_of(dataset.root) and not all(is_remote(record.path) for record in dataset.records)
    if here and is_place(target):
        raise SplitError(
            f"{location} lies on this disk, and a list at an address cannot name its images",
            hint="give the address of the images, or --out a name on this disk",
        )
