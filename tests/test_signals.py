"""A signal is answered wherever a command is: in words, with its exit code, at once where nothing else helps.

Each case is a process of its own that signals itself, as a user or a cluster would.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from saccade.signals import EXIT_CODES, GRACE_SECONDS

BEGIN = """
import concurrent.futures, os, queue, signal, subprocess, sys, threading, time
from saccade import signals
from saccade.signals import answered_signals, exit_process, say_stopped

NUMBER = int(sys.argv[1])

def send():
    os.kill(os.getpid(), NUMBER)

def later(seconds=0.05):
    timer = threading.Timer(seconds, send)
    timer.daemon = True
    timer.start()

def command():
    WORK

words = ["train", "my photos", "--out", "run"]
code = 0
try:
    with answered_signals(words):
        command()
except KeyboardInterrupt as error:
    code = say_stopped(words, error)
sys.exit(exit_process(code))
"""


def run(work: str, number: int) -> tuple[int, str, str]:
    code = BEGIN.replace("    WORK", "\n".join(f"    {line}" for line in work.strip().splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def message(number: int) -> str:
    name = signal.Signals(number).name
    how = "hint: to start again"
    return f"stopped: received {name}\n{how}: saccade train 'my photos' --out run\n"


PLACES = {
    "in the middle of Python": "send()",
    "asleep": "later(); time.sleep(60)",
    "computing": "later()\nwhile True: sum(range(1000))",
    "waiting for a thread": "later(); concurrent.futures.Future().result()",
    "waiting for an item": "later(); queue.Queue().get()",
    "waiting for a process": "later(); subprocess.run(['sleep', '60'])",
    "reading from a pipe": "later(); os.read(os.pipe()[0], 1)",
    "where any exception is answered": "later()\ntry: time.sleep(60)\nexcept Exception: print('answered')",
    "with a thread that works on": "threading.Thread(target=time.sleep, args=(60,)).start(); send()",
    "with a pool": "later(); list(concurrent.futures.ThreadPoolExecutor(1).map(time.sleep, [0.5] * 2))",
    "while files are put away": "try: send()\nfinally: time.sleep(0.1)",
    "with nobody at stdout": "os.close(1); send()",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_answered_anywhere(place: str, number: int) -> None:
    assert run(PLACES[place], number) == (128 + number, "", message(number))


SHORT = "signals.GRACE_SECONDS = 0.2\n"
STUBBORN = {
    "what is raised is caught and forgotten": "send()\nwhile True:\n    try: time.sleep(60)\n"
    "    except BaseException: pass",
    "the handler is another's": "signal.signal(NUMBER, lambda *_: None)\nsend()\ntime.sleep(60)",
    "a library does not come back": "import ctypes\nsend_later = later(0.1)\n"
    "while True:\n    try: ctypes.CDLL(None).sleep(60)\n    except BaseException: pass",
    "putting away takes long": "try: send()\nfinally: time.sleep(60)",
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", STUBBORN)
def test_the_process_ends_where_nothing_answers(place: str, number: int) -> None:
    work = "\n".join([SHORT, "later(0.01)", STUBBORN[place]])
    assert run(work, number) == (128 + number, "", message(number))


def test_a_run_that_never_began_leaves_nothing_where_nothing_answers(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    work = f"""{SHORT}
from pathlib import Path
from saccade.run_folder import RunFolder
with RunFolder(Path({str(folder)!r})).locked():
    later(0.01)
    while True:
        try: time.sleep(60)
        except BaseException: pass"""
    assert run(work, signal.SIGTERM) == (143, "", message(signal.SIGTERM))
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_is_written_to_its_end_but_not_for_ever() -> None:
    writing = """
later(0.01)
with signals.written_first():
    try: time.sleep(60)
    except BaseException: time.sleep(SECONDS)
    print("written", flush=True)
while True:
    try: time.sleep(60)
    except BaseException: pass"""
    limited = "signals.WRITING_SECONDS = 0.3\n" + SHORT + writing.replace("SECONDS", "2")
    assert run(SHORT + writing.replace("SECONDS", "1"), signal.SIGTERM)[:2] == (143, "written\n")
    assert run(limited, signal.SIGTERM) == (143, "", message(signal.SIGTERM))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(second: int) -> None:
    work = f"try: send()\nfinally:\n    os.kill(os.getpid(), {int(second)})\n    time.sleep(60)"
    assert run(SHORT.replace("0.2", "50") + work, signal.SIGTERM) == (143, "", message(signal.SIGTERM))


def test_a_signal_to_a_forked_worker_is_not_one_to_the_command() -> None:
    work = """
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches every process of the terminal
    os.kill(os.getpid(), NUMBER)
    os._exit(0)
print(-os.WTERMSIG(os.waitpid(child, 0)[1]))
time.sleep(0.1)
"""
    assert run(work, signal.SIGTERM) == (0, "-15\n", "")


def test_other_signals_are_left_alone() -> None:
    work = "signal.signal(signal.SIGCHLD, lambda *_: None)\nfor _ in range(3): subprocess.run(['true'])"
    assert run(work, signal.SIGTERM) == (0, "", "")


def test_before_and_after_everything_is_as_it_was() -> None:
    work = "print(signal.getsignal(15) is signals._interrupt)"
    # a shell lets what runs in the background ignore SIGINT
    begin = BEGIN.replace("NUMBER =", "signal.signal(2, signal.default_int_handler)\nNUMBER =", 1)
    code = begin.replace("    WORK", f"    {work}").replace(
        "sys.exit(",
        "print(signal.getsignal(15) is signal.SIG_DFL, signal.getsignal(2) is signal.default_int_handler,"
        " signal.set_wakeup_fd(-1), threading.active_count())\nsys.exit(",
    )
    done = subprocess.run([sys.executable, "-c", code, "15"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\nTrue True -1 1\n", "")


def test_outside_of_the_main_thread_nothing_is_done() -> None:
    work = "thread = threading.Thread(target=lambda: answered_signals(words).__enter__())\n"
    assert run(work + "thread.start(); thread.join(); print('well')", signal.SIGTERM) == (0, "well\n", "")


def test_a_command_that_cannot_be_continued_says_what_to_call_again() -> None:
    code = BEGIN.replace("    WORK", "    send()").replace(
        '["train", "my photos", "--out", "run"]', '["audit", "x"]'
    )
    done = subprocess.run([sys.executable, "-c", code, "15"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        143,
        "stopped: received SIGTERM\nhint: to start again: saccade audit x\n",
    )


def test_the_grace_is_shorter_than_that_of_a_container() -> None:
    assert GRACE_SECONDS < 10
    assert EXIT_CODES == (143, 130)


def test_where_a_run_was_begun_the_way_on_is_to_resume_it() -> None:
    done = run("from saccade.signals import can_resume\ncan_resume('runs/photos-1')\nsend()", signal.SIGTERM)
    assert done[2].endswith("to continue: saccade train --resume runs/photos-1\n")
