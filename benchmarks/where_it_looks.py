"""Whether the Grad-CAM maps of runs depend on what was learnt, and how they compare with captum's.

    python benchmarks/where_it_looks.py RUN... [--draws 5]

For each run: the layer, how many maps, the mean rank correlation with maps under weights in random order (one
figure a draw, and its range over images), the largest difference to captum's LayerGradCam on the same images
as a share of the largest value (where captum is installed), and seconds. Exit code 1: a mean is 0.3 or more.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from saccade.insight import saliency
from saccade.insight.grad_cam import Layer, Maps, find_layer, grad_cam, rank_correlations, shuffled
from saccade.insight.judged import judged_answers
from saccade.insight.material import Material
from saccade.models.network import Classifier
from saccade.pipeline.judge import load_model
from saccade.pipeline.reevaluate import data_of
from saccade.run_folder import existing_run
from saccade.terminal import Terminal


def material(path: str) -> Material:
    """A run without features, which maps do not need."""
    run = existing_run(path)
    dataset, bundle = data_of(run), load_model(run)
    records = dataset.used()
    count = len(records)
    return Material(
        run, dataset, run.read_recipe(), records, np.zeros((count, 1), np.float32),
        np.zeros(count, np.int64), np.arange(count), bundle, False, Terminal(quiet=True),
    )  # fmt: skip


def beside_captum(
    network: Classifier, layer: Layer, inputs: torch.Tensor, classes: torch.Tensor, maps: Maps
) -> str:
    """The largest difference of a value, as a share of the largest."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        return "captum is not installed"
    if layer.order != "NCHW":
        return "captum takes channels first only"
    theirs = LayerGradCam(network, network.backbone.get_submodule(layer.name))
    found = theirs.attribute(inputs, target=classes, relu_attributions=True).detach().numpy()[:, 0]
    return f"{float(np.abs(found - maps).max() / maps.max()):.1e} of captum's"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--draws", type=int, default=5)
    asked = parser.parse_args()
    means = []
    for path in asked.runs:
        of_run = material(path)
        judged = judged_answers(of_run)
        assert judged is not None, f"{path} has no answers"
        chosen = saliency.chosen_answers(judged)
        network = of_run.bundle.module
        assert isinstance(network, Classifier), f"{path} is several networks"
        network.eval()
        inputs = saliency.inputs_of(of_run, judged, chosen)
        classes = torch.from_numpy(judged.predictions.probabilities[chosen].argmax(axis=1))
        began = time.monotonic()
        layer = find_layer(network, inputs[:1])
        assert layer is not None, f"{path} keeps no map of places"
        maps = grad_cam(network, layer, inputs, classes)
        took = time.monotonic() - began
        draws = [
            rank_correlations(maps, grad_cam(shuffled(network, seed), layer, inputs, classes))
            for seed in range(asked.draws)
        ]
        together = np.concatenate(draws)
        means.append(float(together.mean()))
        low, high = np.quantile(together, (0.05, 0.95))
        print(
            f"{path}: {of_run.bundle.architecture['backbone']}, layer {layer.name} ({layer.order}, "
            f"{layer.grid[0]} x {layer.grid[1]}), {len(maps)} maps in {took:.1f} s\n"
            f"  rank correlation under random weights: {means[-1]:.3f} (5 to 95 % of maps: {low:.2f} to "
            f"{high:.2f}; draws: {', '.join(f'{draw.mean():.3f}' for draw in draws)})\n"
            f"  {beside_captum(network, layer, inputs, classes, maps)}"
        )
    return int(max(means) >= saliency.LIMIT)


if __name__ == "__main__":
    sys.exit(main())
