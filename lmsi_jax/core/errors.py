"""The two exceptions of the package: one for what a user can correct, and one for SIGTERM."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message gives the numbers, the cause and the remedy.

    The command line prints it as one paragraph and exits with status 2.
    """


class Terminated(BaseException):
    """Raised on SIGTERM, so that open files and checkpoints are closed on the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the one of the `known` names that is closest to `name` in spelling."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


def unknown(category: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not among the `known` ones; `category` is "stage" or "preset", for example."""
    names = list(known)
    return UserError(
        f"There is no {category} '{name}'; the nearest is '{nearest(name, names)}'. Choose from: {', '.join(names)}."
    )
