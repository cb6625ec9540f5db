"""What is packed in a model file beside its graph: the scaling of its input and the names of its classes.

`.tflite`: its metadata (TFLITE_METADATA; field numbers are those of its schema) and the files in the archive at its
end. `.onnx`: its properties.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

from edge_mnv2.errors import LabelsError
from edge_mnv2.tflite.ir import PIXELS
from edge_mnv2.tflite.wire_formats import Damaged, Flatbuffer, Table
from edge_mnv2.zoo.labels import fit_labels, parse_labels

_LABEL_KEYS = ("names", "labels", "classes", "class_names", "class_labels", "categories")
_LABEL_SUFFIXES = (".txt", ".labels", ".pbtxt", ".json", ".csv")
_AXIS_LABELS = 2
_OTHER_FILES = (1, 4, 5, 6)
"""What metadata calls descriptions, calibration of scores (a line a class too), vocabularies and indices."""
_MOST_LABEL_BYTES = 4 << 20


@dataclass(frozen=True)
class Packed:
    """What stands beside the graph. `labels`: output's position, -1 for none in particular → (file or property, names;
    none that cannot be read). `loose`: lists that the metadata say nothing of. `mean` and `std` in pixel units.
    `producer`: the program that wrote an ONNX file."""

    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None
    labels: Mapping[int, tuple[str, list[str]]] = field(default_factory=dict)
    task: str = ""
    producer: str = ""
    loose: Sequence[tuple[str, list[str]]] = ()

    def names_for(self, path: str, position: int, rows: int) -> tuple[str, Optional[list[str]]]:
        """(file, names) for output `position`, ("", None) without any; of loose lists the one that has `rows` names.

        Raises LabelsError where that leaves the choice to people.
        """
        listed = self.labels.get(position, self.labels.get(-1))
        if listed is not None or not self.loose:
            return listed or ("", None)
        # One number may be one class or two.
        fitting = [one for one in self.loose if len(one[1]) == rows or (rows == 1 and len(one[1]) == 2)]
        fitting = fitting or [one for one in self.loose if _fits(one[1], rows)] or list(self.loose)
        titled = [one for one in fitting if re.search("label|class|name", one[0], re.IGNORECASE)]
        fitting = titled if len(titled) == 1 else fitting
        if all(names == fitting[0][1] for _, names in fitting):
            return fitting[0]
        counts = ", ".join(f"{file}: {len(names)}" for file, names in fitting[:4])
        raise LabelsError(
            f"{path} has {len(fitting)} lists packed that may be its {rows} classes' names ({counts})",
            hint=f"unpack the right one (unzip {path}) and give it with --labels",
        )


def beside_tflite(data: bytes, model: Table, buffers: Sequence[Table]) -> Packed:
    """What the metadata of a `.tflite` and the archive at its end say."""
    mean = std = None
    wanted: dict[str, list[int]] = {}
    others: set[str] = set()
    for entry in model.tables(6):
        number = entry.scalar(1, "<I")
        if entry.text(0) not in ("TFLITE_METADATA", PIXELS) or not 0 < number < len(buffers):
            continue
        start, count = buffers[number].vector(0, 1)
        if entry.text(0) == PIXELS:
            said = _numbers(data[start : start + count].decode("ascii", "replace")) or ()
            mean, std = (said[:1], said[1:]) if len(said) == 2 else (None, None)
            continue
        with contextlib.suppress(Damaged, struct.error, IndexError):
            root = Flatbuffer(data[start : start + count]).root()
            subgraph = root.tables(3)[0]
            for unit in [unit for one in subgraph.tables(2)[:1] for unit in one.tables(4)]:
                options = unit.table(1)
                if unit.scalar(0, "<B") == 1 and options is not None:
                    mean, std = tuple(options.numbers(0, "f")) or None, tuple(options.numbers(1, "f")) or None
            for position, output in enumerate(subgraph.tables(3)):
                named = [file.text(0) for file in output.tables(6) if file.scalar(2, "<b") == _AXIS_LABELS]
                for name in named[:1]:
                    wanted.setdefault(name, []).append(position)
            tensors = [*subgraph.tables(2), *subgraph.tables(3)]
            files = [*root.tables(6), *subgraph.tables(4), *(file for one in tensors for file in one.tables(6))]
            others.update(file.text(0) for file in files if file.scalar(2, "<b") in _OTHER_FILES)
    lists = list(_archived_lists(data, wanted, others))
    labels = {position: one for one in lists for position in wanted.get(one[0], ())}
    return Packed(mean, std, labels, loose=[one for one in lists if one[0] not in wanted])


def _archived_lists(data: bytes, wanted: Collection[str], others: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """(file, names) of those that are `wanted`, else of all but the `others`; no names where they cannot be read."""
    if b"PK\x05\x06" not in data[-66000:]:
        return
    faults = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error)
    with contextlib.suppress(*faults), zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [one for one in archive.infolist() if one.file_size <= _MOST_LABEL_BYTES]
        named = [one for one in members if one.filename in wanted]
        texts = (one for one in members if one.filename.lower().endswith(_LABEL_SUFFIXES))
        for member in named or [one for one in texts if one.filename not in others]:
            names: list[str] = []
            with contextlib.suppress(LabelsError):
                names = parse_labels(archive.read(member), member.filename)
            if names or named:
                yield member.filename, names


def _fits(names: Sequence[str], rows: int) -> bool:
    with contextlib.suppress(LabelsError):
        return bool(fit_labels(names, rows))
    return False


def beside_onnx(properties: Mapping[str, str], producer: str) -> Packed:
    """What the properties of an `.onnx` say."""
    mean, std = (_numbers(properties.get(key, "")) for key in ("mean", "std"))
    labels = {}
    for key in _LABEL_KEYS:
        with contextlib.suppress(LabelsError, LookupError):
            if listed := properties.get(key, "")[:_MOST_LABEL_BYTES].strip():
                labels[-1] = (f"property {key}", _names(listed, key))
                break
    if mean is None and std is None and properties.get("author", "").startswith("Ultralytics"):
        # Its classifiers take fractions of 255, without mean and standard deviation.
        mean, std = (0.0,), (255.0,)
    return Packed(mean, std, labels, properties.get("task", ""), producer)


def _names(text: str, key: str) -> list[str]:
    """Names in any form of a label file, or between commas."""
    if text[0] not in "[{" and "\n" not in text:
        text = text.replace(",", "\n")
    return parse_labels(text.encode(), key)


def _numbers(text: str) -> Optional[tuple[float, ...]]:
    with contextlib.suppress(ValueError):
        numbers = tuple(float(part) for part in text.strip(" []()").replace(",", " ").split())
        return numbers or None
    return None
