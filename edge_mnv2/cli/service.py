"""`edge-mnv2 service install|status|logs|remove`."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.command import Command, Commands
from edge_mnv2.cli.options import JSON, REST, flag, option
from edge_mnv2.cli.run import COMMAND as RUN
from edge_mnv2.cli.run import run_request
from edge_mnv2.cli.terminal import json_text
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Whole

if TYPE_CHECKING:
    from edge_mnv2.app.run import RunRequest
    from edge_mnv2.service.command import Account
    from edge_mnv2.service.systemd import Manager
    from edge_mnv2.service.unit import Unit

log = logging.getLogger(__name__)

NAME: Any = option("name", "The service's name.", default="edge-mnv2", metavar="NAME")


def install(
    name: str = NAME,
    run_as: Optional[str] = option(
        "run-as", "The user that it runs as (default: the one who called sudo).", metavar="USER"
    ),
    watchdog: int = option(
        "watchdog",
        "Start anew after so many seconds without an inference.",
        Whole(5, 86400, unit="seconds"),
        default=60,
        metavar="SECONDS",
    ),
    dry_run: bool = flag("dry-run", "Print the unit and change nothing."),
    words: list[str] = REST,
) -> None:
    """Start `edge-mnv2 run OPTIONS` at boot: give the options of `run` here, the camera at least.

    As root (sudo) a service of the system, in a sandbox; else one of your own systemd.
    """
    from edge_mnv2.service.command import Account, keep_secrets
    from edge_mnv2.service.systemd import Manager, exposure, refuse_a_second
    from edge_mnv2.service.systemd import install as put_in_place

    manager = Manager(system=os.geteuid() == 0)
    if run_as is not None and not manager.system:
        raise UsageError("--run-as needs root", hint="run it with sudo")
    account = Account.named(run_as)
    unit = _unit(_checked(name), words, account, manager, watchdog)
    text = unit.text()
    score = exposure(name, text)
    if dry_run:
        typer.echo(text, nl=False)
    else:
        refuse_a_second(manager, name, account)
        if not account.can_run(Path(unit.words[0])):
            raise UsageError(
                f"{unit.words[0]} cannot be started by {account.name}",
                hint="install it where that user may read it, or give --run-as",
            )
        for folder in unit.needs.written:
            account.make_folder(folder)
        if unit.secrets:
            keep_secrets(unit.environment_files[-1], unit.secrets, account)
        logs = f"edge-mnv2 service logs{'' if name == 'edge-mnv2' else f' --name {name}'}"
        status = put_in_place(manager, name, text, log_hint=f"`{logs}` shows more")
        path = manager.unit_path(name)
        state = "starts at the next boot" if status is None else f"is ready: {status}"
        log.info("%s %s", name, state)
        log.info(
            "unit %s, as %s%s", path, account.name, f", exposure {score} (systemd-analyze security)" if score else ""
        )
    _advise(unit, account, manager)
    if dry_run and score:
        log.info("exposure by systemd-analyze security: %s (0 is best, 10 worst)", score)


def _unit(name: str, words: list[str], account: Account, manager: Manager, watchdog: int) -> Unit:
    """The unit for `run WORDS`. Raises the error that `run` would, and UsageError for what no service can do."""
    from edge_mnv2 import paths
    from edge_mnv2.runtime import table
    from edge_mnv2.runtime.opening import model_spec
    from edge_mnv2.service.command import absolute, needs, program, variables, without_secrets
    from edge_mnv2.service.systemd import version
    from edge_mnv2.service.unit import Unit
    from edge_mnv2.zoo.registry import DEFAULT_MODEL
    from edge_mnv2.zoo.resolve import resolve as resolve_model

    call = RUN.read(words, "edge-mnv2 run")
    words = absolute(RUN.spelled_out(words), Path.cwd(), call.options)
    words, secrets = without_secrets(words, call.options)
    with account.stands_in({}):
        shared = paths.config_dir() / "environment"
    own = shared if name == NAME.default else shared.with_name(f"environment-{name}")
    files = list(dict.fromkeys([shared, own]))
    # Nothing else of a file that the user writes: PATH, for instance, would decide which programs root runs here.
    known = {
        variable: value
        for path in files
        for variable, value in variables(path, account).items()
        if variable.startswith("EDGE_MNV2_")
    }
    with account.stands_in({**known, **secrets}), tempfile.TemporaryDirectory() as scratch:
        folders = account.own_folders()
        # What is remembered of the model now would be root's, in a folder of the user.
        os.environ["EDGE_MNV2_STATE_DIR"] = scratch
        call = RUN.read(words, "edge-mnv2 run")
        request = call.fill(run_request)
        settings = request.settings
        if request.outputs["log"] == "-" or call.value(JSON).value:
            raise UsageError("a service has no stdout", hint="leave --json out, and give --log a file")
        model = settings.runtime.model or DEFAULT_MODEL
        model_spec(resolve_model(model), settings.model)
        output = settings.output
        pauses = {"the profile's output.gate_refresh_s": output.gate_refresh_s if output.gate else 0.0}
        if settings.camera.fps is not None:
            pauses["the time between two pictures (--fps)"] = 1 / settings.camera.fps
        longest = max(pauses, key=lambda name: pauses[name])
        if pauses[longest] * 2 > watchdog:
            raise UsageError(
                f"--watchdog {watchdog} is too short for inferences every {pauses[longest]:g} s",
                hint=f"at least twice {longest}",
            )
        source = _source(request)
        texts = [model, *(str(call.value(each).value) for each in call.options)]
        requirements = needs(
            request.outputs,
            texts,
            source,
            folders,
            devices=table.service_devices(model, settings.runtime.backend),
            delegate=settings.runtime.delegate,
        )
    return Unit(
        name=name,
        words=[str(program()), "run", *words],
        what=_shown(source),
        needs=requirements,
        version=version(),
        user=account.name if manager.system else None,
        environment_files=files,
        secrets=secrets,
        environment=account.environment(),
        watchdog_s=watchdog,
    )


def _source(request: RunRequest) -> str:
    """The camera or source, which must be named. Raises UsageError."""
    from edge_mnv2.camera.settings import parse

    spec = request.camera if request.camera is not None else request.source
    if spec is None or spec in ("auto", "first"):
        raise UsageError(
            "a service needs an explicit camera: which one is first may differ from boot to boot",
            hint="--camera 0, better --camera /dev/v4l/by-id/... (`edge-mnv2 devices cameras` shows them), or --source",
        )
    if not spec.startswith("/dev/"):
        parse(spec)
    return spec


def _shown(source: str) -> str:
    from edge_mnv2.addresses import redact

    return redact(f"camera {source}" if source.isdigit() else source)


def _advise(unit: Unit, account: Account, manager: Manager) -> None:
    path = unit.environment_files[-1]
    for variable in unit.secrets:
        log.info("%s=... is in %s, which other users cannot read, and not in the unit", variable, path)
    for path in unit.environment_files:
        if path.exists() and path.stat().st_mode & 0o077:
            log.warning("%s can be read by other users: chmod 600 %s", path, path)
    if manager.system:
        return
    if not account.lingers:
        log.warning(
            "it starts when you log in; to have it start at power-on: sudo loginctl enable-linger %s", account.name
        )
    from edge_mnv2.service.unit import groups

    lacking = [group for group in groups(unit.needs) if group not in account.groups]
    if lacking and account.uid != 0:
        log.warning(
            "cameras may be refused: sudo usermod -aG %s %s, then log in again", ",".join(lacking), account.name
        )


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise UsageError(f"--name {name}", hint="letters, digits, - and _")
    return name


def _installed(name: str) -> Manager:
    """Where the service is installed, the system first; the place that fits the current user where it is in none."""
    from edge_mnv2.service.systemd import Manager

    for manager in (Manager(system=True), Manager(system=False)):
        if manager.unit_path(name).is_file():
            return manager
    return Manager(system=os.geteuid() == 0)


def status(name: str = NAME, as_json: bool = JSON) -> None:
    """Whether it runs, since when, how often it was started anew; exit code 1 where it does not run."""
    from edge_mnv2.service.systemd import report, shown

    state = report(_installed(_checked(name)), name)
    typer.echo(json_text(state) if as_json else shown(state))
    raise typer.Exit(0 if state["active"] else 1)


def logs(
    name: str = NAME,
    lines: int = option("lines", "How many of the last lines.", Whole(1), default=50, short="n"),
    follow: bool = flag("follow", "Go on with what comes.", short="f"),
) -> None:
    """Show what it wrote to the journal."""
    words = _installed(_checked(name)).journal(
        name, [f"--lines={lines}", "--no-pager", *(["--follow"] if follow else [])]
    )
    os.execvp(words[0], words)


def remove(name: str = NAME, dry_run: bool = flag("dry-run", "Say what would be done.")) -> None:
    """Stop it and start it at boot no more; models, profiles and logs stay."""
    from edge_mnv2.service.systemd import remove as take_away

    manager = _installed(_checked(name))
    path = manager.unit_path(name)
    if dry_run:
        log.info("%s", f"would stop {name} and remove {path}" if path.is_file() else f"{name} is not installed")
    elif path.is_file() and manager.system and os.geteuid() != 0:
        raise UsageError(f"{path} is the system's", hint="run it with sudo")
    else:
        log.info("%s", f"removed {path}" if take_away(manager, name) else f"{name} is not installed: nothing to remove")


COMMAND = Commands(
    {
        "install": Command(
            install,
            examples=("sudo edge-mnv2 service install --camera /dev/video0 --log /var/log/edge-mnv2/results.jsonl",),
        ),
        "status": Command(status, examples=("edge-mnv2 service status",)),
        "logs": Command(logs, examples=("edge-mnv2 service logs -f",)),
        "remove": Command(remove, examples=("sudo edge-mnv2 service remove",)),
    },
    name="service",
    help="Start `run` at boot, watched by its inferences.",
)
