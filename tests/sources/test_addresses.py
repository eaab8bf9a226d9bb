"""Addresses of data elsewhere: what is secret of them, and what is said where obstore is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saccade.errors import MissingExtraError, SourceError
from saccade.pipeline.train import identity
from saccade.sources import connections, load_source, remote
from saccade.sources.addresses import address_of, on_loopback, secret_of, without_secrets
from saccade.sources.inputs import given_by
from saccade.sources.tables import Columns

TOLD = "https://me:pa%2Fss@host:8443/a/photos.tar?X-Amz-Signature=0badf00d#x"


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_ADDRESS_SECRETS", "{}")


def test_what_is_secret_is_read_with_and_written_nowhere() -> None:
    assert identity(TOLD) == {"data": "https://host:8443/a/photos.tar"}
    secret = secret_of(without_secrets(TOLD))
    assert (secret.login, secret.query) == ("me:pa%2Fss", "X-Amz-Signature=0badf00d")
    assert secret.headers == {"Authorization": "Basic bWU6cGEvc3M="}  # me:pa/ss
    assert secret_of("https://host:8443/b.tar").login == "me:pa%2Fss"
    assert not any(secret_of("https://other/a/photos.tar"))


def test_the_address_of_a_bucket_has_no_login() -> None:
    with pytest.raises(SourceError, match="AWS_ACCESS_KEY_ID") as caught:
        load_source("s3://AKIAKEY:topsecret@bucket/photos")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("row", ["https://me:topsecret@host/a.jpg", "https://host/a.jpg?sig=topsecret"])
def test_a_list_has_no_secrets(row: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,label\n{row},cat\nhttps://host/b.jpg,dog\n")
    with pytest.raises(SourceError, match="a login or a query") as caught:
        load_source(tmp_path / "list.csv")
    assert "topsecret" not in str(caught.value)
    (given,) = given_by([str(tmp_path / "list.csv")])
    (name, why), _ = given.inputs()
    assert name == "https://host/a.jpg"
    assert "a login or a query" in str(why)
    assert "topsecret" not in str(why)


def test_the_root_of_a_list_may_be_an_address(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nrose/a.jpg,rose\ns3://other/b.jpg,tulip\n")
    dataset = load_source(tmp_path / "list.csv", columns=Columns(root="s3://bucket/photos/"))
    assert address_of(dataset.root) == "s3://bucket/photos"
    assert dataset.storage == remote.RemoteStorage("s3://bucket/photos")
    assert [record.path for record in dataset.records] == ["rose/a.jpg", "s3://other/b.jpg"]
    (given,) = given_by([str(tmp_path / "list.csv")], Columns(root="s3://bucket/photos/"))
    assert [name for name, _ in given.inputs()] == ["s3://bucket/photos/rose/a.jpg", "s3://other/b.jpg"]


def test_plain_http_stays_on_this_machine() -> None:
    assert on_loopback("http://127.0.0.1:9000")
    assert on_loopback("http://localhost/x")
    assert not on_loopback("http://127.0.0.1.example.com")
    assert not on_loopback("http://minio:9000")


def test_http_lists_no_folders() -> None:
    with pytest.raises(SourceError, match="HTTP lists no folders"):
        load_source("https://host/photos")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    connections._connection.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"saccade\[remote\]"):
        load_source("s3://bucket/photos")


def test_a_forked_process_says_that_it_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_connected_by", 1)
    with pytest.raises(
        connections.ForkedError
    ):  # a RuntimeError, with which batches come from threads instead
        remote.RemoteStorage("s3://bucket").read("a.jpg")
