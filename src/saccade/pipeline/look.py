"""Looking before training: what the model will see, which networks there are, what one looks like."""

from __future__ import annotations

from pathlib import Path

from saccade.errors import DataError, RecipeError
from saccade.images.decoder import Limits
from saccade.pipeline import prepare
from saccade.preprocess import RGB
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder, write_bytes
from saccade.terminal import Terminal


def augment_preview(
    location: str, recipe: Recipe, terminal: Terminal, *, out: str, images: int, draws: int
) -> None:
    """`saccade augment`: a picture of training images as evaluated (first column) and as augmented, and of
    each step by itself."""
    _check_preview(out, images, draws)
    from saccade.building import planned_preprocess
    from saccade.models.backbones import find_backbone
    from saccade.transforms import Augmentation
    from saccade.transforms.outside import check_known
    from saccade.transforms.preview import preview

    check_known(recipe.augment.from_outside)
    find_backbone(recipe.model.backbone)  # only to refuse here what there is not
    examined = prepare.examine(prepare.list_data(location, recipe), recipe, terminal)
    made = prepare.divide(examined, recipe, terminal)
    preprocess = planned_preprocess(made.dataset, recipe)
    picture = preview(
        made.dataset.storage,
        spread_over_classes(made.dataset, images),
        Augmentation.from_config(recipe.augment),
        preprocess,
        draws=draws,
        seed=recipe.seed,
        limits=Limits.of(recipe.data, preprocess.pixels),
    )
    write_bytes(Path(out), picture)
    terminal.say(
        f"Written   {out}: each row an image, first as it is evaluated, then {draws} augmented draws; below, "
        "each step that is on by itself"
    )


def _check_preview(out: str, images: int, draws: int) -> None:
    if images < 1 or draws < 1:
        raise RecipeError(f"--images and --draws must be at least 1, got {images} and {draws}")
    if Path(out).suffix.lower() != ".png" or Path(out).is_dir():
        raise RecipeError(f"--out {out}: give the name of a picture that ends in .png")


def spread_over_classes(dataset: Dataset, count: int) -> tuple[ImageRecord, ...]:
    """Training images, one of each class in turn."""
    by_class = [[r for r in dataset.used("train") if label in r.labels] for label in dataset.classes]
    longest = max((len(records) for records in by_class), default=0)
    turns = [records[i] for i in range(longest) for records in by_class if i < len(records)]
    if not turns:
        raise DataError(
            "there is no training image to show",
            hint="run `saccade audit` to see what is wrong",
        )
    return tuple(turns[:count])


def summarize(backbone: str, terminal: Terminal, *, classes: int, image_size: int, head: str) -> None:
    """`saccade summary`: layer, output shape, parameters and the totals, of a backbone or of a run."""
    if classes < 1 or image_size < 0:
        raise RecipeError(
            f"--classes must be at least 1 and --image-size 0 or more, got {classes}, {image_size}"
        )
    from saccade.models import as_text, build_model, summary
    from saccade.models.build import rebuild_classifier

    run = RunFolder(Path(backbone))
    if run.has(run.environment):
        architecture = run.read_record().resolved["model.architecture"]
        channels, side = architecture.get("channels", RGB.count), architecture["image_size"]
        terminal.say(*as_text(summary(rebuild_classifier(architecture), side, channels=channels)).split("\n"))
        return
    size = image_size or None
    built = build_model(backbone, classes, pretrained=False, head=head, image_size=size)
    terminal.say(*as_text(summary(built.module, built.preprocess.size)).split("\n"))


def list_backbones(pattern: str, terminal: Terminal) -> int:
    """`saccade backbones`: a short list with what is known of them, or all that match; returns how many."""
    from saccade.models import backbones
    from saccade.selection.short_list import SHORT_LIST, short_list_lines

    if not pattern:
        terminal.say(*short_list_lines())
        return len(SHORT_LIST)
    rows = backbones(pattern)
    for row in rows:
        weights = "pretrained weights" if row.pretrained else "from scratch"
        terminal.say(f"{row.name:<50} {row.library:<12} {row.image_size or '?':>4} px  {weights}")
    terminal.say(f"{len(rows)} backbones")
    return len(rows)
