"""Commands in processes of their own that need not import everything first: each is forked off one that has."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

_IMPORTED = (
    *("numpy", "cv2", "yaml", "requests", "ai_edge_litert.interpreter", "edge_mnv2.cli.app", "edge_mnv2.app.run"),
    *(f"edge_mnv2.cli.{command}" for command in ("run", "classify", "inspect", "models", "pull", "devices")),
)

_FORKS = """
import contextlib, importlib, json, os, sys, traceback
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
from edge_mnv2.__main__ import main

def become(order):
    for fd, (name, flags) in enumerate(((os.devnull, os.O_RDONLY), *((name, os.O_RDWR) for name in order["streams"]))):
        opened = os.open(name, flags | os.O_NOCTTY)
        os.dup2(opened, fd)
        os.close(opened)
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["edge-mnv2", *order["words"]]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)

for line in sys.stdin:
    child = os.fork()
    if not child:
        become(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.lru_cache(maxsize=1)
def _forks() -> subprocess.Popen[str]:
    """It ends with this process, which holds the other end of its stdin."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _FORKS, *_IMPORTED]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def exit_code(words: tuple[str, ...], stdout: str, stderr: str, environment: Optional[Mapping[str, str]] = None) -> int:
    """Of `edge-mnv2 WORDS`, which writes to the files, or terminals, of these names."""
    order: dict[str, Any] = {
        "words": words,
        "streams": (stdout, stderr),
        "environment": dict(os.environ if environment is None else environment),
        "folder": str(Path.cwd()),
    }
    forks = _forks()
    assert forks.stdin is not None and forks.stdout is not None
    forks.stdin.write(json.dumps(order) + "\n")
    forks.stdin.flush()
    return int(forks.stdout.readline())


def edge_mnv2(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`edge-mnv2 WORDS` with these variables more, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        code = exit_code(words, str(files[0]), str(files[1]), {**os.environ, **environment})
        return subprocess.CompletedProcess(words, code, *(file.read_text(encoding="utf-8") for file in files))
