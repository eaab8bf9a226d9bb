"""HEIC, AVIF and JPEG XL: what phones write, through the same decoder as everything else."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.audit.scan import scan
from saccade.errors import ImageError
from saccade.images import plugins
from saccade.images.decoder import Decoded, Limits, decode, upright
from saccade.sources import load_source

pillow_heif = pytest.importorskip("pillow_heif")
pillow_jxl = pytest.importorskip("pillow_jxl")

Pixels = NDArray[np.uint8]


def smooth(height: int = 48, width: int = 64) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    channels = [40 + 160 * x / width, 200 - 150 * y / height, 60 + 120 * (x + y) / (height + width)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def exif(orientation: int, model: str = "") -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    if model:
        block[0x0110] = model
    return block.tobytes()


def heic(image: Image.Image | Pixels, *, more: Image.Image | None = None, **options: object) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = pillow_heif.from_pillow(picture)
    if more is not None:
        file.add_from_pillow(more)
    buffer = io.BytesIO()
    file.save(buffer, quality=95, chroma=444, **options)
    return buffer.getvalue()


def deep_heic(mode: str, pixels: Pixels) -> bytes:
    wide = (pixels.astype(np.uint16) * 257).tobytes()
    file = pillow_heif.from_bytes(mode=mode, size=pixels.shape[1::-1], data=wide)
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, matrix_coefficients=0 if mode.startswith("RGB") else 1)
    return buffer.getvalue()


def saved(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def avif(image: Image.Image | Pixels, **options: object) -> bytes:
    return saved(image, "AVIF", quality=95, subsampling="4:4:4", **options)


def jxl(image: Image.Image | Pixels, **options: object) -> bytes:
    return saved(image, "JXL", effort=1, **options)


def away(decoded: Decoded, expected: Pixels) -> int:
    assert decoded.pixels.shape == expected.shape
    return int(np.abs(decoded.pixels.astype(int) - expected).max())


def refusal(data: bytes, limits: Limits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, limits=limits or Limits())
    return caught.value


# --- upright, once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("write", [heic, avif])
def test_a_photo_is_turned_once(write: Callable[..., bytes], orientation: int) -> None:
    """The encoders write irot and imir beside the EXIF orientation, or instead of it."""
    data = write(smooth(), exif=exif(orientation))
    assert (b"irot" in data or b"imir" in data) is (orientation != 1)
    assert away(decode(data), upright(smooth(), orientation)) <= 6
    hidden = decode(data.replace(b"Exif", b"xxxx"))
    assert np.array_equal(hidden.pixels, decode(data).pixels)


def test_exif_alone_turns_no_heic_and_that_is_noted() -> None:
    data = heic(smooth(), exif=exif(6)).replace(b"irot", b"free")
    decoded = decode(data)
    assert away(decoded, smooth()) <= 6
    assert decoded.notes == ("EXIF orientation 6 not applied: HEIC files turn by properties",)


def test_a_jpeg_inside_a_jpeg_xl_is_that_jpeg(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(saved(smooth(), "JPEG", exif=exif(6, "Phone 1"), quality=90))
    with Image.open(file) as image:
        packed = saved(image, "JXL", lossless_jpeg=True)
    decoded = decode(packed, name="a.jxl")
    assert np.array_equal(decoded.pixels, decode(file.read_bytes()).pixels)
    assert (decoded.format, decoded.camera, decoded.notes) == ("JXL", "Phone 1", ())


def test_jpeg_xl_gives_its_pixels_back() -> None:
    for picture in (smooth(), smooth()[:, :, 0]):
        expected = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        for container in (False, True):
            data = jxl(picture, lossless=True, use_container=container, exif=exif(6) if container else None)
            decoded = decode(data)
            assert np.array_equal(decoded.pixels, expected)
            assert decoded.notes == ()


# --- what is said -------------------------------------------------------------------------------------


def test_camera_and_a_wrong_name_are_told() -> None:
    decoded = decode(heic(smooth(), exif=exif(1, "iPhone 14")), name="IMG_0001.JPG")
    assert (decoded.camera, decoded.format) == ("iPhone 14", "HEIF")
    assert decoded.notes == ("a HEIC named .JPG",)
    for name in ("a.HEIC", "a.heif", "a.HIF"):
        assert decode(heic(smooth()), name=name).notes == ()
    assert decode(jxl(smooth()), name="a.png").notes == ("a JPEG XL named .png",)
    assert decode(avif(smooth(), exif=exif(1, "Pixel 9"))).camera == "Pixel 9"


@pytest.mark.parametrize(
    ("mode", "pixels"), [("RGB;16", smooth()), ("I;16", np.ascontiguousarray(smooth()[:, :, 0]))]
)
def test_ten_bits_are_reduced_to_eight(mode: str, pixels: Pixels) -> None:
    decoded = decode(deep_heic(mode, pixels))
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    assert away(decoded, expected) <= 1
    assert decoded.notes == ("10 bits a channel reduced to 8",)
    assert decoded.gray_peak == -1


def test_the_range_of_other_files_is_not_applied_to_ten_bits() -> None:
    pixels = np.ascontiguousarray(smooth()[:, :, 0])
    data = deep_heic("I;16", pixels)
    assert np.array_equal(decode(data, limits=Limits(gray_maximum=1023)).pixels, decode(data).pixels)


def test_the_primary_of_several_pictures_is_used() -> None:
    turned = Image.fromarray(np.ascontiguousarray(smooth()[::-1, ::-1]))
    decoded = decode(heic(smooth(), more=turned, primary_index=1))
    assert away(decoded, np.asarray(turned)) <= 6
    assert decoded.notes == ("several pictures in one file; the primary one used",)


def test_the_first_frame_of_an_animated_avif_is_used() -> None:
    other = Image.fromarray(np.ascontiguousarray(smooth()[::-1, ::-1]))
    decoded = decode(avif(smooth(), save_all=True, append_images=[other]))
    assert away(decoded, smooth()) <= 6
    assert decoded.notes == ("an animation; its first frame used",)


@pytest.mark.parametrize("write", [heic, avif, jxl])
def test_transparency_lies_on_the_background(write: Callable[..., bytes]) -> None:
    image = Image.fromarray(smooth())
    image.putalpha(0)
    decoded = decode(write(image), limits=Limits(background=(10, 200, 30)))
    assert away(decoded, np.full((48, 64, 3), (10, 200, 30), np.uint8)) <= 1
    assert decoded.notes == ("transparent pixels laid on the background",)
    image.putalpha(255)
    assert decode(write(image)).notes == ()


def test_wide_colours_and_high_dynamic_range_are_noted_and_not_applied() -> None:
    data = heic(smooth())
    plain = b"nclx\0\1\0\r"  # BT.709 primaries, the curve of sRGB
    assert data.count(plain) == 1
    other = decode(data.replace(plain, b"nclx\0\x0c\0\x10"))
    assert np.array_equal(other.pixels, decode(data).pixels)
    assert other.notes == (
        "colour profile 'Display P3' not applied",
        "high dynamic range (PQ) taken as it is stored",
    )
    icc = b"\0\0\1\0" + bytes(32) + b"broken"
    assert decode(heic(smooth(), icc_profile=icc)).notes == ("broken colour profile ignored",)


# --- limits and damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [heic, avif, jxl])
def test_too_many_pixels_are_refused_before_the_decoder_sees_them(
    write: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(smooth())

    def opened(*_: object) -> None:
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr("saccade.images.decoder.open_with_plugin", opened)
    assert "more than the limit of 1,000" in refusal(data, Limits(max_pixels=1000)).reason


def test_a_picture_that_is_larger_than_it_says_is_refused() -> None:
    data = heic(smooth(256, 256))
    size = data.index(b"ispe") + 8
    lying = data[:size] + (16).to_bytes(4, "big") * 2 + data[size + 8 :]
    assert refusal(lying).reason == "damaged HEIC: its compressed pixels cannot be read"


@pytest.mark.parametrize(
    ("write", "kind"), [(heic, "HEIC"), (avif, "AVIF"), (jxl, "JPEG XL")], ids=["heic", "avif", "jxl"]
)
def test_cut_anywhere_a_file_is_named_as_cut_or_damaged(write: Callable[..., bytes], kind: str) -> None:
    options = {"use_container": True} if kind == "JPEG XL" else {}
    data = write(smooth(), exif=exif(6), **options)
    ends = [16, 30, 40, 100, 200, len(data) // 2, len(data) - 1]
    reasons = [refusal(data[:end]).reason for end in ends]
    assert [reason for reason in reasons if kind not in reason] == []
    assert reasons.count(f"truncated {kind}") >= 5


def test_a_bare_code_stream_that_is_cut_is_named() -> None:
    data = jxl(smooth())
    for end in (3, 40, len(data) // 2, len(data) - 1):
        assert "JPEG XL" in refusal(data[:end]).reason


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 20), (17, 5)])
@pytest.mark.parametrize("write", [heic, avif, jxl])
def test_odd_sizes(write: Callable[..., bytes], size: tuple[int, int]) -> None:
    decoded = decode(write(Image.fromarray(smooth()).resize(size)))
    assert (decoded.width, decoded.height) == size


def test_an_extreme_shape_is_set_aside() -> None:
    assert "extreme shape: 1 x 30" in refusal(heic(Image.new("RGB", (1, 30)))).reason


def test_bytes_that_a_phone_writes_behind_are_noted() -> None:
    assert decode(heic(smooth()) + b"SEFT" * 30).notes == ("120 bytes after the end of the picture ignored",)


def test_an_animated_jpeg_xl_is_refused() -> None:
    """libjxl gives the last frame of one; the header is written by hand, since the plugin writes none."""
    bits = "1" + "10100" + "110"  # divisible by 8, height 8 * 6, ratio 3: 4:3
    bits += (
        "0" + "1" + "000" + "0" + "0" + "1"
    )  # not all default, extra fields: upright, no preview, animated
    value = sum(int(bit) << place for place, bit in enumerate(bits))
    error = refusal(b"\xff\x0a" + value.to_bytes(8, "little"))
    assert error.reason == "unsupported: an animated JPEG XL"


# --- packages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "write", "words"),
    [
        ("pillow_heif", heic, ("a HEIC photo needs the package pillow-heif", "saccade[photos]")),
        ("pillow_jxl", jxl, ("a JPEG XL file needs the package pillow-jxl-plugin", "saccade[jxl]")),
    ],
)
def test_without_its_package_a_photo_names_it(
    module: str, write: Callable[..., bytes], words: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(smooth())
    monkeypatch.setitem(sys.modules, module, None)
    plugins._plugin.cache_clear()
    try:
        error = refusal(data)
    finally:
        plugins._plugin.cache_clear()
    assert error.reason == f"unsupported: {words[0]}, which is not installed"
    assert words[1] in error.remedy


def test_no_package_is_imported_or_registered_before_its_format_comes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(smooth(), "JPEG"))
    (tmp_path / "a.heic").write_bytes(heic(smooth()))
    program = (
        "import sys; from pathlib import Path; from PIL import Image; import saccade\n"
        "from saccade.images.decoder import decode\n"
        "here = lambda: [name for name in ('pillow_heif', 'pillow_jxl') if name in sys.modules]\n"
        "decode(Path(sys.argv[1], 'a.jpg').read_bytes()); print(here())\n"
        "decode(Path(sys.argv[1], 'a.heic').read_bytes()); print(here())\n"
        "Image.init(); print('HEIF' in Image.OPEN)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["[]", "['pillow_heif']", "False"]


def test_a_folder_of_phone_photos_is_scanned_by_worker_processes(tmp_path: Path) -> None:
    for kind in ("Gänseblümchen", "Löwenzahn"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            (tmp_path / kind / f"IMG_{number}.HEIC").write_bytes(heic(smooth(40 + number, 64), exif=exif(6)))
        (tmp_path / kind / "a.JXL").write_bytes(jxl(smooth()))
        (tmp_path / kind / "a.Avif").write_bytes(avif(smooth()))
        (tmp_path / kind / "IMG_9.jpg").write_bytes(heic(smooth()))
        (tmp_path / kind / "IMG_8.HIF").write_bytes(heic(smooth())[:300])
        (tmp_path / kind / "IMG_0.AAE").write_text("edits")
        (tmp_path / kind / "IMG_0.MOV").write_bytes(b"film")
    scanned = scan(load_source(tmp_path), workers=2).dataset
    notes = {record.path.rpartition("/")[2]: record.note for record in scanned.records}
    assert notes["IMG_9.jpg"] == "a HEIC named .jpg"
    assert notes["IMG_8.HIF"].startswith("truncated HEIC. Left out.")
    assert len(scanned.used()) == 10
    assert scanned.lost == ()
    assert {record.note for record in scanned.used()} == {"", "a HEIC named .jpg"}


def test_phone_photos_in_archives_shards_and_tables(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    photos = [heic(smooth(30 + number, 40), exif=exif(6)) for number in range(4)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, data in enumerate(photos):
            archive.writestr(f"{'ab'[number % 2]}/IMG_{number}.HEIC", data)
    with tarfile.open(tmp_path / "shard-000.tar", "w") as shard:
        for number, data in enumerate(photos):
            for name, content in ((f"{number}.heic", data), (f"{number}.cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    images = [{"bytes": data, "path": None} for data in photos]
    table = pyarrow.table({"image": images, "label": ["a", "b", "a", "b"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    for name in ("a.zip", "shard-000.tar", "a.parquet"):
        used = scan(load_source(tmp_path / name), workers=1).dataset.used()
        assert [(record.width, record.height) for record in used] == [
            (30 + number, 40) for number in ((0, 2, 1, 3) if name == "a.zip" else range(4))
        ], name
