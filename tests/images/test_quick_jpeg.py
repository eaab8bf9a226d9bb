"""JPEGs by libjpeg-turbo directly: Pillow's pixels, and Pillow wherever anything is in doubt."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from saccade.errors import ImageError
from saccade.images import decoder as images
from saccade.images import plugins
from saccade.images.decoder import decode, read_header

pytest.importorskip("simplejpeg")


def jpeg(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> images.Decoded:
    with monkeypatch.context() as patch:
        patch.setattr(images, "quick_jpeg", lambda header: None)
        return decode(data)


def quick(data: bytes) -> Any:
    return plugins.quick_jpeg(read_header(data, lambda width, height: None))


@pytest.fixture
def new_decoder() -> Iterator[None]:
    """The choice of a decoder is made anew, and once more after the test."""
    plugins._decoder.cache_clear()
    yield
    plugins._decoder.cache_clear()


@pytest.mark.parametrize("sides", [(1, 1), (8, 8), (33, 17), (200, 301)])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"progressive": True, "quality": 30},
        {"quality": 100, "optimize": True},
        {"restart_marker_blocks": 2},
        {"keep_rgb": True},
    ],
    ids=str,
)
def test_every_kind_has_pillows_pixels(
    sides: tuple[int, int], options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(noise(*sides), **options)
    found = quick(data)
    assert found is not None, "this kind is decoded quickly"
    own = by_pillow(data, monkeypatch)
    assert np.array_equal(found[0], own.pixels)
    assert found[1] == own.mode
    assert np.array_equal(decode(data).pixels, own.pixels)


def test_gray_becomes_three_channels_and_says_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(noise(40, 30).convert("L"))
    found, own = quick(data), by_pillow(data, monkeypatch)
    assert found is not None
    assert np.array_equal(found[0], own.pixels)
    assert found[1] == own.mode == "L"


def test_turned_pictures_are_turned_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(noise(40, 30), exif=exif)
    assert np.array_equal(decode(data).pixels, by_pillow(data, monkeypatch).pixels)
    assert decode(data).pixels.shape == (30, 40, 3)
    assert decode(data).pixels.flags.writeable


def test_cmyk_is_left_to_pillow() -> None:
    assert quick(jpeg(noise(20, 20).convert("CMYK"))) is None


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_has_pillows_words(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(noise(200, 200))
    data = data[: int(share * len(data))]
    assert quick(data) is None
    with pytest.raises(ImageError) as found:
        decode(data)
    with pytest.raises(ImageError) as own:
        by_pillow(data, monkeypatch)
    assert str(found.value) == str(own.value)
    assert "truncated JPEG" in str(found.value)


def test_damage_that_pillow_reads_over_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single bytes changed in the compressed pixels: whatever the outcome, it is Pillow's."""
    sound = jpeg(noise(120, 120), quality=70)
    random = np.random.default_rng(3)
    outcomes = set()
    for place in random.integers(len(sound) // 3, len(sound) - 2, 60).tolist():
        data = bytearray(sound)
        data[place] ^= int(random.integers(1, 256))
        mine, own = outcome(decode, bytes(data)), outcome(lambda b: by_pillow(b, monkeypatch), bytes(data))
        assert mine == own
        outcomes.add(isinstance(mine, str))
    assert outcomes == {True, False}, "some could be read, some not"


def outcome(decoder: Callable[[bytes], images.Decoded], data: bytes) -> str | bytes:
    try:
        return decoder(data).pixels.tobytes()
    except ImageError as error:
        return str(error)


@pytest.mark.usefixtures("new_decoder")
def test_a_decoder_with_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from simplejpeg import decode_jpeg

    other = types.ModuleType("simplejpeg")
    other.decode_jpeg = lambda data, **options: decode_jpeg(data, **{**options, "fastdct": True})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simplejpeg", other)
    assert quick(jpeg(noise(20, 20))) is None


@pytest.mark.usefixtures("new_decoder")
def test_without_simplejpeg_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    data = jpeg(noise(20, 20))
    assert quick(data) is None
    assert decode(data).pixels.shape == (20, 20, 3)


def test_real_photos_and_odd_files_have_pillows_pixels(
    shared_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sorted(shared_data("data/flowers5").rglob("*.jpg"))[::50]
    odd = sorted(p for p in shared_data("data/dirty").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    assert len(photos) >= 20
    assert len(odd) >= 80
    decided = 0
    for path in [*photos, *odd]:
        data = path.read_bytes()
        assert outcome(decode, data) == outcome(lambda b: by_pillow(b, monkeypatch), data), path.name
        decided += isinstance(outcome(decode, data), bytes)
    assert decided >= 60
