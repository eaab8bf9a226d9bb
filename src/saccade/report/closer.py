"""Sections of a full report on single images: mistakes looked at closely, and the map of all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saccade.images.thumbnails import Heat
from saccade.report import figures as drawn
from saccade.report.facts import Facts
from saccade.report.gallery import Coming, Gallery
from saccade.report.render import NBSP, percent

UNFOLDED = 12  # mistakes
SIDE_PIXELS, ON_MAP_PIXELS = 144, 96  # of thumbnails: there are many

COLOURS, SHAPES = 7, 4  # without a common divisor, so a class has its own pair of both
CLASSES_NAMED = COLOURS * SHAPES
WIDTH, HEIGHT, MARGIN, CELL = 1000, 700, 16, 100  # units of the map
LEARNT, JUDGED, RING = 3.2, 5.0, 10.0  # radius of a point, and of the ring of a mistake

Values = Mapping[str, Any]


# -- mistakes --------------------------------------------------------------------------------------------


def closer(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """Of each mistake: where the network looked, the nearest training images, and what these say."""
    found, maps = facts.insights.get("neighbours", {}), facts.insights.get("saliency", {})
    if not found and not maps:
        return None
    told: Sequence[Values] = maps.get("maps", ())
    mistakes = found.get("mistakes") or [one for one in told if one["label"] != one["predicted"]]
    heats = {one["path"]: one for one in told}
    rows = [_row(number, one, heats, picture) for number, one in enumerate(mistakes)]
    return {
        "rows": rows[:UNFOLDED],
        "folded": rows[UNFOLDED:],
        "mistakes": found.get("mistakes_in_all", len(mistakes)),
        "features": found.get("features", ""),
        "right": [_looked(one, heats, picture) for one in told if one["label"] == one["predicted"]],
        "maps": maps,
    }


def anchor(number: int) -> str:
    """Where a mistake stands in the page."""
    return f"closer-{number}"


def _row(number: int, mistake: Values, heats: Mapping[str, Values], picture: Gallery) -> dict[str, Any]:
    nearest = [
        {**one, "picture": picture(one["path"], side_pixels=SIDE_PIXELS)}
        for one in mistake.get("nearest", ())
    ]
    return {
        **_looked(mistake, heats, picture),
        "anchor": anchor(number),
        "nearest": nearest,
        "said": mistake.get("said", ""),
    }


def _looked(answer: Values, heats: Mapping[str, Values], picture: Gallery) -> dict[str, Any]:
    """An answer with its photo, and with the heat over it where there is any."""
    path = answer["path"]
    heat = _heat(heats.get(path))
    return {
        **{name: answer[name] for name in ("path", "label", "predicted", "confidence")},
        "picture": picture(path, side_pixels=SIDE_PIXELS),
        "heated": picture(path, side_pixels=SIDE_PIXELS, heat=heat) if heat and picture.at_hand else None,
    }


def _heat(found: Values | None) -> Heat | None:
    if found is None or not any(map(any, found["rows"])):
        return None
    left, top, right, bottom = found["seen"]
    return Heat(tuple(tuple(row) for row in found["rows"]), (left, top, right, bottom))


# -- the map ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """An image on the map: its outline, the class of its colour, and what is told of it.

    `ring` is the centre of a mistake, `link` leads to it; `learnt`: a training image.
    """

    outline: str
    colour: str
    words: str
    learnt: bool
    ring: tuple[float, float] | None = None
    link: str = ""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A photo on the map, with the left upper corner of its square."""

    picture: Coming
    x: float
    y: float
    colour: str
    words: str


def feature_map(facts: Facts, picture: Gallery) -> dict[str, Any] | None:
    """All images of the map as points, mistakes ringed; and some of them as photos where they lie."""
    found = facts.insights.get("map")
    if not found:
        return None
    named, kinds = _kinds(facts, found["points"])
    mistakes = facts.insights.get("neighbours", {}).get("mistakes", ())
    links = {mistake["path"]: anchor(number) for number, mistake in enumerate(mistakes)}
    points = [_point(point, kinds, links) for point in found["points"]]
    return {
        "found": found,
        "points": sorted(points, key=lambda point: (not point.learnt, point.ring is not None)),
        "pinned": _pinned(found["points"], kinds, picture) if picture.at_hand else [],
        "legend": [(label, _colour(kinds[label]), _outline(kinds[label], 7, 7, JUDGED)) for label in named],
        "others": len(kinds) < len({point["label"] for point in found["points"]}),
        "size": (WIDTH, HEIGHT),
        "cell": CELL,
        "ring": RING,
        "mistakes": sum(point.ring is not None for point in points),
        "linked": any(point.link for point in points),
    }


def _kinds(facts: Facts, points: Sequence[Values]) -> tuple[list[str], dict[str, int]]:
    """The classes that get a colour and shape of their own: all, or those with most mistakes."""
    there = {point["label"] for point in points}
    metrics = facts.figures
    if metrics is None or metrics.multi_label:
        named = sorted(there)[:CLASSES_NAMED]
    else:
        named = [metrics.classes[i] for i in drawn.shown_classes(metrics, CLASSES_NAMED)]
    named = [label for label in named if label in there]
    return named, {label: number for number, label in enumerate(named)}


def _place(point: Values) -> tuple[float, float]:
    return (
        MARGIN + point["x"] * (WIDTH - 2 * MARGIN),
        HEIGHT - MARGIN - point["y"] * (HEIGHT - 2 * MARGIN),
    )


def _point(point: Values, kinds: Mapping[str, int], links: Mapping[str, str]) -> Point:
    x, y = _place(point)
    kind = kinds.get(point["label"], -1)
    learnt = "predicted" not in point
    wrong = not learnt and point["predicted"] != point["label"]
    return Point(
        _outline(kind, x, y, LEARNT if learnt else JUDGED),
        _colour(kind),
        _words(point),
        learnt,
        (x, y) if wrong else None,
        links.get(point["path"], "") if wrong else "",
    )


def _words(point: Values) -> str:
    told = f"{point['path']}: {point['part']}, {point['label']}"
    if "predicted" not in point:
        return told
    sure = f"({percent(point['confidence'], 0)})".replace(NBSP, " ")
    right = point["predicted"] == point["label"]
    return f"{told}, answered rightly {sure}" if right else f"{told}, taken for {point['predicted']} {sure}"


def _colour(kind: int) -> str:
    """The CSS class of templates/style.css; -1 is of the classes without a colour of their own."""
    return f"k{kind % COLOURS}" if kind >= 0 else "k-other"


def _outline(kind: int, x: float, y: float, r: float) -> str:
    """A disc, square, triangle or diamond about (x, y), as the path of an SVG."""
    shape = kind % SHAPES if kind >= 0 else 0
    if shape == 0:
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"
    if shape == 1:
        half = 0.9 * r
        return f"M{x - half:.1f} {y - half:.1f}h{2 * half:.1f}v{2 * half:.1f}h{-2 * half:.1f}z"
    if shape == 2:
        return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.1 * r:.1f}h{-2.4 * r:.1f}z"
    half = 1.25 * r
    return f"M{x:.1f} {y - half:.1f}l{half:.1f} {half:.1f}l{-half:.1f} {half:.1f}l{-half:.1f} {-half:.1f}z"


def _pinned(points: Sequence[Values], kinds: Mapping[str, int], picture: Gallery) -> list[Pinned]:
    """In each square of the map the image nearest to its middle."""
    middle: dict[tuple[int, int], tuple[float, Values]] = {}
    for point in points:
        x, y = _place(point)
        cell = (int(x // CELL), int(y // CELL))
        off = (x % CELL - CELL / 2) ** 2 + (y % CELL - CELL / 2) ** 2
        if cell not in middle or off < middle[cell][0]:
            middle[cell] = (off, point)
    return [
        Pinned(
            picture(point["path"], side_pixels=ON_MAP_PIXELS),
            CELL * column,
            CELL * row,
            _colour(kinds.get(point["label"], -1)),
            _words(point),
        )
        for (column, row), (_, point) in sorted(middle.items())
    ]
