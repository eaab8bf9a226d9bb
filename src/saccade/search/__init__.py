"""`saccade search`: which backbone, method, rate, augmentation and size are best on these images.

space    what is searched, and the recipe of a trial
locks    several processes on one search
study    Optuna's study: asking for trials, and those of killed processes again
ground   what all trials share: divided data, features, costs
trial    one trial through its fidelities: head, tail, full
result   what came out, as plain values
command  the whole
"""

from saccade.search.command import SearchOptions, search

__all__ = ["SearchOptions", "search"]
