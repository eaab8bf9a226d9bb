"""NumPy's .npy files (format 1.0 and 2.0): the header within bounds, then plain numbers; never a pickle."""

from __future__ import annotations

import io
import math
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from saccade.errors import ImageError
from saccade.images.channels import Declared, check_planes
from saccade.images.headers.header import ImageHeader, SizeCheck, damaged, truncated, unsupported

MAGIC = b"\x93NUMPY"
MOST_HEADER_BYTES = 10_000


def read_npy(data: bytes, check_size: SizeCheck, declared: Declared) -> tuple[ImageHeader, NDArray[Any]]:
    """The header, and uint8 or uint16 (height, width, channels) as stored; raises ImageError.

    Shape and type are checked before any number is read, and the file must hold exactly these numbers.
    """
    shape, columns_first, dtype, start = _header(data)
    if dtype.hasobject or dtype.fields is not None:
        raise unsupported("an array of Python objects (a pickle)", "Save plain numbers: uint8 or uint16")
    if len(shape) in (2, 3):
        check_size(shape[1], shape[0])
    check_planes(dtype, shape, declared)
    count = math.prod(shape)
    if len(data) - start < count * dtype.itemsize:
        raise truncated("NPY")
    if len(data) - start > count * dtype.itemsize:
        raise damaged("NPY", "more numbers than its header says")
    stored = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if columns_first else "C")
    planes = stored[..., None] if stored.ndim == 2 else stored
    return ImageHeader("NPY", shape[1], shape[0], b""), planes.astype(dtype.newbyteorder("="), order="C")


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the numbers begin."""
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise unsupported(f"format {version[0]}.{version[1]} of NPY", "Save it with numpy.save")
        shape, fortran, dtype = read(file, max_header_size=MOST_HEADER_BYTES)
    except ImageError:
        raise
    except (ValueError, SyntaxError, TypeError, RecursionError, TokenError):
        raise damaged("NPY", "its header") from None
    return shape, fortran, dtype, file.tell()
