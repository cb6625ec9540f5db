"""Files that belong together: a kill at any moment leaves the old ones or the new ones, never a mix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.paths import atomic_write, finish_writing, write_together
from edge_mnv2.zoo.resolve import resolve
from tests.stubs import colour_model

NAMES = ("m.labels.txt", "m.yaml", "m.tflite")

_KILLED = """
import os, sys
from pathlib import Path
from edge_mnv2.paths import write_together

left = int(sys.argv[2])
plain = os.replace

def replace(*arguments, **more):
    global left
    if left == 0:
        os.kill(os.getpid(), 9)
    left -= 1
    plain(*arguments, **more)

Path.replace = lambda self, target: replace(self, target)
folder = Path(sys.argv[1])
write_together([(folder / name, b"new " + name.encode()) for name in sys.argv[3:]])
"""


def contents(folder: Path) -> set[str]:
    return {(folder / name).read_text().split()[0] for name in NAMES}


def test_nobody_else_gets_more_rights_while_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The umask is the process's: what another thread makes while it is changed could be written by everybody.
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"the umask becomes {mask:o}"))
        with atomic_write(tmp_path / "a", "w") as handle:
            handle.write("x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("renames", range(5))
@pytest.mark.parametrize("fresh", [False, True], ids=["replaced", "new"])
def test_a_kill_between_the_files_leaves_old_or_new(tmp_path: Path, renames: int, fresh: bool) -> None:
    if not fresh:
        write_together([(tmp_path / name, f"old {name}".encode()) for name in NAMES])
    command = [sys.executable, "-c", _KILLED, str(tmp_path), str(renames), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (-9 if renames < 4 else 0), done.stderr
    finish_writing(tmp_path / NAMES[-1])
    if renames == 0 and fresh:
        assert not any((tmp_path / name).exists() for name in NAMES)
    else:
        assert contents(tmp_path) == ({"old"} if renames == 0 else {"new"})
    # The next writer is not confused by what was left.
    write_together([(tmp_path / name, f"next {name}".encode()) for name in NAMES])
    assert contents(tmp_path) == {"next"}
    finish_writing(tmp_path / NAMES[-1])
    assert contents(tmp_path) == {"next"}
    assert not list(tmp_path.glob("*.together")) and not list(tmp_path.glob(".*.together"))


def test_the_model_that_a_killed_writer_left_is_completed_when_it_is_opened(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    write_together([(tmp_path / "m.labels.txt", b"a\nb\n"), (model, colour_model("uint8"))])
    parts = [tmp_path / ".m.labels.txt.x1.part", tmp_path / ".m.tflite.x2.part"]
    parts[0].write_text("c\nd\n")
    parts[1].write_bytes(colour_model("int8"))
    note = tmp_path / ".m.tflite.together"
    note.write_text('[[".m.labels.txt.x1.part", "m.labels.txt"], [".m.tflite.x2.part", "m.tflite"]]')
    resolved = resolve(str(model))
    assert model.read_bytes() == colour_model("int8") and (tmp_path / "m.labels.txt").read_text() == "c\nd\n"
    assert resolved.path == model and not note.exists()


@pytest.mark.parametrize(
    "note",
    [
        '[["../evil.part", "m.tflite"]]',
        '[[".m.tflite.x.part", "../m.tflite"]]',
        '[["/etc/passwd", "m.tflite"]]',
        '[[".other.x.part", "m.tflite"]]',
        "[[1, 2]]",
        "{",
        "[[]]",
        "\xff",
        "[" * 5000,
    ],
)
def test_a_note_that_nobody_wrote_moves_nothing(tmp_path: Path, note: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "evil.part").write_text("evil")
    (folder / ".other.x.part").write_text("other")
    (folder / ".m.tflite.x.part").write_text("part")
    (folder / "m.tflite").write_text("mine")
    (folder / ".m.tflite.together").write_bytes(note.encode("latin-1"))
    finish_writing(folder / "m.tflite")
    assert (folder / "m.tflite").read_text() == "mine" and not (tmp_path / "m.tflite").exists()


def test_a_folder_that_cannot_be_written_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_text("mine")
    (tmp_path / ".m.tflite.together").write_text('[[".m.tflite.x.part", "m.tflite"]]')
    tmp_path.chmod(0o555)
    try:
        finish_writing(tmp_path / "m.tflite")
        finish_writing(Path("/nonexistent/m.tflite"))
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "m.tflite").read_text() == "mine"


def test_nothing_changes_where_one_cannot_be_written(tmp_path: Path) -> None:
    write_together([(tmp_path / name, f"old {name}".encode()) for name in NAMES])
    (tmp_path / "m.yaml").unlink()
    (tmp_path / "m.yaml").mkdir()
    with pytest.raises(OSError) as caught:
        write_together([(tmp_path / name, b"new") for name in NAMES])
    assert caught.value.filename == str(tmp_path / "m.yaml")
    assert (tmp_path / "m.tflite").read_text().startswith("old")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_a_model_that_its_sidecar_was_not_written_for_is_refused(stub: Path) -> None:
    import hashlib

    sidecar = stub.with_suffix(".yaml")
    digest = hashlib.sha256(stub.read_bytes()).hexdigest()
    sidecar.write_text(f"task: classification\nsha256: '{digest}'\n")
    assert resolve(str(stub)).sha256 == digest
    sidecar.write_text(f"sha256: ['{'0' * 64}', '{digest}']\n")
    resolve(str(stub))
    sidecar.write_text(f"sha256: '{'0' * 64}'\n")
    with pytest.raises(ModelError, match=r"is not the model that .* was written for"):
        resolve(str(stub))
    sidecar.write_text("task: classification\n")
    resolve(str(stub))


def test_a_reader_that_completes_the_writing_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edge_mnv2.paths as paths

    real, reader = paths.sync_folder, iter([True])

    def slow_card(folder: Path) -> None:
        real(folder)
        if next(reader, False):
            finish_writing(tmp_path / NAMES[-1])

    monkeypatch.setattr(paths, "sync_folder", slow_card)
    write_together([(tmp_path / name, f"new {name}".encode()) for name in NAMES])
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(NAMES)
    assert all((tmp_path / name).read_text() == f"new {name}" for name in NAMES)


@pytest.mark.parametrize("renames", range(4))
def test_a_signal_between_the_files_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """It raises what ends the command: what has been begun is completed on the way."""
    write_together([(tmp_path / name, f"old {name}".encode()) for name in NAMES])
    replace, left = Path.replace, [renames]

    def interrupted(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_together([(tmp_path / name, f"new {name}".encode()) for name in NAMES])
    assert contents(tmp_path) == ({"old"} if renames == 0 else {"new"})
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "what is open already"])
def test_nothing_takes_the_place_of_a_device_or_a_pipe(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(target)
        reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "link to a device":
        target.symlink_to(os.devnull)
        reader = os.open(os.devnull, os.O_RDONLY)
    else:
        reader = os.open(tmp_path / "opened", os.O_RDWR | os.O_CREAT)
        target = Path(f"/proc/self/fd/{reader}")
    try:
        before = (target.lstat().st_mode, target.stat().st_ino)
        with atomic_write(target, "w") as handle:
            handle.write("content")
        assert os.read(reader, 100) == (b"" if kind == "link to a device" else b"content")
        if kind != "what is open already":
            with pytest.raises(OSError, match="regular file"):
                write_together([(target, b"content")])
        assert (target.lstat().st_mode, target.stat().st_ino) == before
    finally:
        os.close(reader)
