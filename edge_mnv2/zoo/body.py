"""What a server sent instead of the file: said in words, from the first bytes of the body."""

from __future__ import annotations

import html
import re
from typing import Optional

HEAD_BYTES = 64 << 10
SNIFF_BYTES = 512

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(!doctype html|html|head|body|meta|script|title)\b", re.I | re.S)
_MOST_SHOWN = 80


def describe(head: bytes) -> Optional[str]:
    """The first bytes of a body in words ("an HTML page 'Sign in'"), None where they are no text."""
    if not head:
        return "an empty body"
    text = _text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    if _MARKUP.match(start):
        title = _TITLE.search(text)
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
