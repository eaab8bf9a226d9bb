"""From a trained bundle to one file that answers the same everywhere: write, reduce, certify, time."""
