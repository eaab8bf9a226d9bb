"""fastai's `vision_learner(...).fine_tune(4)`, set up as its vision tutorial does, on given weights.

Presizing (`Resize(460)`, then `aug_transforms(size=224)` on the batch), batches of 64, default rates: one
epoch with the body frozen, then four with all of it. The network and its weights come through timm.
"""

from __future__ import annotations

from common import BACKBONE, arguments, labelled_files, note


def main() -> None:
    asked = arguments(__doc__ or "")
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Resize,
        accuracy,
        aug_transforms,
        set_seed,
        vision_learner,
    )

    class Curve(Callback):
        """The accuracy that fastai itself prints after each epoch."""

        def after_epoch(self) -> None:
            note(asked.curve, float(self.recorder.final_record[2]))

        order = 90  # after the recorder

    set_seed(asked.seed, reproducible=False)
    images = len(labelled_files(asked.data / asked.train)[0])
    loaders = ImageDataLoaders.from_folder(
        asked.data,
        train=asked.train,
        valid=asked.validation,
        item_tfms=Resize(460),
        batch_tfms=aug_transforms(size=224),
        bs=min(64, images),
    )
    learner = vision_learner(
        loaders,
        BACKBONE,
        metrics=accuracy,
        pretrained_cfg_overlay={"file": str(asked.weights), "mean": (0.5,) * 3, "std": (0.5,) * 3},
        cbs=Curve(),
    )
    learner.fine_tune(asked.epochs or 4)


if __name__ == "__main__":
    main()
