"""Fine-tuning as timm's training script does it, written with timm's own loader, optimiser and schedule.

AdamW 5e-4 (weight decay 0.05), one epoch of warm-up, cosine to 1e-5, 5 epochs, batches of 32, label smoothing
0.1, timm's default augmentation. `--tuned`: bfloat16 autocast and channels-last besides.
"""

from __future__ import annotations

import os
from typing import Any

from common import BACKBONE, arguments, labelled_files, note

RATE, WEIGHT_DECAY, EPOCHS, BATCH = 5e-4, 0.05, 5, 32


def main() -> None:
    asked = arguments(__doc__ or "", tuned="bfloat16 autocast and channels-last")
    import torch
    from timm import create_model
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import random_seed

    random_seed(asked.seed, 0)
    model = create_model(
        BACKBONE,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(asked.weights), "mean": (0.5,) * 3, "std": (0.5,) * 3},
        num_classes=max(labelled_files(asked.data / asked.train)[1]) + 1,
    )
    if asked.tuned:
        model = model.to(memory_format=torch.channels_last)
    epochs = asked.epochs or EPOCHS
    train, validation = (loader(asked, part, model) for part in ("train", "validation"))
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=1e-5, min_lr=1e-5,
        warmup_prefix=False, step_on_epochs=False, updates_per_epoch=len(train),
    )  # fmt: skip
    loss_of, step = LabelSmoothingCrossEntropy(0.1), 0
    schedule.step_update(0)
    for _ in range(epochs):
        model.train()
        for images, labels in train:
            with torch.autocast("cpu", torch.bfloat16, enabled=asked.tuned):
                loss = loss_of(model(laid_out(images, asked.tuned)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            schedule.step_update(step)
        note(asked.curve, accuracy(model, validation, asked.tuned))


def loader(asked: Any, part: str, model: Any) -> Any:
    """Batches of one part through timm's own data set, transforms and loader, with a process a core."""
    import torch
    from timm.data import create_dataset, create_loader, resolve_data_config

    config = resolve_data_config({}, model=model)
    return create_loader(
        create_dataset("", root=str(asked.data / getattr(asked, part))),
        input_size=config["input_size"],
        batch_size=BATCH,
        is_training=part == "train",
        interpolation="random" if part == "train" else config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=len(os.sched_getaffinity(0)),
        device=torch.device("cpu"),
    )


def laid_out(images: Any, tuned: bool) -> Any:
    """The same batch, channels last where that was asked for."""
    import torch

    return images.contiguous(memory_format=torch.channels_last) if tuned else images


def accuracy(model: Any, batches: Any, tuned: bool) -> float:
    """Share of the validation photos whose first class is right."""
    import torch

    model.eval()
    right = total = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
        for images, labels in batches:
            right += int((model(laid_out(images, tuned)).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


if __name__ == "__main__":
    main()
