"""Features of the frozen network computed once, then scikit-learn's logistic regression on them.

As the documentations have it: timm's transform and loader, float32, `StandardScaler` and
`LogisticRegression`. `--tuned` is what a careful hand does: torchvision's JPEG decoder, bfloat16,
channels-last, strength by cross-validation inside the training part; `--mirrored` adds the mirrored photos.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import BACKBONE, arguments, labelled_files, note

BATCH, SIDE, RESIZED, FOLDS = 32, 224, 256, 5
STRENGTHS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # C of scikit-learn, weak to strong


def main() -> None:
    asked = arguments(
        __doc__ or "", tuned="bfloat16, fast decoding, cross-validation", mirrored="mirrors too"
    )
    from timm import create_model

    model = create_model(
        BACKBONE,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(asked.weights), "mean": (0.5,) * 3, "std": (0.5,) * 3},
        num_classes=0,
    ).eval()
    parts = asked.data / asked.train, asked.data / asked.validation
    if asked.tuned:
        fit, held_out = (fast_features(model, part, asked.mirrored and part == parts[0]) for part in parts)
        head = head_by_cross_validation(*fit, asked.seed)
    else:
        fit, held_out = (plain_features(model, part) for part in parts)
        head = default_head(*fit)
    note(asked.curve, float((head.predict(held_out[0][0]) == held_out[1]).mean()))


def plain_features(model: Any, part: Path) -> tuple[Any, Any]:
    """Features (1, images, 1280) in float32 and labels, through timm's own transform and loader."""
    import numpy as np
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    config = resolve_data_config({}, model=model)
    batches = create_loader(
        create_dataset("", root=str(part)),
        input_size=config["input_size"],
        batch_size=BATCH,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=len(os.sched_getaffinity(0)),
        device=torch.device("cpu"),
    )
    with torch.inference_mode():
        made = [(model(images).numpy(), labels.numpy()) for images, labels in batches]
    return np.concatenate([x for x, _ in made])[None], np.concatenate([y for _, y in made])


def fast_features(model: Any, part: Path, mirrored: bool) -> tuple[Any, Any]:
    """Features (views, images, 1280) by bfloat16, channels-last, and labels; threads decode ahead."""
    import numpy as np
    import torch

    files, labels = labelled_files(part)
    model = model.to(memory_format=torch.channels_last)
    made = []
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
    ):
        photos = pool.map(decoded, files)
        for start in range(0, len(files), BATCH):
            batch = torch.stack([next(photos) for _ in files[start : start + BATCH]]).float()
            batch = ((batch / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
            views = (batch, batch.flip(3)) if mirrored else (batch,)
            made.append(torch.stack([model(view).float() for view in views]))
    return torch.cat(made, 1).numpy(), np.array(labels)


def decoded(path: Path) -> Any:
    """One photo as uint8 (3, 224, 224): short side 256, centre cut out."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional

    photo = functional.resize(decode_image(str(path), ImageReadMode.RGB), RESIZED, antialias=True)
    return functional.center_crop(photo, SIDE)


def default_head(features: Any, labels: Any) -> Any:
    """The pipeline of scikit-learn's own getting-started page, with enough iterations."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[0], labels)


def head_by_cross_validation(features: Any, labels: Any, seed: int) -> Any:
    """Logistic regression with the strength that does best on folds of the training photos.

    Both views of a photo stand in the same fold, and a fold is judged on the plain view.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    views, images = features.shape[:2]
    later = np.arange(views)[:, None] * images
    splits = [
        ((later + learn).ravel(), judge)
        for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)
    ]
    head = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=splits,
        max_iter=300,
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    return make_pipeline(StandardScaler(), head).fit(
        features.reshape(-1, features.shape[2]), np.tile(labels, views)
    )


if __name__ == "__main__":
    main()
