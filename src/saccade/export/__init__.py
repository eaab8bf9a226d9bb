"""From a trained bundle to one file that predicts the same everywhere: write, quantize, certify, time."""
