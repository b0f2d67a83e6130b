"""No server outlives whoever started it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import PROJECT

_STARTS_ONE = """
import sys, time
from pathlib import Path
from tests.servers.leash import Leashed
child = "import os, subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
Leashed([sys.executable, "-c", child], Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


def test_a_server_and_its_children_end_with_a_killed_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _STARTS_ONE, str(tmp_path / "log")],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    family: list[psutil.Process] = []
    while len(family) < 3:  # the leash, the server, its child
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert psutil.wait_procs(family, timeout=30)[1] == []
