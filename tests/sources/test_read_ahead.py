"""Objects are read a few at a time wherever many images are wanted."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.features.compute import Images
from saccade.images.decoder import Limits
from saccade.pipeline.evidence import WatchedStorage
from saccade.predict.inputs import begun, pixels_of
from saccade.preprocess import Preprocess
from saccade.records import ImageRecord, Storage
from saccade.sources.remote import LinkedStorage, RemoteStorage
from saccade.sources.storage import FolderStorage, Stored

NAMES = [f"{number}.png" for number in range(12)]


class Reads:
    """How many objects were read, and how many at once at most."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        file = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
        self.image = file.getvalue()

    def read(self, storage: Storage, path: str) -> bytes:
        with self.lock:
            self.paths.append(path)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        return self.image


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads = Reads()
    monkeypatch.setattr(RemoteStorage, "read", lambda storage, path: reads.read(storage, path))
    return reads


def features_input(storage: Storage, names: Sequence[str]) -> None:
    images = Images(storage, tuple(map(ImageRecord, names, "a" * len(names))), Preprocess(8), Limits(), True)
    assert images.inputs(range(len(names))).shape == (len(names), 3, 8, 8)


def test_features_and_answers_wait_for_several_objects_at_once(reads: Reads, tmp_path: Path) -> None:
    bucket = RemoteStorage("s3://bucket/photos")
    watched = WatchedStorage.of(bucket, NAMES[:1])
    features_input(watched, NAMES)
    assert reads.most > 2
    assert sorted(reads.paths) == sorted(NAMES)
    assert watched.looked_at == ("0.png",)
    reads.most = 0
    features_input(LinkedStorage(FolderStorage(tmp_path)), [f"s3://bucket/{name}" for name in NAMES])
    assert reads.most > 2
    reads.most = 0
    asked = begun([(name, Stored(RemoteStorage("s3://bucket/photos"), name)) for name in (*NAMES, NAMES[0])])
    found = [pixels_of(name, content, Limits()) for name, content in asked]
    assert reads.most > 2
    assert all(isinstance(pixels, np.ndarray) for pixels in found)  # also of the one that is named twice
