"""Raw answers: float32, evaluation mode, in order, whatever the batches."""

from __future__ import annotations

import numpy as np
import torch

from saccade.runtime import Runtime
from saccade.testing.tiny import TinyData, tiny_classifier
from saccade.training import predict_logits


def test_logits_are_the_networks_own_in_float32_even_where_training_is_bfloat16():
    network, data = tiny_classifier(), TinyData(images=10, batch_size=4)
    logits, labels, paths = predict_logits(network, data.validation(), Runtime.create("cpu", "bfloat16"))
    batches = list(data.validation())
    with torch.no_grad():
        expected = torch.cat([network.eval()(images) for images, _, _ in batches]).numpy()
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert labels.tolist() == torch.cat([targets for _, targets, _ in batches]).tolist()
    assert paths == tuple(path for _, _, names in batches for path in names)


def test_every_part_gets_its_own_mode_back():
    network = tiny_classifier().train()
    network.backbone.eval()
    before = {name: module.training for name, module in network.named_modules()}
    predict_logits(network, TinyData().validation(), Runtime.create("cpu"))
    assert {name: module.training for name, module in network.named_modules()} == before


def test_answers_do_not_depend_on_the_batch_size():
    network, runtime = tiny_classifier(), Runtime.create("cpu")
    found = {}
    for batch_size in (24, 5):
        logits, _, paths = predict_logits(network, TinyData(24, batch_size).validation(), runtime)
        found[batch_size] = dict(zip(paths, logits, strict=True))
    assert len(found[24]) == 24
    for path, values in found[24].items():
        np.testing.assert_allclose(values, found[5][path], atol=1e-6)


def test_no_images_give_no_answers():
    logits, labels, paths = predict_logits(tiny_classifier(), [], Runtime.create("cpu"))
    assert (len(logits), len(labels), paths) == (0, 0, ())


def test_progress_counts_images():
    seen = []
    predict_logits(
        tiny_classifier(),
        TinyData(24, 8).validation(),
        Runtime.create("cpu"),
        progress=lambda done, total, detail="": seen.append((done, total)),
        images=24,
    )
    assert seen == [(8, 24), (16, 24), (24, 24)]
