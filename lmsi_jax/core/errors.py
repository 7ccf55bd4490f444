"""The one exception for what a user can put right."""


class UserError(Exception):
    """Bad input. The message gives the numbers, the cause and the remedy.

    The command line prints it as one paragraph and exits with status 2.
    """
