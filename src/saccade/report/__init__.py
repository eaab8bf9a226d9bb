"""One self-contained HTML page out of a run folder. No model, no GPU, no torch, no network."""
