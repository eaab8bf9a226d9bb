"""KServe's client, in an environment of its own: it wants packages and versions that ours does not."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from saccade.artefact import Artefact

pytestmark = pytest.mark.examples
KSERVE = "kserve==0.21.*"
CLIENT = Path(__file__).with_name("kserve_client.py")
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def kserve_python():
    """An interpreter with KServe's client, made once for a machine; skipped where it cannot be installed."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which makes the environment for KServe's client")
    place = (
        Path(tempfile.gettempdir())
        / f"saccade-kserve-{os.getuid()}-{sys.version_info[0]}.{sys.version_info[1]}"
    )
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes
        if not (place / "ready").exists():
            python = place / "bin" / "python"
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", python, KSERVE]
            done = subprocess.run(install, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"{KSERVE} cannot be installed here: {done.stderr.strip()[:200]}")
            (place / "ready").touch()
    return place / "bin" / "python"


def test_kserves_client(kserve_python, serve_process, model_path, tmp_path, photo):
    model = Artefact.open(model_path)
    np.save(tmp_path / "pixels.npy", PIXELS)
    (tmp_path / "red.png").write_bytes(photo("red"))
    with serve_process(model_path, "--name", "colours") as address:
        command = [kserve_python, CLIENT, f"http://{address}", tmp_path / "pixels.npy", tmp_path / "red.png"]
        home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["another_ready"] is False
    expected = model.probabilities(list(PIXELS))
    for kind in ("json", "binary"):
        assert found[kind]["id"] == "42"
        assert np.abs(np.array(found[kind]["probabilities"]) - expected).max() < 1e-6
    (red,) = found["file"]["probabilities"]
    assert model.classes[int(np.argmax(red))] == "red"
    labels = [[text.split(":")[2] for text in row] for row in found["classes"]["probabilities"]]
    assert labels == [[model.classes[i] for i in np.argsort(-row)] for row in expected]
