"""The page for people, which the server shows and `saccade export --format web` writes."""
