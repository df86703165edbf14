"""What every room raises when the cause lies in the user's input and not in the program."""


class TwostreamError(Exception):
    """An error whose message is meant for the user: what was got, where, and what would do.

    The command line prints it as one message without a traceback and exits with status 1. Each room derives its own
    (``VideoError``, ``FlowStoreError``, ``DataError`` ...), so that callers can tell them apart.
    """


class UsageError(TwostreamError):
    """A call that cannot be carried out as written: an unknown name or a contradictory option (exit status 2)."""
