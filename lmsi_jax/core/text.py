"""Text that can be written and read again, whatever it came from."""

import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean_text(text: str) -> str:
    """`text` with pairs of surrogates joined, and U+FFFD for each surrogate that stands alone: UTF-8 can hold it then.

    Example: ``clean_text("\\ud83d\\ude00 \\ud83d")`` is a smiling face, a space and U+FFFD.
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def clean(value: Any) -> Any:
    """The same for every text in a JSON value, the names of its fields included."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def printable(text: str) -> str:
    """`text` for a terminal: control characters but line breaks and tabs are spelled out, as they could move the cursor."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", clean_text(text))
