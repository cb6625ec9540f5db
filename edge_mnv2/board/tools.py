"""A board's own small programs (`vcgencmd`, `nvpmodel`), asked seldom and never trusted to answer."""

from __future__ import annotations

import logging
import subprocess
import time
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_RETRY_S = 60.0


class BoardTool:
    """One program. An answer is kept for `keep_s` seconds.

    A question that has never been answered rests for a minute; one that has is asked again soon, then ever more seldom.
    """

    def __init__(self, tree: Sysroot, program: str, keep_s: float = 2.0) -> None:
        self._path = tree.which(program)
        self._keep_s = keep_s
        self._answers: dict[tuple[str, ...], tuple[float, Optional[str]]] = {}
        self._failures: dict[tuple[str, ...], int] = {}

    @property
    def present(self) -> bool:
        return self._path is not None

    def ask(self, *arguments: str) -> Optional[str]:
        """What the program prints for `arguments`, or None where it is missing, fails or hangs."""
        if self._path is None:
            return None
        now = time.monotonic()
        if arguments in self._answers:
            until, answer = self._answers[arguments]
            if now < until:
                return answer
        answer = self._run(arguments)
        self._answers[arguments] = (time.monotonic() + self._rest_s(arguments, answer), answer)
        return answer

    def _rest_s(self, arguments: tuple[str, ...], answer: Optional[str]) -> float:
        if answer is not None:
            self._failures[arguments] = 0
            return self._keep_s
        if arguments not in self._failures:
            return _RETRY_S
        self._failures[arguments] += 1
        return min(self._keep_s * 2 ** min(self._failures[arguments], 10), _RETRY_S)

    def _run(self, arguments: tuple[str, ...]) -> Optional[str]:
        try:
            done = subprocess.run(
                [str(self._path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.debug("%s %s: %s", self._path, " ".join(arguments), error)
            return None
        answer = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0 or answer.startswith("error"):
            log.debug("%s %s ended with %d: %s", self._path, " ".join(arguments), done.returncode, answer)
            return None
        return answer
