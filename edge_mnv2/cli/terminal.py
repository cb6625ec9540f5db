"""Standard streams that can be counted on, tables of plain text, and a line that changes while a person types.

Whatever the shell, the service manager or the locale hands over, stdout takes results and stderr takes messages.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import IO, Any, Callable, Optional, cast

from edge_mnv2.addresses import hide_known
from edge_mnv2.messages import Filtered, console, for_people, in_place, one_line, unfiltered, visible


def prepare() -> None:
    """Put a stream in the place of each that is closed, and let stdout take every name a file can have.

    What is written to a closed stdout fails as on a full disk; what is written to a closed stderr is dropped.
    """
    sys.stdin = sys.stdin or _null(os.O_RDONLY, "r")
    # It can be opened, but not written to.
    sys.stdout = sys.stdout or _null(os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _null(os.O_WRONLY, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if isinstance(sys.stdout.buffer, io.RawIOBase):
            # PYTHONUNBUFFERED: what could not be written has to stay for `problem`.
            sys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer), line_buffering=True)
        # Programs are promised UTF-8, a terminal keeps its own encoding. The escape of a byte that is no text (\udce9)
        # is JSON's own.
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    if not isinstance(sys.stdout, Filtered):
        sys.stdout = cast(Any, Filtered(sys.stdout, hide_known, best_effort=False))
    sys.stderr = for_people(sys.stderr)


def problem(stdout: IO[str]) -> Optional[OSError]:
    """Why what was printed there cannot be written, None where it has been. After that, what is left is dropped."""
    try:
        stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stdout.fileno())
            os.close(null)
        return error
    return None


def _null(flags: int, mode: str) -> IO[str]:
    descriptor = os.open(os.devnull, flags)
    # Programs that are started find it in the closed one's place.
    os.set_inheritable(descriptor, True)
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def json_text(document: Any) -> str:
    """The document of `--json`, as every command prints it."""
    return json.dumps(document, ensure_ascii=False, indent=2)


def aligned(
    rows: Sequence[Sequence[str]],
    header: Optional[Sequence[str]] = None,
    right: Sequence[int] = (),
    least: Sequence[int] = (),
) -> str:
    """`rows` with columns padded to one width; the columns in `right` end together. The last column is never padded.

    On a terminal that is too narrow, columns of `least` are left out, the first one first, and the last column breaks
    between words.
    """
    every = [[one_line(cell) for cell in row] for row in ([header] if header is not None else []) + list(rows)]
    if not every:
        return ""
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    columns, room = list(range(len(widths))), _columns(sys.stdout)
    for column in least:
        if room is not None and sum(widths[each] + 2 for each in columns) - 2 > room:
            columns.remove(column)
    start = sum(widths[column] + 2 for column in columns[:-1])
    widest = max(columns[:-1], key=widths.__getitem__, default=0)
    if room is not None and start > room - _LEAST_ROOM and start + widths[columns[-1]] > room:
        usual, *longer = sorted({len(row[widest]) for row in every})[-2:]
        if longer and sum(len(row[widest]) > usual for row in every) == 1 and start + usual - longer[0] <= room - 1:
            # One cell must not push all the others off.
            start, widths[widest] = start + usual - longer[0], usual
    lines = []
    for row in every:
        if len(row[widest]) > widths[widest]:
            head = "  ".join(row[each].ljust(widths[each]) for each in columns[:-1])
            lines.append(f"{broken(head, 2, room)}\n{broken(' ' * start + row[columns[-1]], start, room)}")
            continue
        cells = [row[each].rjust(widths[each]) if each in right else row[each].ljust(widths[each]) for each in columns]
        line = "  ".join(cells).rstrip()
        lines.append(line if room is None or start > room - _LEAST_ROOM else broken(line, start, room))
    return "\n".join(lines)


_LEAST_ROOM = 20
"""Signs that a column must have to be broken in."""


def _columns(stream: IO[str]) -> Optional[int]:
    """How many signs fit on a line of a terminal, None elsewhere."""
    return shutil.get_terminal_size().columns - 1 if stream.isatty() else None


def broken(text: str, indent: int, room: Optional[int]) -> str:
    """`text` in lines of at most `room` signs, broken between words, those after the first by `indent` to the right.

    Where a word (a path, a hash) is too long for that, everything behind the indent begins on a line of its own.
    """
    if room is None or len(text) <= room:
        return text
    if indent > 2 and max(map(len, text[indent:].split()), default=0) > room - indent:
        return f"{text[:indent]}\n{broken('  ' + text[indent:], 2, room)}"
    filler = textwrap.TextWrapper(
        room, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    # What stands before the indent is columns, whose blanks are not to be broken at.
    filler.initial_indent = text[:indent]
    return filler.fill(text[indent:])


def fitted(text: str) -> str:
    """A line for stdout, broken between words on a terminal."""
    return broken(text, 2, _columns(sys.stdout))


def print_row(head: str, text: str, colour: str = "") -> None:
    """Print `text` beside `head`, broken on a terminal; `head` in a colour (an ANSI number) where they are wanted."""
    line = broken(f"{head}{text}", len(head), _columns(sys.stdout))
    if colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        unfiltered(sys.stdout).write(f"\x1b[{colour}m{head}\x1b[0m")
        line = line[len(head) :]
    print(line, flush=True)


class Wrapped(logging.Formatter):
    """Messages on a terminal break between words; elsewhere one stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        room = _columns(sys.stderr)
        return "\n".join(broken(line, 2, room) for line in super().format(record).split("\n"))


def note(text: str) -> None:
    """A line on stderr; above a bar that is drawn there (click's own stream would write into it)."""
    print(broken(text, 2, _columns(sys.stderr)), file=sys.stderr, flush=True)


@contextlib.contextmanager
def bar() -> Iterator[Optional[Callable[[str, int, int], None]]]:
    """What draws a bar on a terminal, given (what is done, steps done, steps in all; 0: unknown); None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with in_place(Progress(*columns, console=console(), transient=True)) as drawn:
        task = drawn.add_task("", total=None, visible=False)

        def draw(words: str, done: int, total: int) -> None:
            drawn.update(task, description=words, completed=done, total=total or None, visible=True)

        yield draw


class Line:
    """Off a terminal the changing line is not shown at all."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the changing line."""
        if self._shown:
            text = visible(text)
            unfiltered(sys.stderr).write(f"\r{text:<{self._width}}")
            sys.stderr.flush()
            self._width = len(text)

    def say(self, text: str) -> None:
        """Put a line above it that stays."""
        self.show("")
        unfiltered(sys.stderr).write(f"{chr(13) if self._shown else ''}{visible(text)}\n")
        sys.stderr.flush()


def typed_line() -> Optional[str]:
    """The line that was typed since the last call, without waiting; None where Enter was not pressed."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return None
    return sys.stdin.readline().strip()
