"""How several processes meet: also where torchrun starts them again, and where one does not come."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import datetime, json, os, time

import torch
from torch.distributed import TCPStore

from saccade.errors import TrainingError
from saccade.pipeline.helping import Meeting
from saccade.processes import Place
from saccade.training import team as teams

torch.set_num_threads(1)  # a process with threads cannot fork
teams.TIMEOUT = teams.PATIENCE = datetime.timedelta(seconds=10)
agent = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(agent.port), TORCHELASTIC_USE_AGENT_STORE="True")


def joined(number):
    place = Place(number, 2, number, "torchrun")
    try:
        Meeting.of_launcher(place, "gloo").join(teams.Team(place))
    except TrainingError as error:
        return error.problem
    return "met"


def attempt(count, late, numbers=(0, 1)):
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(count)
    said, told = os.pipe()
    for number in numbers:
        if not os.fork():
            time.sleep(late * number)
            os.write(told, f"{number} {joined(number)};".encode())
            os._exit(0)
    for _ in numbers:
        os.wait()
    os.close(told)
    return sorted(os.read(said, 10_000).decode().rstrip(";").split(";"))


found = [(attempt(count, 0.3), agent.num_keys()) for count in range(3)]
teams.MEETING = datetime.timedelta(seconds=0.5)
print(json.dumps([*found, attempt(3, 0, numbers=(1,))]))
"""


def test_processes_that_torchrun_starts_again_meet_and_wait_not_for_ever() -> None:
    """torchrun's store still has the addresses of the dead; with some of their ports, none meets."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *attempts, without = json.loads(done.stdout.splitlines()[-1])
    assert [said for said, _ in attempts] == [["0 met", "1 met"]] * 3
    first, second, third = (keys for _, keys in attempts)
    assert third - second == second - first > 2, "no attempt reads what another wrote"
    assert len(without) == 1
    assert without[0].startswith("1 the processes could not meet (")
    assert without[0].endswith("): process 2 of 2 cannot go on")
