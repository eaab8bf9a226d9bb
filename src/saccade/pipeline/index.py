"""`saccade index`: a manifest of the images below a folder or an address."""

from __future__ import annotations

from pathlib import Path

from saccade.errors import SourceError
from saccade.sources.addresses import without_secrets
from saccade.sources.indexing import Indexed, write_index
from saccade.terminal import Terminal, counted

SHOWN = 12


def index(location: str, terminal: Terminal, *, out: str, hashes: bool = False) -> Indexed:
    """Write the manifest `out`, or bring it up to date. Raises SourceError.

    hashes: with the SHA-256 of each image, for which what is new or changed is read.
    """
    target = Path(out)
    if target.suffix.lower() != ".parquet" or target.is_dir():
        raise SourceError(
            f"--out {out} is not the name of a .parquet file", hint="give a name that ends in .parquet"
        )
    existed = target.exists()
    with terminal.progress("listing") as progress:
        indexed = write_index(without_secrets(location), target, hashes=hashes, progress=progress)
    _say(indexed, terminal, compared=existed, hashes=hashes)
    terminal.say(f"Written   {out}")
    return indexed


def _say(indexed: Indexed, terminal: Terminal, *, compared: bool, hashes: bool) -> None:
    classes = sorted(indexed.classes.items())
    listed = ", ".join(f"{label} {count:,}" for label, count in classes[:SHOWN])
    more = f" and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
    named = f" in {counted(len(classes), 'class', 'classes')} ({listed}{more})" if classes else ", no classes"
    terminal.say(f"Index     {counted(indexed.rows, 'image')} of {indexed.root}{named}")
    if indexed.without_class and classes:
        images = counted(indexed.without_class, "image")
        terminal.say(f"          {images} beside the class folders: without a class, so no data to train on")
    if compared:
        terminal.say(
            f"          {indexed.unchanged:,} unchanged, {indexed.new:,} new, {indexed.changed:,} changed, "
            f"{indexed.gone:,} gone since the manifest was written"
        )
    if hashes:
        terminal.say(f"          {counted(indexed.read, 'image')} read for the SHA-256")
    if indexed.unread:
        terminal.say(f"          {len(indexed.unread):,} cannot be read: {'; '.join(indexed.unread[:3])}")
    if indexed.passed_over:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(indexed.passed_over.items()))
        terminal.say(f"          passed over: {kinds}")
