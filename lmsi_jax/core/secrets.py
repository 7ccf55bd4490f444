"""Keys and passwords: held in the memory of this process, and taken out of everything that is shown or stored."""

import base64
import re
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, unquote, unquote_to_bytes

T = TypeVar("T")
HIDDEN = "***"
SHORTEST = 4  # characters of a secret; to hide a shorter one would hide parts of words, and it protects nothing
SCHEME = r"[a-z][a-z0-9+.-]{0,19}://"  # of bounded length, so that a search takes time in proportion to the text
URL = re.compile(rf"{SCHEME}\S+", re.IGNORECASE)
LOGIN = re.compile(rf"({SCHEME})([^/?#\s]*)@([^/?#\s]*)", re.IGNORECASE)
PARAMETER = re.compile(r"([?&](?:[\w.-]*(?:key|token|password|secret)|sig|signature|auth)=)([^&#\s'\"]+)", re.IGNORECASE)
_known: set[str] = set()
_logins: dict[str, str] = {}  # the value of an Authorization header, by "scheme://host:port"


def keep(*secrets: str) -> None:
    """Have `redact` hide these from here on, also in the forms that URLs and `repr` give them."""
    for secret in secrets:
        forms = {secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1]}
        _known.update(form for form in forms if len(form) >= SHORTEST)


def redact(text: str) -> str:
    """`text` with `***` for what was kept, and for every login and key in a URL."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = LOGIN.sub(rf"\1{HIDDEN}@\3", text)
    return PARAMETER.sub(rf"\1{HIDDEN}", text)


def take(value: T) -> T:
    """`value` (a text, or a nest of dicts, lists and tuples of them) without the logins and keys of its URLs.

    A login (`http://USER:PASSWORD@host`) is left out, and kept for `authorization`. `***` takes the place of a key
    (`?key=...`), which is not used.
    """
    taken: Any = value
    if isinstance(value, str):
        taken = URL.sub(lambda url: PARAMETER.sub(_take_parameter, LOGIN.sub(_take_login, url[0])), value)
    elif isinstance(value, dict):
        taken = {key: take(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        taken = type(value)(take(item) for item in value)
    return taken


def scrub(argv: Sequence[str]) -> list[str]:
    """The arguments of a command as they may be stored and shown, see `take`."""
    return [take(argument) for argument in argv]


def authorization(url: str) -> str:
    """The Authorization header by the login that `take` found for the host of this URL; "" without one."""
    scheme, _, rest = url.partition("://")
    return _logins.get(f"{scheme}://{re.split('[/?#]', rest)[0]}".lower(), "")


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a stack trace without secrets, as `sys.excepthook`."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _take_login(found: re.Match[str]) -> str:
    scheme, login, host = found.groups()
    user, colon, password = login.partition(":")
    encoded = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    _logins[f"{scheme}{host}".lower()] = f"Basic {encoded}"
    keep(login, password if colon else user, encoded)
    return f"{scheme}{host}"


def _take_parameter(found: re.Match[str]) -> str:
    keep(found[2])
    return f"{found[1]}{HIDDEN}"
