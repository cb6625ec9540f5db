"""The unit's text, as systemd's own programs read it, and what no unit is written for."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.cli.options import declared_by
from edge_mnv2.cli.run import COMMAND as RUN
from edge_mnv2.cli.run import run_request
from edge_mnv2.errors import UsageError
from edge_mnv2.service.command import Account, absolute, keep_secrets, needs, variables
from edge_mnv2.service.systemd import exposure, faults, version
from edge_mnv2.settings.option import Option
from edge_mnv2.zoo.resolve import resolve
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (apt-get install systemd)"
)


def unit(run: Run, *options: object) -> str:
    code, out, err = run("service", "install", "--dry-run", *options)
    assert code == 0, err
    return out


def run_options() -> list[Option]:
    return [declared for declared in declared_by(run_request) if isinstance(declared, Option)]


def lines(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


@needs_systemd
@pytest.mark.parametrize(
    "options",
    [
        ["--camera", "0"],
        ["--camera", "csi", "--rotate", "180"],
        ["--source", "rtsp://camera.local/stream", "--web", "80", "--delegate", "none"],
        ["--source", "test", "--log", "my logs/100%n $HOME.jsonl", "--snapshots", "it's", "--gpio", '17=ta"bby;,27'],
        ["--source", "gst:videotestsrc ! appsink", "--window", "--watchdog", "10", "--name", "second"],
    ],
    ids=["camera", "csi", "stream", "odd words", "pipeline"],
)
def test_systemd_takes_it(options: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = unit(run, *options)
    name = "second" if "second" in options else "edge-mnv2"
    system = os.geteuid() == 0
    assert faults(name, text, system=system) == []
    score = exposure(name, text)
    if version() >= 250 and system:
        assert score is not None and float(score.split()[0]) < 4, score


def test_words_survive(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unescaped as systemd.service(5) describes it, the command is the one that was given."""
    monkeypatch.chdir(tmp_path)
    text = unit(run, "--source", "test", "--log=a b%c.jsonl", "--allow", "$x,;,\\,ü", "--deny", 'it\'s "it"')
    (command,) = lines(text, "ExecStart")
    words = shlex.split(command.replace("%%", "%"))
    assert Path(words[0]).is_absolute()
    assert words[1:3] == ["run", "--source"]
    assert words[3:] == ["test", f"--log={tmp_path}/a b%c.jsonl", "--allow", "$$x,;,\\,ü", "--deny", 'it\'s "it"']
    assert f'"-{tmp_path}"' in text or f"-{tmp_path}" in text


def test_paths_do_not_depend_on_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").touch()
    words = [
        "--log",
        "x.csv",
        "--model=model.tflite",
        "--device",
        "pi4",
        "--source",
        "~/clip.mp4",
        "--allow",
        "model.tflite",
    ]
    home = str(Path.home())
    assert absolute(words, tmp_path, run_options()) == [
        *["--log", f"{tmp_path}/x.csv", f"--model={tmp_path}/model.tflite", "--device", "pi4"],
        *["--source", f"{home}/clip.mp4", "--allow", "model.tflite"],
    ]


def test_what_it_may_touch_follows_from_the_command(run: Run, isolated: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("units of the system are made by root")
    text = unit(run, "--source", "test", "--delegate", "none", "--record", "/srv/films/a.mp4")
    assert lines(text, "ReadWritePaths") == [
        f"-{isolated}/.cache/edge-mnv2 -{isolated}/.local/state/edge-mnv2 -/srv/films"
    ]
    assert "char-usb_device rw" not in lines(text, "DeviceAllow")
    assert "network-online" not in text
    assert lines(text, "CapabilityBoundingSet") == [""]
    text = unit(run, "--source", "http://cam/", "--web", "443")
    assert {"char-usb_device rw", "char-video4linux rw"} <= set(lines(text, "DeviceAllow"))
    assert lines(text, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert lines(text, "After") == ["network-online.target"]
    assert lines(unit(run, "--source", "gst:a ! b"), "DevicePolicy") == []


def test_the_newest_model_needs_the_network_wherever_it_is_asked_for(run: Run, isolated: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("units of the system are made by root")
    home, profile = isolated / ".cache/edge-mnv2/latest/screws.tflite", isolated / "ours.yaml"
    home.parent.mkdir(parents=True)
    home.write_bytes(colour_model())
    profile.write_text("extends: base\nruntime: {model: screws@latest}\n")
    for options in (("--model", "screws@latest"), ("--device", profile)):
        assert lines(unit(run, "--source", "test", *options), "After") == ["network-online.target"]


def test_variables_count_as_given(run: Run, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own file of variables counts; those of the shell do not."""
    folder = isolated / ".config/edge-mnv2"
    folder.mkdir(parents=True)
    (folder / "environment").write_text('# by hand\nEDGE_MNV2_SOURCE=test\nEDGE_MNV2_LOG="/srv/a b/x.jsonl"\n')
    text = unit(run)
    assert lines(text, "Description") == ["edge-mnv2: test"]
    assert lines(text, "EnvironmentFile") == [f"-{folder}/environment"]
    if os.geteuid() == 0:
        assert '"-/srv/a b"' in lines(text, "ReadWritePaths")[0]
    (folder / "environment").unlink()
    monkeypatch.setenv("EDGE_MNV2_SOURCE", "test")
    assert run("service", "install", "--dry-run")[0] == 2
    (folder / "environment").write_text("EDGE_MNV2_SOURCE\n")
    code, _, err = run("service", "install", "--dry-run")
    assert code == 2 and f"{folder}/environment:1" in err


def test_variables_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text('\n;x\nA=1\nB="two \\"words\\""\nC=\'it\'\nD=\n')
    assert variables(path) == {"A": "1", "B": 'two "words"', "C": "it", "D": ""}
    assert variables(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "explicit camera"),
        (["--source", "auto"], 2, "explicit camera"),
        (["--camera"], 2, "explicit camera"),
        (["--camera", "0", "--source", "test"], 2, "exclude each other"),
        (["--camera", "0", "--nonsense"], 2, "--nonsense"),
        (["--camera", "0", "surplus"], 2, "surplus"),
        (["--camera", "0", "--threads", "many"], 2, "many"),
        (["--camera", "0", "--model", "no-such-model"], 3, "no-such-model"),
        (["--camera", "0", "--labels", "no-such.txt"], 3, "no-such.txt: no such label file"),
        (["--camera", "0", "--log", "/etc"], 2, "--log /etc is a folder"),
        (["--camera", "0", "--record", "/etc/passwd/x.mp4"], 2, "/etc/passwd is no folder"),
        (["--camera", "0", "--collect", "/etc/passwd"], 2, "/etc/passwd is no folder"),
        (["--camera", "0", "--snapshots", "/etc/passwd"], 2, "/etc/passwd is no folder"),
        (["--camera", "0", "--input-range", "1,0"], 2, "--input-range 1,0"),
        (["--camera", "0", "--device", "no-such-board"], 6, "no-such-board"),
        (["--source", "/no/such/clip.mp4"], 4, "/no/such/clip.mp4"),
        (["--source", "test", "--log", "-"], 2, "stdout"),
        (["--source", "test", "--json"], 2, "stdout"),
        (["--source", "test", "--allow", "two\nlines"], 2, "control characters"),
        (["--source", "test", "--log", '/srv/"x"/a.csv'], 2, "quotes"),
        (["--source", "test", "--name", "../x"], 2, "../x"),
        (["--source", "test", "--run-as", "nobody-of-that-name"], 2, ""),
        (["--source", "test", "--watchdog", "1"], 2, "watchdog"),
        (["--source", "test", "--gate", "--device", "slow.yaml"], 2, "too short"),
        (["--source", "http://camera/snapshot.jpg", "--fps", "0.02"], 2, "too short for inferences every 50 s"),
    ],
)
def test_no_unit_is_written_for(
    options: list[str], code: int, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.yaml").write_text("extends: base\noutput: {gate_refresh_s: 50}\n")
    ended, out, err = run("service", "install", "--dry-run", *options)
    assert (ended, out) == (code, "")
    assert said in err and "Traceback" not in err
    assert len(err.strip().splitlines()) <= 6


def test_a_folder_that_cannot_be_written(run: Run) -> None:
    code, out, err = run("service", "install", "--source", "test", "--log", "/proc/nothing/x.jsonl")
    assert (code, out) == (2, "")
    assert "/proc/nothing cannot be written" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="everybody may look into their own folders")
def test_a_place_that_one_may_not_look_into_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o700)
    for option, name in (("--log", "x.jsonl"), ("--snapshots", "x")):
        path = tmp_path / "locked" / "sub" / name
        outputs = RUN.read(["--source", "test", option, str(path)], "edge-mnv2 run").fill(run_request).outputs
        for user in (0, 65534):
            # The first time, what is looked up once is looked up by root.
            os.seteuid(user)
            try:
                written = needs(outputs, [], "test", []).written
            finally:
                os.seteuid(0)
        assert written == (path.parent if option == "--log" else path,)


def test_secrets_are_not_for_everyone(run: Run, isolated: Path) -> None:
    """Neither in the unit nor in what is said; the service reads them from its environment file."""
    file = isolated / ".config/edge-mnv2/environment"
    secrets = {
        "--mqtt": "mqtt://user:secret@host/topic",
        "--webhook": "https://user:secret@host/x y",
        "--web-token": "secret-secret",
        "--source": "rtsp://me:secret@camera/1",
    }
    words = [word for pair in secrets.items() for word in pair]
    code, out, err = run("service", "install", "--dry-run", *words, "--web", "8080", "--log", "x.csv")
    assert code == 0 and "secret" not in out and "secret" not in err
    assert lines(out, "ExecStart")[0].split()[1:] == ["run", "--web", "8080", "--log", f"{Path.cwd()}/x.csv"]
    assert all(f"EDGE_MNV2_{name[2:].upper().replace('-', '_')}=... is in {file}" in err for name in secrets)
    code, out, err = run(
        "service", "install", "--dry-run", "--source", "test", "--mqtt=mqtt://host/t", "--name", "yard"
    )
    assert code == 0 and "--mqtt=mqtt://host/t" in out and "EDGE_MNV2_MQTT" not in err
    assert lines(out, "EnvironmentFile") == [f"-{file}", f"-{file}-yard"]


def test_secrets_are_kept_as_the_service_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text("# mine\nEDGE_MNV2_SOURCE=test\nEDGE_MNV2_MQTT=old\n")
    secrets = {"EDGE_MNV2_MQTT": 'mqtt://a:b$c`d@host/"x\\y', "EDGE_MNV2_WEB_TOKEN": "it's # one"}
    keep_secrets(path, secrets, Account.named(None))
    assert variables(path) == {"EDGE_MNV2_SOURCE": "test", **secrets}
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text().startswith("# mine\n")


def test_without_systemd(tmp_path: Path) -> None:
    """A system of another kind: the unit can be printed for one that has systemd; the rest is one line."""
    environment = {**os.environ, "PATH": str(tmp_path), "HOME": str(tmp_path)}

    def call(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "edge_mnv2", "service", *arguments], env=environment, capture_output=True, text=True
        )

    done = call("install", "--source", "test", "--dry-run")
    assert done.returncode == 0 and "ExecStart=" in done.stdout
    for arguments in (["status"], ["logs"]):
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "does not run systemd" in done.stderr and len(done.stderr.splitlines()) == 1


def test_not_installed(run: Run) -> None:
    code, out, err = run("service", "remove", "--name", "edge-mnv2-of-the-tests")
    assert (code, out) == (0, "") and "nothing to remove" in err


def nobody() -> Account:
    if os.geteuid() != 0:
        pytest.skip("another user's files need root")
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path("/nonexistent"))


def test_a_user_cannot_have_root_read_or_write_for_him() -> None:
    """Links in the user's folders lead root's installer nowhere: it reads and writes there as the user."""
    account = nobody()
    with tempfile.TemporaryDirectory(dir="/tmp") as text:
        home, private = Path(text) / "home", Path(text) / "private"
        Path(text).chmod(0o755)
        home.mkdir()
        os.chown(home, account.uid, account.gid)
        private.mkdir(mode=0o700)
        (private / "environment").write_text("EDGE_MNV2_MQTT=of-root\n")
        (home / "link").symlink_to(private / "environment")
        (home / "folder").symlink_to(private)
        for path in (home / "link", home / "folder/environment"):
            with contextlib.suppress(UsageError):
                assert variables(path, account) == {}
        with pytest.raises(UsageError, match="cannot be written by nobody"):
            keep_secrets(home / "folder/environment", {"EDGE_MNV2_WEBHOOK": "x"}, account)
        assert (private / "environment").read_text() == "EDGE_MNV2_MQTT=of-root\n"
        own = home / "own/environment"
        keep_secrets(own, {"EDGE_MNV2_WEBHOOK": "x"}, account)
        assert (own.stat().st_uid, own.stat().st_mode & 0o777) == (account.uid, 0o600)
        assert variables(own, account) == {"EDGE_MNV2_WEBHOOK": "x"}


def test_only_our_variables_are_taken_from_a_user_s_file(run: Run, isolated: Path) -> None:
    folder = isolated / ".config/edge-mnv2"
    folder.mkdir(parents=True)
    (folder / "environment").write_text("EDGE_MNV2_SOURCE=test\nPATH=/nowhere\nLD_PRELOAD=/x.so\n")
    before = os.environ["PATH"]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_mnv2.zoo.resolve.resolve", lambda model: seen.append(dict(os.environ)) or resolve(model))
        code, _, err = run("service", "install", "--dry-run")
    assert code == 0, err
    assert seen[0]["EDGE_MNV2_SOURCE"] == "test" and seen[0]["PATH"] == before and "LD_PRELOAD" not in seen[0]


def test_what_it_writes_is_not_for_everybody(run: Run) -> None:
    assert lines(unit(run, "--source", "test"), "UMask") == ["0027"]


@pytest.mark.parametrize(
    ("timesync", "synchronized", "uptime", "waits"),
    [(True, False, 10, True), (True, True, 10, False), (False, False, 10, False), (True, False, 500, False)],
)
def test_the_unit_waits_for_the_time_after_power_on(
    run: Run, tmp_path: Path, timesync: bool, synchronized: bool, uptime: int, waits: bool
) -> None:
    """The very command of the unit, with its places moved."""
    (command,) = lines(unit(run, "--source", "test"), "ExecStartPre")
    program, flag, script = shlex.split(command.lstrip("-").replace("$$", "$").replace("%%", "%"))
    (tmp_path / "uptime").write_text(f"{uptime}.25 3.00\n")
    if timesync:
        (tmp_path / "timesync").mkdir()
    if synchronized:
        (tmp_path / "timesync/synchronized").touch()
    for place in ("/run/systemd/timesync", "/proc/uptime"):
        script = script.replace(place, str(tmp_path / Path(place).name))
    assert "sleep 2" in script
    command = [program, flag, script.replace("sleep 2", "echo 2")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    assert sum(map(int, said.split())) == (30 if waits else 0)
    assert len(re.findall(r"\b\d+\b", script.split("; do")[0])) * 2 == 30, "30 s at most"
