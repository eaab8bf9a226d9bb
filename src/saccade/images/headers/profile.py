"""Colour profiles: looked at, never applied.

Pretrained networks were trained on pixels taken as they are stored, and an answer must not depend
on the version of a colour engine; so a profile other than sRGB is noted, and pixels stay as they are.
"""

from __future__ import annotations

import struct

from saccade.images.headers.header import clean_text

_HEADER_BYTES = 128
_MOST_TAGS = 200


def profile_note(profile: bytes) -> tuple[str, ...]:
    """A note for a profile that is broken or not sRGB; nothing for none and for sRGB."""
    if not profile:
        return ()
    try:
        name = _description(profile)
    except (ValueError, struct.error):
        return ("broken colour profile ignored",)
    if "srgb" in name.lower():
        return ()
    return (f"colour profile {name!r} not applied" if name else "colour profile without a name not applied",)


def _description(profile: bytes) -> str:
    """The name in an ICC profile (ICC.1:2022, 7.2 and 9.2.41); raises ValueError where it is broken."""
    size, tags = struct.unpack_from(">I", profile)[0], struct.unpack_from(">I", profile, _HEADER_BYTES)[0]
    if profile[36:40] != b"acsp" or not _HEADER_BYTES < size <= len(profile) or tags > _MOST_TAGS:
        raise ValueError("not a profile")
    for number in range(tags):
        signature, offset, length = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * number)
        if offset + length > size:
            raise ValueError("a tag lies outside the profile")
        if signature == b"desc":
            return _text(profile[offset : offset + length])
    return ""


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc":  # version 2: ASCII with its length
        length = struct.unpack_from(">I", tag, 8)[0]
        return clean_text(tag[12 : 12 + length])
    if tag[:4] == b"mluc":  # version 4: the first of several languages, UTF-16
        length, offset = struct.unpack_from(">II", tag, 20)
        text = tag[offset : offset + length].decode("utf-16-be", "replace")
        return clean_text(text.encode("latin-1", "ignore"))
    raise ValueError("no description")
