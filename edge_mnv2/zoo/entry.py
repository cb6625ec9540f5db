"""What a registry says about one file: the typed form of an entry of `models/registry.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union
from urllib.parse import urljoin, urlsplit

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.errors import ProfileError, UsageError
from edge_mnv2.strict_yaml import Fields
from edge_mnv2.zoo.model_facts import Measured, Preprocess, parse_measured, parse_preprocess

KINDS = ("model", "clip", "weights")
TASKS = ("classification", "regression")
DTYPES = ("uint8", "int8", "float32")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+")
_MEMBER = re.compile(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\\\x00-\x1f]+")


@dataclass(frozen=True)
class PackageSource:
    """A file that ships with edge-mnv2, below `models/`."""

    file: str

    def __str__(self) -> str:
        return "package"


@dataclass(frozen=True)
class UrlSource:
    """A file on a web server."""

    url: str

    def __str__(self) -> str:
        return without_credentials(self.url)


@dataclass(frozen=True)
class PipSource:
    """A member of the wheel of a package on the user's Python index; `package` is pinned ("NAME==VERSION")."""

    package: str
    member: str

    def __str__(self) -> str:
        return f"pip {self.package}"


@dataclass(frozen=True)
class FolderSource:
    """A file in a folder: beside a team's registry, or in a mirror."""

    path: str

    def __str__(self) -> str:
        return self.path


Source = Union[PackageSource, UrlSource, PipSource, FolderSource]


@dataclass(frozen=True)
class ModelInput:
    """Shape with the batch dimension (NHWC) and dtype of a model's input."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{'x'.join(str(n) for n in self.shape[1:])} {self.dtype}"


RUNS_ON = ("cpu", "edgetpu")
"""What a registry may say that a model is for."""


@dataclass(frozen=True)
class Entry:
    """One file that is known by name.

    `sha256` and `bytes` are None only where a `recipe` builds the file. `labels` is the name of a packaged list, a file
    name beside the registry, or the names themselves. `registry` is None for ours, else the address of the team's
    registry; `base` is then that registry's folder or URL, with a slash at its end.
    """

    name: str
    summary: str
    kind: str
    file: str
    sha256: Optional[str]
    bytes: Optional[int]
    licence: str
    origin: str
    attribution: Optional[str] = None
    task: Optional[str] = None
    input: Optional[ModelInput] = None
    outputs: Optional[int] = None
    labels: Union[str, tuple[str, ...], None] = None
    labels_sha256: Optional[str] = None
    background: Optional[str] = None
    unit: Optional[str] = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    measured: Measured = field(default_factory=Measured)
    runs_on: str = "cpu"
    twin: Optional[str] = None
    sources: tuple[Source, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    registry: Optional[str] = None
    base: Optional[str] = None

    @property
    def cpu(self) -> Optional[str]:
        """The name to use on a CPU: this one, its twin, or None."""
        return None if self.kind != "model" else self.name if self.runs_on == "cpu" else self.twin

    @property
    def tpu(self) -> Optional[str]:
        """The name to use on an accelerator: this one, its twin, or None."""
        return None if self.kind != "model" else self.name if self.runs_on != "cpu" else self.twin

    @property
    def package_file(self) -> Optional[str]:
        """Where a model ships below `models/`, to be used there, or None. Clips that ship are copied to the cache."""
        if self.kind != "model":
            return None
        return next((source.file for source in self.sources if isinstance(source, PackageSource)), None)

    @property
    def label_file(self) -> Optional[str]:
        """The label file beside a team's registry, or None (packaged list, names in place, no labels)."""
        return self.labels if isinstance(self.labels, str) and "." in self.labels else None


def parse_entries(document: Any, file: str, registry: Optional[str] = None, base: Optional[str] = None) -> list[Entry]:
    """The entries of a registry document, checked. Raises ProfileError naming `file`, entry and key."""
    top = Fields(document, file, ProfileError)
    models = top.mapping("models")
    top.end()
    if not models:
        raise ProfileError(f"{file} has no models in it", hint="it needs a mapping `models:`")
    entries = []
    for name, values in models.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ProfileError(f"{file}: '{name}' cannot be a model's name", hint="use letters, digits, dots, _ and -")
        entries.append(_entry(name, Fields(values, f"{file}: {name}", ProfileError), registry, base))
    _check_twins(entries, file)
    return entries


def _entry(name: str, fields: Fields, registry: Optional[str], base: Optional[str]) -> Entry:
    kind = fields.text("kind", KINDS) or "model"
    file = fields.text("file") or f"{name}.tflite"
    if not _NAME.fullmatch(file):
        raise fields.wrong("file", "a plain file name, without folders")
    recipe = _recipe(fields)
    sha256, size = fields.text("sha256"), fields.integer("bytes", 1)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise fields.wrong("sha256", "64 hex digits in lower case")
    for key, value in (("sha256", sha256), ("bytes", size)):
        if value is None and not recipe:
            raise fields.missing(key)
    labels, labels_sha256 = _labels(fields, base)
    entry = Entry(
        name=name,
        kind=kind,
        file=file,
        sha256=sha256,
        bytes=size,
        summary=fields.text("summary") or "",
        licence=(fields.text("licence") if registry else fields.required_text("licence")) or "not stated",
        origin=(fields.text("origin") if registry else fields.required_text("origin")) or str(registry),
        attribution=fields.text("attribution"),
        task=fields.text("task", TASKS) or ("classification" if kind == "model" else None),
        input=_input(fields),
        outputs=fields.integer("outputs", 1),
        labels=labels,
        labels_sha256=labels_sha256,
        background=fields.text("background", ("first", "last", "none")),
        unit=fields.text("unit"),
        preprocess=parse_preprocess(fields),
        measured=parse_measured(fields),
        runs_on=fields.text("runs_on", RUNS_ON) or "cpu",
        twin=fields.text("twin"),
        sources=_sources(fields, file, bool(recipe), base),
        recipe=recipe,
        registry=registry,
        base=base,
    )
    fields.end()
    return entry


def _labels(fields: Fields, base: Optional[str]) -> tuple[Union[str, tuple[str, ...], None], Optional[str]]:
    labels, digest = fields.text_or_names("labels"), fields.text("labels_sha256")
    if isinstance(labels, str):
        if not _NAME.fullmatch(labels):
            raise fields.wrong("labels", "a plain name, without folders")
        if "." in labels and base is None:
            raise fields.wrong("labels", "the name of a list in models/labels, without .txt")
        if "." in labels and digest is None and _is_url(base or ""):
            raise fields.missing("labels_sha256")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise fields.wrong("labels_sha256", "64 hex digits in lower case")
    return labels, digest


def _recipe(fields: Fields) -> dict[str, Any]:
    """Options of `edge-mnv2 build` by their names; only what can be built from weights that are pinned themselves."""
    values = fields.mapping("recipe")
    if values is None:
        return {}
    inner = Fields(values, f"{fields.place}: recipe", ProfileError)
    recipe = {
        "weights": inner.text("weights", ("imagenet",)) or "imagenet",
        "resolution": inner.integer("resolution", 32) or 224,
        "float": inner.flag("float"),
        "target": inner.text("target", RUNS_ON) or "cpu",
    }
    inner.end()
    return recipe


def _input(fields: Fields) -> Optional[ModelInput]:
    values = fields.mapping("input")
    if values is None:
        return None
    inner = Fields(values, f"{fields.place}: input", ProfileError)
    shape, dtype = inner.sequence("shape"), inner.text("dtype", DTYPES)
    inner.end()
    if shape is None or dtype is None:
        raise inner.missing("shape" if shape is None else "dtype")
    if len(shape) != 4 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise inner.wrong("shape", "four whole numbers: batch, height, width, channels")
    return ModelInput(tuple(shape), dtype)


def _sources(fields: Fields, file: str, has_recipe: bool, base: Optional[str]) -> tuple[Source, ...]:
    listed = fields.sequence("sources")
    if listed is None and base is not None and not has_recipe:
        return (_beside(base, file),)
    if not listed and not has_recipe:
        raise fields.missing("sources")
    return tuple(_source(fields, item, base) for item in listed or [])


def _source(fields: Fields, item: Any, base: Optional[str]) -> Source:
    inner = Fields(item, f"{fields.place}: sources", ProfileError)
    package, beside = inner.text("package"), inner.text("beside")
    url, pip = inner.text("https") or inner.text("http"), inner.mapping("pip")
    inner.end()
    if len([kind for kind in (package, beside, url, pip) if kind is not None]) != 1:
        raise fields.wrong("sources", "a list of items with one key each: package, https, pip or beside")
    if package is not None:
        if base is not None or not _MEMBER.fullmatch(package):
            raise inner.wrong("package", "a file below models/, in the registry that ships with edge-mnv2")
        return PackageSource(package)
    if beside is not None:
        if base is None or not _MEMBER.fullmatch(beside):
            raise inner.wrong("beside", "a file beside a team's registry")
        return _beside(base, beside)
    if url is not None:
        if not _is_url(url):
            raise inner.wrong("https", "a URL with a host")
        return UrlSource(url)
    wheel = Fields(pip, f"{inner.place}: pip", ProfileError)
    name, member = wheel.required_text("package"), wheel.required_text("member")
    wheel.end()
    if not _PINNED.fullmatch(name):
        raise wheel.wrong("package", "pinned: NAME==VERSION")
    if not _MEMBER.fullmatch(member):
        raise wheel.wrong("member", "a path inside the wheel")
    return PipSource(name, member)


def _beside(base: str, file: str) -> Source:
    return UrlSource(urljoin(base, file)) if _is_url(base) else FolderSource(base + file)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def without_credentials(url: str) -> str:
    """`url` as it may be shown: without user, password and query."""
    try:
        return StreamUrl.parse(url).shown.partition("?")[0]
    except UsageError:
        return redact(url).partition("?")[0]


def _check_twins(entries: list[Entry], file: str) -> None:
    named = {entry.name: entry for entry in entries}
    for entry in entries:
        if entry.twin is None:
            continue
        twin = named.get(entry.twin)
        if twin is None or twin.twin != entry.name or twin.runs_on == entry.runs_on:
            raise ProfileError(
                f"{file}: {entry.name}: its twin '{entry.twin}' must be here, run on the other device and name it too"
            )
