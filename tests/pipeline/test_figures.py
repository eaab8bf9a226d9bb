"""The figures of a part as `saccade evaluate` says them."""

from __future__ import annotations

import io

from saccade.evaluation.answers import answers
from saccade.evaluation.asking import recommend
from saccade.evaluation.metrics import measure
from saccade.pipeline.result import say_figures
from saccade.terminal import Terminal
from saccade.testing.metrics import example_predictions


def test_the_table_of_figures_names_images_groups_and_intervals() -> None:
    made = example_predictions(60, 3, seed=0)
    stream = io.StringIO()
    groups = {path: f"patient {i // 4}" for i, path in enumerate(made.paths)}
    recommended = recommend(answers(made, groups), 0.2, part="validation")
    measured = measure(made, groups=groups, recommended=recommended)
    say_figures("test", measured, Terminal(stream=stream))
    lines = stream.getvalue().splitlines()
    first, *rows = lines[: lines.index("Answer    only with a confidence of at least")]
    assert first == "Figures   of test, 60 images in 15 groups; 95 % intervals"
    value = measured.accuracy
    assert rows[0].split() == [
        *(
            "Accuracy",
            f"{100 * value.value:.1f}",
            "%",
            f"{100 * value.low:.1f}",
            "to",
            f"{100 * value.high:.1f}",
        )
    ]
    assert len(rows) == 12
    answered = lines[len(rows) + 2 :]
    assert [line.split()[0] for line in answered] == ["0.5", "0.7", "0.9", "0.95", "0.000"]
    assert answered[-1].endswith(recommended.note)
