"""The service under a real systemd: `EDGE_MNV2_RIG_SYSTEMD=1 python -m pytest tests/rigs/test_systemd.py -s`.

As root on a machine with systemd installed, running or not (`boot_systemd.sh` makes one of its own, in namespaces). It
takes a minute, most of it waiting for what systemd waits for, so it runs only when it is asked for. In place of 1: the
root of another Debian, such as `mmdebstrap --include=systemd,passwd,python3-venv,libglib2.0-0t64 trixie DIR` makes; the
project is then first installed there, from a wheelhouse.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_ASKED = os.environ.get("EDGE_MNV2_RIG_SYSTEMD", "")
ROOT = _ASKED if _ASKED.startswith("/") else ""
COMMAND = Path("/usr/local/bin/edge-mnv2") if ROOT else Path(sys.executable).parent / "edge-mnv2"
PYTHON = "/usr/bin/python3" if ROOT else sys.executable
pytestmark = [
    pytest.mark.skipif(not _ASKED, reason="EDGE_MNV2_RIG_SYSTEMD is not set"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces with a systemd in them are made by root"),
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed"),
    pytest.mark.timeout(600),
]

# A manager of the user's own, as a login would start it.
PREPARE = """
getent group plugdev >/dev/null || groupadd plugdev
useradd --create-home --shell /bin/bash maker
install -d -o maker "/home/maker/my logs 100%n"
cat >/etc/systemd/system/login-of-maker.service <<E
[Service]
User=maker
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/maker HOME=/home/maker
ExecStartPre=+/usr/bin/install -d -o maker -m 700 /run/maker
ExecStart=/lib/systemd/systemd --user --unit=basic.target
E
"""
# The Python of this environment may lie where root alone may look.
OPEN = f"""
folder={Path(sys.executable).resolve()}
while [ "$folder" != / ]; do chmod a+x "$folder"; folder=$(dirname "$folder"); done
"""
IMAGE = f"{COMMAND} service install --name prepared --run-as maker --source test:64x48@5 2>&1\n"
INSTALL = "sh /mnt/install.sh --prefix /opt/edge-mnv2 --bin /usr/local/bin --extras web,record\n"


def gathered(stick: Path) -> Path:
    """A wheelhouse for the Python in ROOT."""
    said = subprocess.run(
        ["chroot", ROOT, "/usr/bin/python3", "--version"], capture_output=True, text=True, check=True
    ).stdout
    target = [
        "--arch",
        platform.machine(),
        "--python",
        ".".join(said.split()[1].split(".")[:2]),
        "--extras",
        "web,record",
    ]
    subprocess.run(["sh", str(HERE.parents[1] / "install.sh"), "--make-wheelhouse", str(stick), *target], check=True)
    return stick


class Booted:
    """A systemd that runs; `call` runs a command beside it."""

    def __init__(self, folder: Path) -> None:
        (folder / "root").mkdir()
        (folder / "prepare").write_text(PREPARE + (INSTALL if ROOT else OPEN) + IMAGE)
        stick = str(gathered(folder / "stick")) if ROOT else ""
        self._process = subprocess.Popen(
            ["bash", str(HERE / "boot_systemd.sh"), str(folder / "root")],
            env={**os.environ, "ROOT": ROOT or "/", "STICK": stick, "PREPARE": str(folder / "prepare")},
            stdin=subprocess.DEVNULL,
        )
        self._first = 0
        self.until(self._is_up, "systemd is up")

    def _is_up(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._first = int(children[0])
        if Path(f"/proc/{self._first}/comm").read_text().strip() != "systemd":
            return False
        return self.call("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def call(self, *words: object, user: str = "root", **environment: str) -> subprocess.CompletedProcess[str]:
        home = "/root" if user == "root" else f"/home/{user}"
        variables = {"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8", **environment}
        command = ["nsenter", "-t", str(self._first), "-a", "--root", "--wd"]
        if user != "root":
            command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return subprocess.run(
            [*command, *map(str, words)], env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def edge(self, *words: object, user: str = "root", **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.call(COMMAND, *words, user=user, **environment)
        print(f"$ edge-mnv2 {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
        return done

    def signal(self, name: str, pid: int) -> None:
        done = self.call(PYTHON, "-c", f"import os, signal; os.kill({pid}, signal.{name})")
        assert done.returncode == 0, done.stderr

    def status(self, **how: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call(COMMAND, "service", "status", "--json", **how).stdout)
        return found

    def until(self, holds: Callable[[], Any], what: str, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                print(self.call("journalctl", "--no-pager", "--lines=60").stdout)
                pytest.fail(f"not within {timeout} s: {what}")
            assert self._process.poll() is None, "systemd ended"
            time.sleep(0.2)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    made = Booted(tmp_path_factory.mktemp("systemd"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def removed(booted: Booted) -> Iterator[None]:
    yield
    booted.edge("service", "remove")


def test_ready_watched_restarted_removed(booted: Booted) -> None:
    log = "/home/maker/my logs 100%n/$HOME 'x'.jsonl"
    options = ["--run-as", "maker", "--watchdog", 5, "--source", "test:320x240@10"]
    done = booted.edge("service", "install", *options, "--log", log, "--snapshots", "/home/maker/seen")
    assert done.returncode == 0
    assert "is ready:" in done.stderr and "FPS" in done.stderr

    first = booted.status()
    assert (first["scope"], first["active"], first["enabled"], first["restarts"]) == ("system", True, True, 0)
    pid = first["pid"]
    said = booted.call("cat", f"/proc/{pid}/status").stdout
    facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    uid = booted.call("id", "-u", "maker").stdout.strip()
    assert facts["Uid"].split() == [uid] * 4
    assert (facts["NoNewPrivs"], facts["Seccomp"], int(facts["CapBnd"], 16)) == ("1", "2", 0)
    for place, code in (("/home/maker/my logs 100%n", 0), ("/home/maker/seen", 0), ("/home/maker", 1), ("/etc", 1)):
        tried = booted.call("nsenter", "-t", pid, "-m", "touch", f"{place}/touched")
        assert tried.returncode == code, (place, tried.stderr)
    before = int(booted.call("stat", "-c", "%s", log).stdout)
    booted.until(lambda: int(booted.call("stat", "-c", "%s", log).stdout) > before, "the log grows")
    booted.until(lambda: "FPS" in (booted.status()["status"] or ""), "it says how it is")
    assert "test pattern" in booted.edge("service", "logs", "-n", 5).stdout

    # Stalled by force: not even the polite signal is answered.
    booted.signal("SIGSTOP", pid)
    booted.until(lambda: booted.status()["restarts"] == 1, "the watchdog ends it")
    booted.until(lambda: booted.status()["active"], "it is started anew")
    second = booted.status()["pid"]
    assert second != pid
    assert "watchdog" in booted.call("journalctl", "-u", "edge-mnv2", "--no-pager").stdout.lower()

    booted.signal("SIGSEGV", second)
    booted.until(lambda: booted.status()["restarts"] == 2 and booted.status()["active"], "it is started after a crash")

    assert booted.call("systemctl", "stop", "edge-mnv2").returncode == 0
    stopped = booted.status()
    assert (stopped["active"], stopped["result"], stopped["exit_code"]) == (False, "success", 0)
    lines = booted.call("cat", log).stdout.splitlines()
    for line in lines[-5:]:
        json.loads(line)

    assert booted.edge("service", "remove").returncode == 0
    assert not booted.status()["installed"]
    assert booted.call("systemctl", "cat", "edge-mnv2").returncode != 0
    assert booted.edge("service", "status").returncode == 1


def test_a_camera_that_is_not_there_is_waited_for(booted: Booted) -> None:
    done = booted.edge("service", "install", "--run-as", "maker", "--camera", "/dev/video77")
    assert done.returncode == 4
    assert "does not become ready" in done.stderr and "there is no camera /dev/video77" in done.stderr
    assert "video77" in booted.edge("service", "logs").stdout
    booted.until(lambda: (booted.status()["restarts"] or 0) >= 2, "systemd goes on trying")
    assert booted.edge("service", "status").returncode == 1
    # Other settings take its place at once.
    assert booted.edge("service", "install", "--run-as", "maker", "--source", "test").returncode == 0


def test_what_the_kernel_allows_is_enough_for_every_output(booted: Booted) -> None:
    """Page, recording, log and the model's cache inside the sandbox; as root too."""
    outputs = ["--web", "18777", "--record", "/srv/a b/film.mp4", "--log", "/srv/a b/x.csv", "--threads", 2]
    done = booted.edge("service", "install", "--source", "test", *outputs)
    assert done.returncode == 0
    booted.until(lambda: booted.call("test", "-s", "/srv/a b/film.mp4").returncode == 0, "the recording is there")
    fetched = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:18777/healthz').status)"
    assert booted.call(PYTHON, "-c", fetched).stdout == "200\n"
    warned = [line for line in booted.edge("service", "logs").stdout.splitlines() if "cannot" in line]
    assert warned == []


def test_an_image_is_prepared_before_its_systemd_runs(booted: Booted) -> None:
    """`booted` installed it where no systemd ran yet; it is started at the next boot, and once more by hand here."""
    mine = {"EDGE_MNV2_NAME": "prepared"}
    found = booted.status(**mine)
    assert (found["installed"], found["enabled"], found["active"]) == (True, True, False)
    assert booted.call("systemctl", "start", "prepared").returncode == 0
    assert booted.status(**mine)["active"]
    assert booted.edge("service", "remove", **mine).returncode == 0
    assert not booted.status(**mine)["installed"]


def test_two_of_one_name_are_refused(booted: Booted) -> None:
    assert booted.edge("service", "install", "--run-as", "maker", "--source", "test").returncode == 0
    done = booted.edge("service", "install", "--source", "test", user="maker")
    assert done.returncode == 2 and "is there already" in done.stderr and "sudo" in done.stderr
    done = booted.edge("service", "remove", user="maker")
    assert done.returncode == 2 and "sudo" in done.stderr
    assert booted.status()["active"]


def test_a_unit_of_the_user(booted: Booted) -> None:
    assert booted.call("systemctl", "start", "login-of-maker").returncode == 0
    mine = {"user": "maker", "XDG_RUNTIME_DIR": "/run/maker"}
    booted.until(lambda: booted.call("test", "-S", "/run/maker/systemd/private").returncode == 0, "maker has a manager")
    done = booted.edge("service", "install", "--source", "test", "--log", "x.jsonl", **mine)
    assert done.returncode == 2, "the working folder is /, which is not the user's"
    assert booted.edge("service", "install", "--source", "test", user="maker").returncode == 1, "no manager to be seen"
    done = booted.edge("service", "install", "--source", "test", "--log", "/home/maker/x.jsonl", **mine)
    assert done.returncode == 0
    assert "loginctl enable-linger maker" in done.stderr
    found = booted.status(**mine)
    assert (found["scope"], found["active"], found["enabled"]) == ("user", True, True)
    assert booted.edge("service", "status", **mine).returncode == 0
    assert booted.edge("service", "remove", **mine).returncode == 0
    assert not booted.status(**mine)["installed"]


def test_pins_inside_the_sandbox(booted: Booted) -> None:
    """The real lgpio, with no chip to open: what is said is its own reason, and not that it may not write its pipes."""
    if booted.call(PYTHON, "-c", "import lgpio, gpiozero").returncode != 0:
        pytest.skip("no lgpio and gpiozero in there (pip install lgpio gpiozero)")
    booted.edge("service", "install", "--source", "test:64x48@5", "--gpio", "!17")

    def said() -> str:
        return booted.call("journalctl", "--unit=edge-mnv2", "--no-pager", "--output=cat").stdout

    booted.until(lambda: "--gpio 17: " in said(), "pins are refused")
    lines = [line for line in said().splitlines() if "--gpio 17: " in line]
    assert all("--gpio 17: lgpio: " in line for line in lines), lines
    assert "xCreatePipe" not in said() and "Traceback" not in said()
    unit = booted.call("systemctl", "cat", "edge-mnv2").stdout
    assert "DeviceAllow=char-gpiochip" in unit and "SupplementaryGroups=" in unit
