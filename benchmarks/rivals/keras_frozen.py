"""Keras' frozen transfer on TensorFlow: frozen EfficientNet-Lite0, average pooling, Dense 256, dropout 0.5.

Adam 1e-3, 5 epochs, batches of 32, `image_dataset_from_directory` with cache, shuffle and prefetch, as
Keras' guide to transfer learning and TensorFlow's tutorial have it. The given timm weights are put into
a Keras network, layer by layer (`same_features.py` proves it). `--features`: features computed once,
then the same head on them for 30 epochs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from common import arguments, labelled_files, note

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
EPOCHS, FEATURE_EPOCHS, BATCH, SIDE = 5, 30, 32, 224


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
    scaled = images / 127.5 - 1
    model = keras.Model(images, head(classes)(base(scaled, training=False)))
    _fit(asked, model, train.cache().shuffle(1000).prefetch(-1), validation.cache().prefetch(-1), EPOCHS)


def _fit_on_features(asked: Any, base: Any, classes: int, train: Any, validation: Any) -> None:
    import keras
    import tensorflow as tf

    images = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(images / 127.5 - 1))
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
    """EfficientNet-Lite0 in Keras without its top, frozen, holding timm's weights.

    keras.applications has no Lite network, so it is written here after the paper's table: MBConv blocks
    without squeeze-and-excitation, ReLU6, "same" padding (Tan and Le 2019; Lite: Liu 2020).
    """
    import keras
    from safetensors.numpy import load_file

    images = keras.Input((SIDE, SIDE, 3))
    x = _conv(images, "conv_stem", "bn1", 32, 3, 2)
    for stage, (expand, channels, kernel, stride, repeats) in enumerate(LITE0):
        for i in range(repeats):
            x = _block(x, f"blocks.{stage}.{i}.", expand, channels, kernel, stride if i == 0 else 1)
    base = keras.Model(images, _conv(x, "conv_head", "bn2", 1280, 1, 1))
    tensors = load_file(weights)
    for layer in base.layers:
        if layer.weights:
            layer.set_weights(_as_keras(tensors, layer.name.replace("-", ".")))
    base.trainable = False
    return base


# expansion, channels, kernel, stride, repeats of a stage
LITE0 = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)


def _block(x: Any, name: str, expand: int, channels: int, kernel: int, stride: int) -> Any:
    """Expand, depthwise, project; the input is added where its shape is the same."""
    import keras

    inside, n = x, 1
    if expand > 1:
        inside, n = _conv(x, f"{name}conv_pw", f"{name}bn1", expand * x.shape[-1], 1, 1), 2
    inside = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=_named(f"{name}conv_dw")
    )(inside)
    inside = keras.layers.ReLU(6)(_norm(inside, f"{name}bn{n}"))
    last = f"{name}{'conv_pwl' if expand > 1 else 'conv_pw'}"
    inside = _conv(inside, last, f"{name}bn{n + 1}", channels, 1, 1, activation=False)
    return keras.layers.Add()([x, inside]) if stride == 1 and x.shape[-1] == channels else inside


def _conv(
    x: Any, name: str, norm: str, channels: int, kernel: int, stride: int, *, activation: bool = True
) -> Any:
    import keras

    convolution = keras.layers.Conv2D(
        channels, kernel, stride, padding="same", use_bias=False, name=_named(name)
    )
    x = _norm(convolution(x), norm)
    return keras.layers.ReLU(6)(x) if activation else x


def _norm(x: Any, name: str) -> Any:
    import keras

    return keras.layers.BatchNormalization(epsilon=1e-3, name=_named(name))(x)


def _named(timm_name: str) -> str:
    return timm_name.replace(".", "-")


def _as_keras(tensors: Any, name: str) -> list[Any]:
    """One layer's arrays in Keras' order."""
    if f"{name}.running_mean" in tensors:
        return [tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    weight = tensors[f"{name}.weight"]  # (out, in, height, width), depthwise: (channels, 1, height, width)
    return [weight.transpose((2, 3, 0, 1) if "conv_dw" in name else (2, 3, 1, 0))]


if __name__ == "__main__":
    main()
