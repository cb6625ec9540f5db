"""`edge-mnv2 review`: answer what was collected, without a run."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import argument, outputs, settings
from edge_mnv2.settings.kinds import File

if TYPE_CHECKING:
    from edge_mnv2.outputs.table import OutputValues
    from edge_mnv2.settings.profile import Settings

_INTERRUPTED = 130


def review(
    folders: list[Path] = argument("DIR...", "Folders that `run --collect` has written.", File(), many=True),
    page: OutputValues = outputs("web", on="8080"),
    resolved: Settings = settings("runtime.model", "runtime.threads"),
) -> None:
    """Answer collected pictures on a page, of one board or several, and teach from the answers."""
    from edge_mnv2.app.board_models import taught_in_place_of
    from edge_mnv2.app.workbench import ModelWorkbench
    from edge_mnv2.board.cpus import resolve_threads
    from edge_mnv2.datasets.collection import Collection, Collections
    from edge_mnv2.outputs.live import Live
    from edge_mnv2.zoo.registry import DEFAULT_MODEL

    collections = [Collection(folder, create=False) for folder in folders]
    for collection in collections:
        # One that can only be read is shown as it is.
        with contextlib.suppress(OSError):
            collection.tidy()
    model = resolved.runtime.model or DEFAULT_MODEL
    live = Live()
    live.workbench = bench = ModelWorkbench(
        collections[0] if len(collections) == 1 else Collections(collections),
        model,
        threads=resolve_threads(resolved.runtime.threads)[0],
        # What the next run over this collection begins with.
        in_use=taught_in_place_of(model, folders[0]),
    )
    (server,) = page.outputs[0].open(page, live)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        server.close()
        bench.close()


COMMAND = Command(
    review, examples=("edge-mnv2 review collected", "edge-mnv2 review board-1 board-2 --web 0.0.0.0:8080")
)
