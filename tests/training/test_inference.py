"""Raw answers: float32, evaluation mode, in order, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.errors import TrainingError
from saccade.features.engines import torch_engine
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


def with_memory_for(network, most):
    """The network, out of memory for more than `most` images at once; the list of what it was asked."""
    asked = []

    def look(module, inputs):
        asked.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (not really)")

    network.register_forward_pre_hook(look)
    return network, asked


def test_a_batch_too_large_for_the_memory_is_answered_in_pieces():
    data, runtime = TinyData(20, 10), Runtime.create("cpu")
    expected, _, paths = predict_logits(tiny_classifier(), data.validation(), runtime)
    network, asked = with_memory_for(tiny_classifier(), 3)
    logits, _, same_paths = predict_logits(network, data.validation(), runtime)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert same_paths == paths
    assert asked == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1], "the second batch begins with what fitted"


def test_one_image_too_large_for_the_memory_is_said():
    network, asked = with_memory_for(tiny_classifier(), 0)
    with pytest.raises(TrainingError, match=r"out of memory: 1 image at once on cpu\nhint: use a smaller"):
        predict_logits(network, TinyData(4, 4).validation(), Runtime.create("cpu"))
    assert asked == [4, 2, 1]


def test_other_errors_of_an_answer_are_raised_as_they_are():
    network = tiny_classifier()
    network.head = torch.nn.Linear(5, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict_logits(network, TinyData().validation(), Runtime.create("cpu"))


def test_features_that_need_too_much_memory_are_computed_in_pieces():
    backbone, asked = with_memory_for(tiny_classifier().backbone, 2)
    images, runtime = torch.randn(5, 3, 8, 8), Runtime.create("cpu")
    expected = torch_engine(tiny_classifier().backbone, runtime)(images)
    torch.testing.assert_close(torch_engine(backbone, runtime)(images), expected, atol=1e-6, rtol=0)
    assert asked == [5, 3, 2, 2, 1]
