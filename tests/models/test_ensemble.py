"""Several networks as one give the mean of their probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from saccade.answer import Answer
from saccade.errors import ModelError
from saccade.models import build_model, rebuild
from saccade.models.ensemble import Ensemble


class Fixed(nn.Module):
    """Answers with the same logits to every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_activation_gives_the_mean_of_probabilities(activation: str) -> None:
    logits = [[2.0, -1.0, 0.5], [-40.0, 3.0, 60.0]]
    answers = [Answer(activation, (2.0,)), Answer(activation, (1.0, 0.5, 3.0), (0.1, 0.0, -0.2))]  # type: ignore[arg-type]
    ensemble = Ensemble([Fixed(values) for values in logits], answers)
    found = Answer(activation).probabilities(ensemble(torch.zeros(2, 3, 4, 4)).detach().numpy())  # type: ignore[arg-type]
    expected = np.mean(
        [answer.probabilities([values])[0] for answer, values in zip(answers, logits, strict=True)], axis=0
    )
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_an_ensemble_is_rebuilt_from_plain_values() -> None:
    built = build_model("small_cnn", 3, image_size=16)
    members = [Answer("softmax", (1.5,)).as_json(), Answer().as_json()]
    architecture = json.loads(json.dumps({**built.architecture, "members": members}))
    again = rebuild(architecture)
    assert isinstance(again, Ensemble)
    assert [answer.temperatures for answer in again.answers] == [(1.5,), (1.0,)]
    assert again.eval()(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    for members in ([], "two", [{}] * 200):
        with pytest.raises(ModelError):
            rebuild({**built.architecture, "members": members})
