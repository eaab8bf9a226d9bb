"""Figures out of predictions: metrics, intervals, calibration, diagnosis, comparison. Needs only numpy."""
