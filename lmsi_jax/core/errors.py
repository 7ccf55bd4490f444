"""The one exception for what a user can put right, and the one for being told to stop."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message gives the numbers, the cause and the remedy.

    The command line prints it as one paragraph and exits with status 2.
    """


class Terminated(BaseException):
    """SIGTERM, so that open files and checkpoints are closed on the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was most likely meant to be."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
