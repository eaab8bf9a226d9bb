"""Pooled features of one batch by timm or by Keras with the transplanted weights, to compare the two.

    python same_features.py timm|keras WEIGHTS PIXELS.npy FEATURES.npy

PIXELS.npy: float32 (images, 224, 224, 3) in -1 to 1. FEATURES.npy: float32 (images, 1280).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import BACKBONE


def by_timm(weights: Path, pixels: Any) -> Any:
    """The features of timm's network, float32."""
    import torch
    from timm import create_model

    overlay = {"file": str(weights)}
    model = create_model(BACKBONE, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()


def by_keras(weights: Path, pixels: Any) -> Any:
    """The features of Keras' network, averaged over the places."""
    from keras_frozen import base_network

    return np.asarray(base_network(weights)(pixels, training=False)).mean((1, 2))


if __name__ == "__main__":
    by = {"timm": by_timm, "keras": by_keras}[sys.argv[1]]
    np.save(sys.argv[4], by(Path(sys.argv[2]), np.load(sys.argv[3])))
