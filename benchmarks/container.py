"""The Dockerfile without Docker: its own steps in a folder, and the server on a read-only file system.

    python -m benchmarks.container runs/photos/export/model.onnx photos/tulips/1.jpg --python /usr/bin/python3

The files that the Dockerfile copies are copied (what `.dockerignore` hides is not there), its RUN step is run
with another folder in place of /opt/saccade, and its ENTRYPOINT is started there. As root on Linux that
happens as user 10001 in a mount namespace whose root is read-only, else in a folder that nobody may write to.
What only Docker can show stays open: the base image, and the isolation.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
USER = 10001
ABSENT = ("torch", "torchvision", "timm", "onnx", "scipy", "sklearn", "pip")
INSIDE = """
mount --make-rprivate / && mount --rbind / {root} && mount -o remount,bind,ro {root}
exec chroot {root} setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set -all \\
  sh -c '! touch /tmp/x 2>/dev/null || exit 3; cd / && exec "$@"' -- "$@"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.container", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model.onnx")
    parser.add_argument("photo", type=Path, help="an image to ask about")
    parser.add_argument("--python", default=sys.executable, help="as root: one that user 10001 may run")
    parser.add_argument("--idle", type=float, default=5, help="seconds before memory is read")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saccade-container-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        environment = build(place, asked.python)
        print(f"installed: {size_mb(environment):.0f} MB; not in it: {', '.join(absent(environment))}")
        print(json.dumps(serve(place, environment, asked.model, asked.photo, asked.idle), indent=2))


def build(place: Path, python: str) -> Path:
    """The environment that the Dockerfile's first stage makes."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    for name in copied(text):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        (place / "source").mkdir(exist_ok=True)
        copy(ROOT / name, place / "source" / name)
    environment = place / "saccade"
    step = run_step(text).replace("/opt/saccade", str(environment)).replace("/source", str(place / "source"))
    began = time.monotonic()
    subprocess.run(["sh", "-ec", step.replace("python -m venv", f"{python} -m venv")], check=True)
    print(f"its RUN step: {time.monotonic() - began:.0f} s, with {python}")
    return environment


def copied(dockerfile: str) -> list[str]:
    """Names that its COPY lines take from the build context."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
    return [name for line in lines for name in line.split()]


def run_step(dockerfile: str) -> str:
    """The shell command of its one RUN."""
    (step,) = re.findall(r"^RUN ((?:.*\\\n)*.*)$", dockerfile, re.M)
    return step


def list_of(dockerfile: str, name: str) -> list[str]:
    """The words of its ENTRYPOINT or CMD."""
    found = re.search(rf"^{name} (\[.*\])$", dockerfile, re.M)
    assert found is not None, name
    words: list[str] = json.loads(found[1])
    return words


def absent(environment: Path) -> list[str]:
    """Packages that are not installed; raises SystemExit where one of them is."""
    words = f"import importlib.util as u; print(*[n for n in {ABSENT} if u.find_spec(n)])"
    done = subprocess.run(
        [environment / "bin" / "python", "-c", words], text=True, capture_output=True, check=True
    )
    if found := done.stdout.split():
        raise SystemExit(f"installed, but not needed: {', '.join(found)}")
    return list(ABSENT)


def serve(place: Path, environment: Path, model: Path, photo: Path, idle: float) -> dict[str, object]:
    """What the server did and took."""
    token, port = secrets.token_urlsafe(24), free_port()
    given = place / "model"
    shutil.copytree(model.parent, given)
    (place / "token").write_text(token)
    words = list_of((ROOT / "Dockerfile").read_text("utf-8"), "ENTRYPOINT")
    replaced = {"saccade": str(environment / "bin" / "saccade"), "/run/secrets/token": str(place / "token")}
    replaced |= {"8000": str(port), "0.0.0.0": "127.0.0.1"}
    command = [replaced.get(word, word) for word in words] + [str(given / model.name), "--name", "photos"]
    began = time.monotonic()
    with read_only(place, command) as process:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/v2/health/ready", process)
        ready = time.monotonic() - began
        pid = listening_pid(port)
        spent = cpu_seconds(pid)
        time.sleep(idle)
        before = rss_mb(pid)
        headers = {"Authorization": f"Bearer {token}"}
        answer = urlopen(Request(f"{address}/predict", data=photo.read_bytes(), headers=headers), timeout=10)
        found = {
            "ready after s": round(ready, 2),
            "of it CPU s": round(spent, 2),
            "idle MB": round(before),
            "answer": json.load(answer)[:2],
            "MB after it": round(rss_mb(pid)),
            "user": os.stat(f"/proc/{pid}").st_uid,
        }
        os.kill(pid, signal.SIGTERM)
        found["exit code after SIGTERM"] = process.wait(15)
    return found


@contextlib.contextmanager
def read_only(place: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start `command` where it can write to nothing."""
    (place / "root").mkdir()
    if os.geteuid() == 0:
        script = INSIDE.format(root=place / "root", user=USER)
        command = ["unshare", "--mount", "sh", "-ec", script, "--", *command]
        print(f"user {USER}, read-only root")
    else:
        place.joinpath("root").chmod(0o555)
        print("a home that nobody may write to (run as root for a read-only root)")
    settings = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=settings, cwd=place / "root", stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError):
            urlopen(url, timeout=1).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"the server ended with code {process.returncode}")


def listening_pid(port: int) -> int:
    """The process whose command line names the port: `unshare` and `chroot` become it or lie above it."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(port).encode() in words and b"serve" in words and b"sh" not in words:
                return int(folder.name)
    raise SystemExit("no server process")


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]


def cpu_seconds(pid: int) -> float:
    """What a busy machine does not lengthen."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def size_mb(folder: Path) -> float:
    return (
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        / 1e6
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
