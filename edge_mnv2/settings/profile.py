"""Settings in force, each with where it came from.

Precedence: command line, `EDGE_MNV2_*`, the profile and its parents, defaults. `resolve` is what every command calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.board.detect import Board, detect
from edge_mnv2.errors import ProfileError, SourceError, UsageError
from edge_mnv2.messages import shown
from edge_mnv2.settings.more_kinds import Control
from edge_mnv2.settings.option import COMMAND_LINE, ENVIRONMENT, variable
from edge_mnv2.settings.profile_file import ProfileFile, Stated
from edge_mnv2.settings.schema import (
    KEYS,
    MODEL_KEYS,
    OPTION_OF,
    OPTIONS,
    SECTIONS,
    Camera,
    Expected,
    Health,
    ModelOptions,
    Output,
    Preprocess,
    Runtime,
    check_thresholds,
)
from edge_mnv2.settings.store import choose, is_path, load, packaged_places, places, read, unknown_profile

__all__ = ["Origin", "Settings", "chain", "environment_overrides", "load", "resolve", "resolve_profile"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from.

    `kind` is "default", "packaged profile", "user profile", "profile file", "environment" or "command line"; `path` and
    `line` are set for the profiles, `name` for an environment variable.
    """

    kind: str
    path: Optional[Path] = None
    line: Optional[int] = None
    name: Optional[str] = None

    def __str__(self) -> str:
        if self.path is not None:
            file = self.path.name if self.kind == "packaged profile" else str(self.path)
            return f"{self.kind} {file}:{self.line}"
        return f"{self.kind} {self.name}" if self.name else self.kind


DEFAULT = Origin("default")
_KINDS_OF = {key: declared.kind for key, declared in {**KEYS, **MODEL_KEYS}.items()}
_ORIGINS = {"packaged": "packaged profile", "user": "user profile", "file": "profile file"}


@dataclass(frozen=True)
class Settings:
    """Every setting of a run. `origin("runtime.threads")` says where a value came from.

    `profile` is the profile's name, `path` its file, `reason` why it was chosen, `parents` the names that it extends.
    `board` is None where the profile was named and no board had to be looked at.
    """

    profile: str
    path: Path
    reason: str
    parents: tuple[str, ...]
    board: Optional[Board]
    camera: Camera
    preprocess: Preprocess
    runtime: Runtime
    output: Output
    health: Health
    expected: Expected
    model: ModelOptions
    origins: Mapping[str, Origin]

    def get(self, key: str) -> Any:
        """The value of a dotted key, such as "runtime.threads"."""
        section, _, name = key.partition(".")
        return getattr(getattr(self, section), name)

    def chosen(self, key: str) -> Any:
        """The value of a dotted key where the command line or a variable gave it, else None."""
        return self.get(key) if self.origin(key).kind in (COMMAND_LINE, ENVIRONMENT) else None

    def changed(self, key: str, value: Any) -> Settings:
        """These settings with one typed value, as if the command line had given it."""
        section, _, name = key.partition(".")
        part = dataclasses.replace(getattr(self, section), **{name: value})
        origins = {**self.origins, key: Origin(COMMAND_LINE)}
        return dataclasses.replace(self, **{section: part, "origins": origins})

    def origin(self, key: str) -> Origin:
        """Where the value of a dotted key came from; "camera.controls.NAME" for one control."""
        return self.origins.get(key, DEFAULT)

    def values(self) -> dict[str, Any]:
        """Every value by its dotted key, controls one by one."""
        values: dict[str, Any] = {}
        for key in KEYS:
            value = self.get(key)
            if isinstance(value, dict):
                values.update({f"{key}.{name}": setting for name, setting in sorted(value.items())})
            else:
                values[key] = value
        return values

    @contextlib.contextmanager
    def blamed(self, key: str) -> Iterator[None]:
        """Where a profile gave `key` its value, a UsageError or SourceError becomes a ProfileError with that place."""
        try:
            yield
        except (UsageError, SourceError) as error:
            origin = self.origin(key)
            if origin.path is None:
                raise
            raise ProfileError(f"{origin.path}:{origin.line}: {key}: {error.message}", hint=error.hint) from error


Overrides = Mapping[str, tuple[Any, str]]
"""Dotted key → (value, "command line" or "environment"); text is read as on a command line, None means not given."""


def resolve(
    device: Optional[Union[str, Path]] = None,
    overrides: Optional[Overrides] = None,
    root: Union[str, Path] = "/",
) -> Settings:
    """The settings for profile `device` (a name or a path), or for the board under `root` where it is None.

    Raises ProfileError where the profile is unknown or wrong, UsageError where an override is.
    """
    if device is not None and str(device) != "auto":
        named = "--device" if isinstance(device, Path) or is_path(str(device)) else "named by --device"
        return resolve_profile(load(device), overrides, reason=named)
    board = detect(root)
    profile, reason = choose(board)
    return resolve_profile(profile, overrides, reason=reason, board=board)


def resolve_profile(
    profile: ProfileFile,
    overrides: Optional[Overrides] = None,
    *,
    reason: str = "",
    board: Optional[Board] = None,
) -> Settings:
    """The settings of a profile that has been read, with its parents and `overrides`. Raises as `resolve`."""
    line = chain(profile)
    stated: dict[str, tuple[Any, Origin]] = {}
    for ancestor in reversed(line):
        for key, item in ancestor.values.items():
            value = _from_folder(ancestor.path, key, item.value)
            stated[key] = (value, Origin(_ORIGINS[ancestor.origin], ancestor.path, item.line))
    for key, (value, source) in (overrides or {}).items():
        if value is not None:
            stated[key] = _override(key, value, source)
    sections = {name: _section(name, cls, stated) for name, cls in (*SECTIONS.items(), ("model", ModelOptions))}
    _check_size(sections["camera"], stated)
    settings = Settings(
        profile=profile.name,
        path=profile.path,
        reason=reason,
        parents=tuple(ancestor.name for ancestor in line[1:]),
        board=board,
        origins={key: origin for key, (_, origin) in stated.items()},
        **sections,
    )
    _check_thresholds(settings)
    return settings


def _check_thresholds(settings: Settings) -> None:
    appear, gone = settings.output.appear, settings.output.gone
    if gone is None:
        return
    typed = any(
        settings.origin(f"output.{name}").kind in ("command line", "environment") for name in ("appear", "gone")
    )
    with contextlib.nullcontext() if typed else settings.blamed("output.gone"):
        check_thresholds(appear, gone)


def _check_size(camera: Camera, stated: Mapping[str, tuple[Any, Origin]]) -> None:
    if (camera.width is None) == (camera.height is None):
        return
    key, other = ("width", "height") if camera.height is None else ("height", "width")
    origin = stated[f"camera.{key}"][1]
    place = f"{origin.path}:{origin.line}: " if origin.path else ""
    raise ProfileError(f"{place}camera.{key} without camera.{other}", hint="give both, or leave both to the camera")


def chain(profile: ProfileFile) -> list[ProfileFile]:
    """The profile and its ancestors, the nearest first. Raises ProfileError for an unknown parent or a cycle."""
    line = [profile]
    while line[-1].extends is not None:
        parent = _parent(line[-1], line[-1].extends)
        seen = [ancestor.path.resolve() for ancestor in line]
        if parent.path.resolve() in seen:
            names = " extends ".join([*(ancestor.name for ancestor in line), parent.name])
            raise ProfileError(
                f"{line[-1].path}:{line[-1].extends.line}: {names}: a circle", hint="one of them has to extend base"
            )
        line.append(parent)
    return line


def _parent(profile: ProfileFile, extends: Stated) -> ProfileFile:
    name = extends.value
    place = f"{profile.path}:{extends.line}: extends: "
    if is_path(name):
        path = profile.path.parent / Path(name).expanduser()
        if not path.is_file():
            raise ProfileError(f"{place}no file {path}")
        return load(path)
    known = places()
    if name == profile.name and name in packaged_places():
        # The profile replaces a packaged one and builds on it.
        known = packaged_places()
    if name in known:
        return read(known[name])
    sibling = profile.path.with_name(f"{name}.yaml")
    if profile.origin == "file" and sibling.is_file():
        return load(sibling)
    raise unknown_profile(name, list(known), place)


def _section(section: str, cls: type, stated: Mapping[str, tuple[Any, Origin]]) -> Any:
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        key = f"{section}.{item.name}"
        if isinstance(_KINDS_OF[key], Control):
            below = {name[len(key) + 1 :]: value for name, (value, _) in stated.items() if name.startswith(f"{key}.")}
            values[item.name] = {name: value for name, value in below.items() if value is not None}
        elif key in stated:
            values[item.name] = stated[key][0]
    return cls(**values)


def _from_folder(path: Path, key: str, value: Any) -> Any:
    """A model's path in a profile counts from the profile's folder, wherever `run` is started."""
    if key != "runtime.model" or not isinstance(value, str) or not ("/" in value or value.endswith(".tflite")):
        return value
    return str(path.parent.absolute() / Path(value).expanduser())


def _override(key: str, value: Any, source: str) -> tuple[Any, Origin]:
    kind, option = _KINDS_OF[key], OPTION_OF.get(key)
    origin = Origin(source, name=option.variable if option is not None and source == ENVIRONMENT else None)
    try:
        return kind.parse(value) if isinstance(value, str) else kind.accept(value), origin
    except ValueError:
        called = key if option is None else option.called(source)
        raise UsageError(f"{called}: {shown(value)} is not {kind.expects}") from None


def environment_overrides(environ: Optional[Mapping[str, str]] = None) -> dict[str, tuple[Any, str]]:
    """What `EDGE_MNV2_*` variables say about settings, in the form that `resolve` takes. Raises UsageError."""
    environ = os.environ if environ is None else environ
    return option_overrides({name: environ.get(variable(name)) or None for name in OPTIONS}, ENVIRONMENT)


def option_overrides(options: Mapping[str, Optional[str]], source: str) -> dict[str, tuple[Any, str]]:
    """Options by their command-line names ("threads", "size") as overrides of the settings that they stand for.

    Names that stand for no setting are passed over. Raises UsageError for a size that is none.
    """
    overrides: dict[str, tuple[Any, str]] = {}
    for name, text in options.items():
        option = OPTIONS.get(name)
        if option is None or text is None:
            continue
        texts = [text] if len(option.keys) == 1 else map(str, option.parse(text, source))
        overrides.update({key: (part, source) for key, part in zip(option.keys, texts)})
    return overrides
