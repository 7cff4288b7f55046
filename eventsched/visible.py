"""Text of others, made safe to show: a job's name may hold what a terminal would obey.

Escape sequences can move the cursor, change titles or forge lines; a newline forges a row of a
table; marks of writing direction turn a text around. All of them are shown as their escapes.
"""

from __future__ import annotations

import re

_HIDDEN = "\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_HIDDEN}]")


def visible(text: object) -> str:
    r"""`text` on one line, its control characters as escapes (`\n`, `\x1b`, `\u202e`)."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def visible_json(text: str) -> str:
    """JSON as it is, but for characters JSON itself lets pass raw: they become its own escapes."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
