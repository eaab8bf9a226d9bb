"""What a file says of itself, read within bounds before any decoder runs: one module a family of formats."""
