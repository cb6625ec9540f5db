"""What a file is by its first bytes, for the message about one that is not what it should be."""

from __future__ import annotations

import re
from typing import Optional

LFS_POINTER = "a Git LFS pointer, not the file itself"

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(!doctype html|html|head|body|meta|script|title)\b", re.I | re.S)
_MOST_SHOWN = 80
_BINARY = (
    (0, b"PK", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (4, b"TFL3", "a .tflite model"),
    (0, b"\0" * 8, "zeros at its beginning: the copy did not finish"),
)


def content(head: bytes) -> Optional[str]:
    """The first bytes of a file in words ("a ZIP archive", "an HTML page 'Sign in'"), None for an unknown kind."""
    for start, mark, words in _BINARY:
        if head[start : start + len(mark)] == mark:
            return words
    return text_content(head)


def text_content(head: bytes) -> Optional[str]:
    """The first bytes of a text in words ("an HTML page 'Sign in'"), None where they are no text."""
    if not head:
        return "an empty body"
    text = _text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("version https://git-lfs"):
        return LFS_POINTER
    if _MARKUP.match(start):
        title = _TITLE.search(text)
        import html

        name = " ".join(html.unescape(title.group(1)).split())[:_MOST_SHOWN] if title else ""
        return f"an HTML page '{name}'" if name else "an HTML page"
    if start[:1] == "<":
        return "an XML document"
    first = " ".join(start.split("\n", 1)[0].split())[:_MOST_SHOWN]
    return f"text that begins '{first}'" if first else "an empty page"


def _text(head: bytes) -> Optional[str]:
    """The head as text, None where it holds bytes that text does not."""
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    text = head.decode("utf-8", errors="replace")
    # A page in another encoding is still a page; half of a binary file is not.
    return text if text.count("\ufffd") <= len(text) // 4 else None
