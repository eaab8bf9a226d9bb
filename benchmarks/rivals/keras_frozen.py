"""Keras' frozen transfer on TensorFlow: frozen MobileNetV2, average pooling, Dense 256, dropout 0.5.

Adam 1e-3, 5 epochs, batches of 32, `image_dataset_from_directory` with cache, shuffle and prefetch, as
Keras' guide to transfer learning and TensorFlow's tutorial have it. The given timm weights are put into
Keras' own network, layer by layer (`same_features.py` proves it). `--features`: features computed once,
then the same head on them for 30 epochs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import arguments, labelled_files, note

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
EPOCHS, FEATURE_EPOCHS, BATCH, SIDE = 5, 30, 32, 224
TIMM_EPSILON, KERAS_EPSILON = 1e-5, 1e-3


def main() -> None:
    asked = arguments(__doc__ or "", features="features once, then only the head")
    import keras

    keras.utils.set_random_seed(asked.seed)
    base = base_network(asked.weights)
    classes = max(labelled_files(asked.data / asked.train)[1]) + 1
    train, validation = photos(asked.data / asked.train, True), photos(asked.data / asked.validation, False)
    if asked.features:
        _fit_on_features(asked, base, classes, train, validation)
        return
    images = keras.Input((SIDE, SIDE, 3))
    scaled = keras.applications.mobilenet_v2.preprocess_input(images)
    model = keras.Model(images, head(classes)(base(scaled, training=False)))
    _fit(asked, model, train.cache().shuffle(1000).prefetch(-1), validation.cache().prefetch(-1), EPOCHS)


def _fit_on_features(asked: Any, base: Any, classes: int, train: Any, validation: Any) -> None:
    import keras
    import tensorflow as tf

    images = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(
        base(keras.applications.mobilenet_v2.preprocess_input(images))
    )
    extractor = keras.Model(images, pooled)

    def features(batches: Any) -> Any:
        made = [(extractor.predict_on_batch(x), y) for x, y in batches]
        parts = (tf.concat([pair[i] for pair in made], 0) for i in range(2))
        return tf.data.Dataset.from_tensor_slices(tuple(parts)).cache()

    tables = features(train).shuffle(10_000).batch(BATCH), features(validation).batch(256)
    _fit(asked, head(classes, pool=False), *tables, FEATURE_EPOCHS)


def _fit(asked: Any, model: Any, train: Any, validation: Any, epochs: int) -> None:
    """Adam 1e-3 on the head; the accuracy that Keras itself reports after each epoch goes to the curve."""
    import keras

    class Curve(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            note(asked.curve, (logs or {})["val_accuracy"])

    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        train, validation_data=validation, epochs=asked.epochs or epochs, callbacks=[Curve()], verbose=2
    )


def photos(part: Path, shuffled: bool) -> Any:
    """Batches (32, 224, 224, 3) in 0 to 255 and labels, by Keras' own reader."""
    import keras

    return keras.utils.image_dataset_from_directory(
        part, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=shuffled, seed=1 if shuffled else None
    )


def head(classes: int, *, pool: bool = True) -> Any:
    """Average pooling (left out for features), Dense 256, dropout 0.5, Dense."""
    import keras

    layers = [
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(classes),
    ]
    return keras.Sequential([keras.layers.GlobalAveragePooling2D(), *layers] if pool else layers)


def base_network(weights: Path) -> Any:
    """Keras' MobileNetV2 without its top, frozen, holding timm's weights."""
    import keras
    from safetensors.numpy import load_file

    base = keras.applications.MobileNetV2(input_shape=(SIDE, SIDE, 3), include_top=False, weights=None)
    tensors = load_file(weights)
    for keras_name, timm_name, kind in layer_pairs():
        base.get_layer(keras_name).set_weights(converted(tensors, timm_name, kind))
    base.trainable = False
    return base


def layer_pairs() -> Iterator[tuple[str, str, str]]:
    """(name in Keras, name in timm, "conv" | "depthwise" | "norm") of all 104 layers with weights."""
    yield from (("Conv1", "conv_stem", "conv"), ("bn_Conv1", "bn1", "norm"))
    yield from (("Conv_1", "conv_head", "conv"), ("Conv_1_bn", "bn2", "norm"))
    places = [(i, j) for i, blocks in enumerate((1, 2, 3, 4, 3, 3, 1)) for j in range(blocks)]
    for n, (i, j) in enumerate(places):
        ours, theirs = f"block_{n}_" if n else "expanded_conv_", f"blocks.{i}.{j}."
        if n:
            yield from (
                (f"{ours}expand", f"{theirs}conv_pw", "conv"),
                (f"{ours}expand_BN", f"{theirs}bn1", "norm"),
            )
        first = 2 if n else 1
        yield f"{ours}depthwise", f"{theirs}conv_dw", "depthwise"
        yield f"{ours}depthwise_BN", f"{theirs}bn{first}", "norm"
        yield f"{ours}project", f"{theirs}{'conv_pwl' if n else 'conv_pw'}", "conv"
        yield f"{ours}project_BN", f"{theirs}bn{first + 1}", "norm"


def converted(tensors: Any, name: str, kind: str) -> list[Any]:
    """One layer's arrays in Keras' order; a norm's scale absorbs the other epsilon (1e-3 against 1e-5)."""
    import numpy as np

    if kind == "norm":
        scale, shift, mean, variance = (
            tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return [
            scale * np.sqrt((variance + KERAS_EPSILON) / (variance + TIMM_EPSILON)),
            shift,
            mean,
            variance,
        ]
    weight = tensors[f"{name}.weight"]  # (out, in, height, width), depthwise: (channels, 1, height, width)
    return [weight.transpose((2, 3, 0, 1) if kind == "depthwise" else (2, 3, 1, 0))]


if __name__ == "__main__":
    main()
