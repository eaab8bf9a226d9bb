"""`saccade serve`: one certified model over HTTP; needs the extra `serve`, no torch."""
