"""Archives that lie about themselves end in words, whatever their headers claim."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from saccade.errors import ImageError, SourceError
from saccade.sources.archive_index import archive_index, read_member


def tar_with(headers: dict[str, str], *, size: int = 4) -> bytes:
    """A tar whose only member has these extended (pax) headers."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("cat/a.jpg")
        info.size, info.pax_headers = size, headers
        archive.addfile(info, io.BytesIO(b"x" * size))
    return file.getvalue()


def raw_pax(record: bytes) -> bytes:
    """A tar whose extended header holds these bytes, unchecked."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, content in (("h", tarfile.XHDTYPE, record), ("cat/a.jpg", tarfile.REGTYPE, b"xxxx")):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


TARS = {
    "a size that is no number": tar_with({"size": "many"}),
    "a negative size": tar_with({"size": "-5"}),
    "a size beyond the file": tar_with({"size": "999999999999"}),
    "a size of thousands of digits": tar_with({"size": "9" * 5000}),
    "a sparse map that is none": tar_with({"GNU.sparse.map": "x,y", "GNU.sparse.size": "9"}),
    "a sparse file without a map": tar_with({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    "a sparse size that is no number": tar_with({"GNU.sparse.size": "x", "GNU.sparse.map": "0,1"}),
    "a time that is none": tar_with({"mtime": "yesterday"}),
    "an empty name": tar_with({"path": ""}),
    "a name that leads out": tar_with({"path": "../../a.jpg"}),
    "a record of length 0": raw_pax(b"0 a=b\n"),
    "a record longer than the header": raw_pax(b"999999999 a=b\n"),
    "a record without an end": raw_pax(b"12 size=9999"),
    "a record without a key": raw_pax(b"5 =\n"),
    "a record without a number": raw_pax(b"size=9\n"),
    "a length of thousands of digits": raw_pax(b"9" * 5000 + b" a=b\n"),
}


def read_all(path: Path) -> str:
    """What is said of the archive or of its first bad member; "" where all of it is read, in bounds."""
    try:
        for member in archive_index(str(path)).files:
            assert len(read_member(str(path), member, 1000)) <= 1000
    except (SourceError, ImageError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", TARS)
def test_a_tar_whose_headers_lie_is_refused_or_read_within_its_bounds(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(TARS[name])
    said = read_all(tmp_path / "a.tar")
    assert "defect" not in said
    assert "\n" not in said.partition("\nhint: ")[0]


def zip_with(place: int, value: bytes) -> bytes:
    """A zip with other bytes in its directory entry."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/a.jpg", b"xxxx")
    data = bytearray(file.getvalue())
    start = data.index(b"PK\x01\x02") + place
    data[start : start + len(value)] = value
    return bytes(data)


ZIPS = {
    "an offset beyond the file": zip_with(42, struct.pack("<I", 2**31)),
    "a size of 4 GB": zip_with(24, struct.pack("<I", 2**32 - 2)),
    "a packed size of 4 GB": zip_with(20, struct.pack("<I", 2**32 - 2)),
    "an unknown method": zip_with(10, struct.pack("<H", 99)),
    "a later version": zip_with(6, struct.pack("<H", 999)),
    "a name longer than the directory": zip_with(28, struct.pack("<H", 65535)),
    "an extra field longer than the directory": zip_with(30, struct.pack("<H", 65535)),
}


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_whose_directory_lies_is_refused_or_read_within_its_bounds(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(ZIPS[name])
    said = read_all(tmp_path / "a.zip")
    assert bool(said) is not name.endswith("longer than the directory")  # read as far as they go
