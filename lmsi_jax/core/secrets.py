"""Keys and passwords: they stay in the memory of this process, and are removed from everything that is shown or stored."""

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
SHORTEST = 4  # characters of a secret that is hidden; a shorter one protects nothing, and may be part of a word
SCHEME = r"[a-z][a-z0-9+.-]{0,19}://"  # of bounded length, so that a search takes time linear in the text
URL = re.compile(rf"{SCHEME}\S+", re.IGNORECASE)
LOGIN = re.compile(rf"({SCHEME})([^/?#\s]*)@([^/?#\s]*)", re.IGNORECASE)
PARAMETER = re.compile(r"([?&](?:[\w.-]*(?:key|token|password|secret)|sig|signature|auth)=)([^&#\s'\"]+)", re.IGNORECASE)
_known: set[str] = set()
_logins: dict[str, str] = {}  # the value of an Authorization header, by "scheme://host:port"


def register(*secrets: str) -> None:
    """Make `redact` hide these secrets, also in their URL-quoted and `repr` forms."""
    for secret in secrets:
        forms = {secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1]}
        _known.update(form for form in forms if len(form) >= SHORTEST)


def redact(text: str) -> str:
    """Return `text` with `***` for each secret given to `register`, and for every login and key in a URL."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = LOGIN.sub(rf"\1{HIDDEN}@\3", text)
    return PARAMETER.sub(rf"\1{HIDDEN}", text)


def strip(value: T) -> T:
    """Return `value` (a text, or nested dicts, lists and tuples of texts) without the logins and keys of its URLs.

    A login (`http://USER:PASSWORD@host`) is removed and stored for `authorization`. A key (`?key=...`) is replaced by `***`
    and is not used. `redact` hides both from then on.
    """
    taken: Any = value
    if isinstance(value, str):
        taken = URL.sub(lambda url: PARAMETER.sub(_take_parameter, LOGIN.sub(_take_login, url[0])), value)
    elif isinstance(value, dict):
        taken = {key: strip(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        taken = type(value)(strip(item) for item in value)
    return taken


def scrub(argv: Sequence[str]) -> list[str]:
    """Return the arguments of a command in a form that may be stored and shown; see `strip`."""
    return [strip(argument) for argument in argv]


def authorization(url: str) -> str:
    """Return the Authorization header for the login that `strip` removed from a URL of this host; "" without a login."""
    scheme, _, rest = url.partition("://")
    return _logins.get(f"{scheme}://{re.split('[/?#]', rest)[0]}".lower(), "")


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a stack trace without secrets; the signature is that of `sys.excepthook`."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _take_login(match: re.Match[str]) -> str:
    scheme, login, host = match.groups()
    user, colon, password = login.partition(":")
    encoded = base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
    _logins[f"{scheme}{host}".lower()] = f"Basic {encoded}"
    register(login, password if colon else user, encoded)
    return f"{scheme}{host}"


def _take_parameter(match: re.Match[str]) -> str:
    register(match[2])
    return f"{match[1]}{HIDDEN}"
