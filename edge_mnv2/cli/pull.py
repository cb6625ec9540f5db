"""`edge-mnv2 pull`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, argument, changed, flag, option
from edge_mnv2.cli.terminal import json_text, note
from edge_mnv2.errors import PARTIAL, DownloadError, EdgeMnv2Error, UsageError
from edge_mnv2.settings.kinds import Duration, Whole
from edge_mnv2.settings.option import variable

if TYPE_CHECKING:
    from edge_mnv2.zoo.entry import Entry

log = logging.getLogger(__name__)


def pull(
    names: Optional[list[str]] = argument(
        "[NAME...]", "Names from `models list`, or demo (a clip).", many=True, required=False
    ),
    everything: bool = flag("all", "Every model of the registry."),
    timeout: Optional[float] = option(
        "timeout", "Give a server up that is silent or slower than 512 bytes/s for so long (default 20).", Duration()
    ),
    retries: Optional[int] = option("retries", "Attempts at one server after the first (default 3).", Whole(0, 100)),
    ca: Optional[str] = changed("ca"),
    as_json: bool = JSON,
) -> None:
    """Download models into the cache and verify them."""
    from edge_mnv2.zoo import registry
    from edge_mnv2.zoo.pull import pull_all
    from edge_mnv2.zoo.web import Limits

    results: list[dict[str, Any]] = []
    document = filling({"results": results})
    if ca is not None:
        # Registry, models and what builds them: everything that this process downloads.
        os.environ[variable("ca")] = ca
    if not names and not everything:
        raise UsageError("nothing to pull", hint="give a name from `edge-mnv2 models list`, or --all")
    known = registry.load(refresh=True)
    wanted = list(dict.fromkeys([*(entry.name for entry in known.downloadable_models() if everything), *(names or [])]))
    limits = Limits.of(silence_s=timeout, retries=retries)
    errors: list[EdgeMnv2Error] = []
    for name, outcome in pull_all(known, wanted, limits, _build):
        if isinstance(outcome, EdgeMnv2Error):
            errors.append(outcome)
            results.append({"name": name, "error": " ".join(str(outcome).split())})
            if len(wanted) > 1 or as_json:
                note(f"edge-mnv2: error: {results[-1]['error']}")
            continue
        results.append(outcome.row())
        if not as_json:
            # On a terminal a path that does not fit beside the name stands below it.
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            row = f"{outcome.name}\t{outcome.path}"
            typer.echo(row if width is None or len(row.expandtabs()) < width else row.replace("\t", "\n  "))
    if as_json:
        typer.echo(json_text(document))
    elif errors and len(wanted) == 1:
        raise errors[0]
    if errors:
        codes = {error.exit_code for error in errors}
        alike = codes.pop() if len(codes) == 1 else DownloadError.exit_code
        raise typer.Exit(alike if len(errors) == len(wanted) else PARTIAL)


def _build(entry: Entry, out: Path) -> None:
    """Build the recipe of a registry's entry."""
    from edge_mnv2.builder.recipe import build
    from edge_mnv2.builder.request import BuildRequest

    recipe = entry.recipe
    log.info("%s is built on this device from trained weights", entry.name)
    build(
        BuildRequest(
            out=out,
            weights=recipe["weights"],
            resolution=recipe["resolution"],
            floating=recipe["float"],
            target=recipe["target"],
        ),
        lambda line: log.info("%s", line),
    )


COMMAND = Command(pull, examples=("edge-mnv2 pull demo", "edge-mnv2 pull --all"))
