"""`python -m edge_mnv2.zoo.pin [REGISTRY]`: write size and sha256 of the files beside a registry into it.

For whoever keeps a registry: ours (without an argument, in a checkout) or a team's. Only entries whose file is there
are touched; comments and order stay.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from edge_mnv2 import paths
from edge_mnv2.errors import EdgeMnv2Error, ProfileError
from edge_mnv2.strict_yaml import read_plain
from edge_mnv2.zoo.digest import sha256_of
from edge_mnv2.zoo.entry import parse_entries

_UNPINNED = "0" * 64


def pin(path: Path) -> list[str]:
    """Update `path` in place; the names of the entries that changed. Raises ProfileError, OSError."""
    lines = path.read_text(encoding="utf-8").split("\n")
    changed = []
    for name, start, end in _blocks(lines):
        block = lines[start:end]
        file = next(
            (m.group(1) for line in block if (m := re.fullmatch(r" +file: *([^ #]+).*", line))), f"{name}.tflite"
        )
        if not (path.parent / file).is_file():
            continue
        values = {
            "sha256": sha256_of(path.parent / file, fresh=True),
            "bytes": str((path.parent / file).stat().st_size),
        }
        updated = _with_values(block, values)
        if updated != block:
            lines[start:end] = updated
            changed.append(name)
    if changed:
        with paths.atomic_write(path, "w") as handle:
            handle.write("\n".join(lines))
    ours = path.resolve() == paths.packaged("models", "registry.yaml").resolve()
    where = (None, None) if ours else (str(path), f"{path.resolve().parent}/")
    parse_entries(read_plain(path, ProfileError), str(path), *where)
    return changed


def _blocks(lines: list[str]) -> list[tuple[str, int, int]]:
    """(name, first line, line after the last) of each entry, last entry first: lines may be added on the way."""
    starts = [
        (m.group(1), row) for row, line in enumerate(lines) if (m := re.fullmatch(r"  ([\w.-]+):\s*(?:#.*)?", line))
    ]
    ends = [row for _, row in starts[1:]] + [len(lines)]
    return [(name, row, end) for (name, row), end in zip(starts, ends)][::-1]


def _with_values(block: list[str], values: dict[str, str]) -> list[str]:
    for key, value in values.items():
        rows = [row for row, line in enumerate(block) if re.match(rf"    {key}:", line)]
        if rows:
            block = [f"    {key}: {value}" if row == rows[0] else line for row, line in enumerate(block)]
        else:
            block = [block[0], f"    {key}: {value}", *block[1:]]
    return block


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else paths.packaged("models", "registry.yaml")
    try:
        changed = pin(path)
    except (EdgeMnv2Error, OSError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(f"{path}: {', '.join(changed) if changed else 'nothing to change'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
