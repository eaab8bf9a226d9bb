"""What the Dockerfile says can be checked without Docker; `benchmarks/container.py` carries its steps out."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def container():
    """The script beside the tests, which is no part of what is installed."""
    spec = importlib.util.spec_from_file_location("container", ROOT / "benchmarks" / "container.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_copies_what_is_there_and_not_ignored(container):
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    names = container.copied(TEXT)
    assert {"src", "pyproject.toml", "constraints.txt"} <= set(names)
    for name in names:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored
    assert ignored[1] == "*"  # nothing else: no run, no photo, no secret


def test_it_installs_the_server_without_torch(container):
    assert '"/source[serve]"' in container.run_step(TEXT)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert len(extras["serve"]) > 3
    assert not [name for name in extras["serve"] if re.match("torch|timm|onnx|saccade", name)]


def test_it_runs_as_nobody_and_says_how_it_is():
    last = TEXT[TEXT.rindex("FROM ") :]
    user = re.search(r"^USER (\d+):\d+$", last, re.M)
    assert user
    assert int(user[1]) > 0
    assert "/v2/health/ready" in re.search(r"^HEALTHCHECK.*\n.*$", last, re.M)[0]
    assert "slim" in last.splitlines()[0]


def test_its_command_is_one_of_ours(container, tmp_path, capsys):
    """It gets as far as the token, which is not there."""
    from saccade.cli import main

    words = [*container.list_of(TEXT, "ENTRYPOINT"), *container.list_of(TEXT, "CMD")]
    assert words.pop(0) == "saccade"
    missing = str(tmp_path / "token")
    assert main([missing if word == "/run/secrets/token" else word for word in words]) == 2
    assert "--token-file cannot be read" in capsys.readouterr().err
