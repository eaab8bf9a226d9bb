"""What features of a run's images tell beyond its figures: the analyses of `saccade report RUN --full`.

The figures themselves are made in `evaluation/`, without torch. An analysis here takes them from a run.
"""
