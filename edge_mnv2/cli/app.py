"""The command line: `edge-mnv2 [--debug] [-v|-q] COMMAND`. Errors become one line and an exit code here, once."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge_mnv2 import __version__, signals
from edge_mnv2.addresses import remember_secrets
from edge_mnv2.cli import command, terminal
from edge_mnv2.errors import PARTIAL, EdgeMnv2Error, UsageError
from edge_mnv2.settings.option import variable

_NOT_ALONE = {"compile": "build:COMPILE", "pull": "models:PULL", "doctor": "devices:DOCTOR"}
"""Commands that share a file with another."""

COMMANDS = {
    name: f"edge_mnv2.cli.{_NOT_ALONE.get(name, f'{name}:COMMAND')}"
    for name in (
        "run",
        "classify",
        "pull",
        "models",
        "inspect",
        "build",
        "train",
        "compile",
        "evaluate",
        "teach",
        "review",
        "devices",
        "profile",
        "service",
        "doctor",
    )
}
"""Where each is, in the order of the help page. Only what is called is imported."""

_HELP = """MobileNetV2 on small boards: from trained weights to a real-time camera classifier.

Every option has a variable: --log-every is EDGE_MNV2_LOG_EVERY."""


_OUT_OF_MEMORY = re.compile("failed to map segment|cannot allocate memory|bad_alloc", re.IGNORECASE)
"""What loader, kernel and native libraries say of it."""


def fail(error: EdgeMnv2Error) -> NoReturn:
    """One line on stderr and the error's exit code."""
    words = " ".join(str(error).split())
    _say(f"edge-mnv2: error: {variables_named(words, sys.argv[1:]) if isinstance(error, UsageError) else words}")
    raise SystemExit(error.exit_code)


def variables_named(text: str, arguments: Sequence[str]) -> str:
    """`text` with each option that was not typed in `arguments`, but set in the environment, called by its variable."""
    typed = {argument.partition("=")[0] for argument in arguments}

    def named(option: re.Match[str]) -> str:
        name = variable(option[0].lstrip("-"))
        return name if option[0] not in typed and os.environ.get(name) else option[0]

    return re.sub(r"(?<![\w-])--[a-z][a-z-]*[a-z]", named, text)


def _results_lost(problem: OSError) -> NoReturn:
    if isinstance(problem, BrokenPipeError):
        # The reader of our stdout went away (`| head`): not an error, as with `--log -`.
        raise SystemExit(0)
    _say(f"edge-mnv2: error: stdout cannot be written: {problem.strerror or problem}")
    raise SystemExit(PARTIAL)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        terminal.note(line)


def process() -> None:
    """The console script: `main` in a process of its own, which ends without tearing every module down.

    That would take an eighth of the time of a short command. What others registered for the end is called.
    """
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") in ("run", "classify"):
        # What these load they keep: no garbage is looked for until they have begun. And they multiply no matrices:
        # OpenBLAS need not start a thread for every CPU.
        gc.disable()
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        main()
    except SystemExit as end:
        if not isinstance(end.code, (int, type(None))) or _others_at_work():
            raise
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            raise end from None
        os._exit(end.code or 0)


def _others_at_work() -> bool:
    """Whether a thread is left that the end of the process has to wait for."""
    return any(not one.daemon and one is not threading.main_thread() for one in threading.enumerate())


def _folder_is_gone() -> bool:
    """Whether the current folder was deleted: no relative path has a meaning then."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _no_space(error: OSError) -> EdgeMnv2Error:
    import tempfile

    place = f" for {error.filename}" if error.filename else ""
    hint = "free some"
    with contextlib.suppress(FileNotFoundError):  # none of those folders has any space
        hint += f"; files in between go to {tempfile.gettempdir()}, or where TMPDIR says"
    return EdgeMnv2Error(f"there is no space left on the disk{place}", hint=hint)


def main() -> None:
    """The command line, called in this process."""
    signals.from_now_on()
    command.filling({})
    try:
        _main()
    except KeyboardInterrupt:
        interrupted()
    finally:
        signals.ignore()


def interrupted() -> NoReturn:
    """A signal has ended a command before it could say so itself: what is done is said all the same."""
    signals.ignore()
    words = sys.argv[1:]
    name = next((word for word in words if word in COMMANDS), "")
    if "--json" in words and not getattr(sys.stdout, "written", False):
        document = _empty_summary() if name == "run" else {**command.unfinished, "error": "interrupted"}
        print(terminal.json_text({**document, "ended": "signal"}), flush=True)
    raise SystemExit(0 if name == "run" else 130)


def _empty_summary() -> dict[str, Any]:
    """Of a run that has not got to its first frame."""
    from edge_mnv2.app.run import RunRequest, Session
    from edge_mnv2.settings.profile import resolve

    try:
        return Session(RunRequest(resolve(None, {}))).outcome().summary
    except EdgeMnv2Error as error:
        # A profile that is broken: the run would have ended with it.
        fail(error)


def _main() -> None:
    # 32-bit tflite-runtime switches subnormal numbers off, and numpy then warns of it at each start.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal")
    remember_secrets([*sys.argv[1:], *(value for name, value in os.environ.items() if name.startswith("EDGE_MNV2_"))])
    terminal.prepare()
    # What is said before the command's own options are read.
    command.log_to_stderr(logging.INFO)
    if "_EDGE_MNV2_COMPLETE" in os.environ:
        from typer.completion import completion_init

        # The shells' scripts that `--show-completion` prints expect typer's answers.
        completion_init()
    # The parser puts another in its place when the reader goes away.
    stdout = sys.stdout
    try:
        command.root(COMMANDS, __version__, _HELP)()
    except SystemExit as end:
        if signals.came() and end.code not in (None, 0):
            # The parser makes an exit of it.
            interrupted()
        problem = terminal.problem(stdout)
        # 1 is the parser's for a reader that went away; the codes of commands stand.
        if problem is not None and end.code in (None, 0, 1):
            _results_lost(problem)
        raise
    except EdgeMnv2Error as error:
        if signals.came():
            interrupted()
        if command.debug:
            raise
        fail(error)
    except Exception as error:
        if signals.came():
            interrupted()
        if isinstance(error, RuntimeError) and "home directory" in str(error) and not command.debug:
            fail(UsageError("a path begins with ~, and there is no such home directory", hint="write the path out"))
        if isinstance(error, FileNotFoundError) and _folder_is_gone() and not command.debug:
            fail(UsageError("the folder in which this was called is gone", hint="cd to one that exists"))
        problem = terminal.problem(stdout) if isinstance(error, OSError) else None
        if problem is not None:
            _results_lost(problem)
        if command.debug:
            raise
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            fail(EdgeMnv2Error("there is too little memory", hint="end other programs, or raise `ulimit -v`"))
        if "can't start new thread" in str(error):
            fail(EdgeMnv2Error("no more threads may be started", hint="raise `ulimit -u`, or TasksMax of the service"))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(_no_space(error))
        if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
            full = "no temporary file can be written: the disk is full, or /tmp is not writable"
            fail(EdgeMnv2Error(full, hint="free some, or set TMPDIR"))
        if isinstance(error, ModuleNotFoundError) and not (error.name or "edge_mnv2").startswith("edge_mnv2"):
            fail(EdgeMnv2Error(f"the package {error.name} is missing", hint="`edge-mnv2 doctor` says how to get it"))
        name = type(error).__name__
        _say(f"edge-mnv2: unexpected {name}: {' '.join(str(error).split())} (see --debug)")
        raise SystemExit(1) from None
