"""From files to pixels, records, findings and parts; nothing in here imports torch."""
