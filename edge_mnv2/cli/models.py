"""`edge-mnv2 models list|show|verify|remove|pin|versions|use`, and `edge-mnv2 pull`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command, Commands, filling
from edge_mnv2.cli.options import JSON, argument, changed, flag, option
from edge_mnv2.cli.terminal import aligned, json_text, note, print_row
from edge_mnv2.errors import PARTIAL, DownloadError, EdgeMnv2Error, ModelError, UsageError
from edge_mnv2.settings.kinds import Duration, File, Whole
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


PULL = Command(pull, examples=("edge-mnv2 pull demo", "edge-mnv2 pull --all"))


def list_models(as_json: bool = JSON) -> None:
    """Every model that is known by name, and where it is."""
    from edge_mnv2.zoo import inventory, registry

    rows = [inventory.row(entry) for entry in registry.load(refresh=True)]
    if as_json:
        kinds = {"models": [row for row in rows if row["kind"] == "model"]}
        typer.echo(json_text({**kinds, "others": [row for row in rows if row["kind"] != "model"]}))
        return
    header, cells = inventory.table(rows)
    typer.echo(aligned(cells, header, least=(6, 1, 2)))


def show(name: str = argument("NAME", "A name from `models list`."), as_json: bool = JSON) -> None:
    """One entry in full: labels, licence, origin, sources, sha256."""
    from edge_mnv2.zoo import inventory, registry

    details = inventory.details(registry.load(refresh=True).get(name))
    if as_json:
        typer.echo(json_text(details))
        return
    for line in inventory.description(details).split("\n"):
        head, colon, text = line.partition(": ")
        print_row(head + colon + " " * (len(text) - len(text.lstrip())), text.lstrip())


def verify(
    names: Optional[list[str]] = argument(
        "[NAME...]", "Names from `models list`; all that are here without one.", many=True, required=False
    ),
    as_json: bool = JSON,
) -> None:
    """Hash the files that are here and compare them with the registry."""
    from edge_mnv2.zoo import inventory, registry

    known = registry.load()
    rows: list[dict[str, Any]] = []
    document = filling({"ok": None, "models": rows})
    for entry in [known.get(name) for name in names] if names else known:
        files = inventory.verify(entry)
        if names and not files:
            raise ModelError(f"{entry.name} is not on this device", hint=f"edge-mnv2 pull {entry.name}")
        rows += files
    if as_json:
        typer.echo(json_text({**document, "ok": all(row["problem"] is None for row in rows)}))
    else:
        for row in rows:
            typer.echo(f"{'ok' if row['problem'] is None else 'DAMAGED'}\t{row['name']}\t{row['path']}")
    for row in rows:
        if row["problem"] is not None:
            note(f"edge-mnv2: error: {row['path']}: {row['problem']}: {inventory.remedy(row)}")
    if any(row["problem"] is not None for row in rows):
        raise typer.Exit(ModelError.exit_code)


def remove(
    names: list[str] = argument("NAME...", "Names from `models list`.", many=True),
    as_json: bool = JSON,
) -> None:
    """Delete models from the cache."""
    from edge_mnv2.zoo import inventory, registry

    known = registry.load()
    removed = [str(path) for entry in [known.get(name) for name in names] for path in inventory.remove(entry)]
    typer.echo(json_text({"removed": removed}) if as_json else "\n".join(removed))


def pin(
    registry: Optional[Path] = argument(
        "[REGISTRY]", "A team's registry.yaml; default: this checkout's.", File(), required=False
    ),
    as_json: bool = JSON,
) -> None:
    """Write sha256 and size of the files beside a registry into it, for whoever keeps one."""
    from edge_mnv2 import paths
    from edge_mnv2.zoo import inventory

    path = registry if registry is not None else paths.packaged("models", "registry.yaml")
    changed = inventory.pin(path)
    said = f"{path}: {', '.join(changed) or 'unchanged'}"
    typer.echo(json_text({"registry": str(path), "changed": changed}) if as_json else said)


def list_versions(
    model: str = argument("MODEL", "A taught model's file, or NAME@latest."),
    as_json: bool = JSON,
) -> None:
    """Former versions of a taught model: date, accuracy, number of pictures, which one is in use."""
    from edge_mnv2.zoo import versions

    former = versions.versions(_own_file(model))
    if as_json:
        typer.echo(json_text({"model": model, "versions": [one.as_dict() for one in former]}))
        return
    rows = [
        [
            str(one.number),
            one.date.replace("T", " ")[:16],
            "-" if one.accuracy is None else f"{one.accuracy:.1%}",
            "-" if one.pictures is None else str(one.pictures),
            "in use" if one.current else "",
        ]
        for one in former
    ]
    typer.echo(aligned(rows, ["version", "date", "held-out accuracy", "pictures", ""]))


def use(
    wanted: str = argument("MODEL@VERSION", "A taught model's file, or NAME@latest, and the number of a version."),
    as_json: bool = JSON,
) -> None:
    """Take a version of a taught model back into use. The one in use until now is kept."""
    from edge_mnv2.zoo import versions

    name, _, number = wanted.rpartition("@")
    if not name or not number.isdecimal():
        raise UsageError(f"'{wanted}' is not MODEL@VERSION", hint="such as kiosk.tflite@2; see `models versions`")
    version = versions.use(_own_file(name), int(number))
    said = f"{name}: version {version.number} of {version.date.replace('T', ' ')[:16]} is in use"
    typer.echo(json_text(version.as_dict()) if as_json else said)


def _own_file(model: str) -> Path:
    """The file of a model of the user's own. Raises UsageError for what the registry knows by name."""
    from edge_mnv2.zoo import latest

    name = latest.name_of(model)
    path = Path(model) if name is None else latest.home_of(name)
    if path.suffix != ".tflite":
        hint = "versions are kept of taught models and of NAME@latest: name FILE.tflite, or NAME@latest"
        raise UsageError(f"'{model}' is not a model file", hint=hint)
    return path


COMMAND = Commands(
    {
        "list": Command(list_models, "list", examples=("edge-mnv2 models list",)),
        "show": Command(show, examples=("edge-mnv2 models show mobilenet_v2_1.0_224_int8",)),
        "verify": Command(verify, examples=("edge-mnv2 models verify",)),
        "remove": Command(remove, examples=("edge-mnv2 models remove mobilenet_v2_1.0_224_quant",)),
        "pin": Command(pin, examples=("edge-mnv2 models pin team/registry.yaml",)),
        "versions": Command(list_versions, "versions", examples=("edge-mnv2 models versions kiosk.tflite",)),
        "use": Command(use, examples=("edge-mnv2 models use kiosk.tflite@2",)),
    },
    name="models",
    help="The model zoo: what is known, what is here, what may be trusted.",
)
