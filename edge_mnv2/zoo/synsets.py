"""Lists of ImageNet's classes that name them by WordNet id, alone or before the name.

An id that is needed stands behind the name as a further one ("crane, n02012849"), by which the class is found too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from edge_mnv2.paths import packaged

_SYNSET = re.compile(r"(?P<id>n\d{8})(?:[ \t]*[:,;][ \t]*|[ \t]+|$)(?P<name>\S.*)?")
_COUNTED = re.compile(r"(?P<number>\d{1,7})(?:[ \t]*[:,;][ \t]*|[ \t]+)(?P<name>\S.*)")


def imagenet_names() -> dict[str, str]:
    """WordNet id → name of ImageNet's 1000 classes, in the order of their class index."""
    ids, names = (packaged("models", "labels", f"{file}.txt") for file in ("imagenet_wnids", "imagenet"))
    return dict(zip(ids.read_text(encoding="ascii").split(), names.read_text(encoding="utf-8").splitlines()))


def without_synsets(names: list[str], is_background: Callable[[str], bool]) -> list[str]:
    """The names of a list in which each stands behind its WordNet id. An id alone stays, behind ImageNet's name.

    Lists of another kind are left as they are; the background has no id.
    """
    matches = [_SYNSET.fullmatch(name) for name in names]
    if not any(matches) or not all(match or is_background(name) for match, name in zip(matches, names)):
        return names
    known = imagenet_names() if any(match and match["name"] is None for match in matches) else {}
    ids = [match["id"] if match else "" for match in matches]
    texts = [name if match is None else unquoted(match["name"] or "") for match, name in zip(matches, names)]
    # ImageNet's development kit counts them from 1 behind the id, others from 0: `n02119789 1 kit_fox`.
    counted = [_COUNTED.fullmatch(text) if one else None for text, one in zip(texts, ids)]
    numbers = [int(match["number"]) for match in counted if match]
    if any(numbers == list(range(first, first + len(list(filter(None, ids))))) for first in (0, 1)):
        texts = [unquoted(match["name"]) if match else text for match, text in zip(counted, texts)]
    alone = [f"{known[synset]}, {synset}" if synset in known else synset for synset in ids]
    return distinct_names([text or name for text, name in zip(texts, alone)], ids)


def distinct_names(names: list[str], ids: Sequence[str]) -> list[str]:
    """`names`, with the WordNet id behind those that several classes have (ImageNet has two cranes)."""
    uses = Counter(name.casefold() for name in names)
    return [
        f"{name}, {one}" if uses[name.casefold()] > 1 and _SYNSET.fullmatch(one) else name
        for name, one in zip(names, ids)
    ]


def unquoted(cell: str) -> str:
    """A cell of a CSV file without its quotes."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
