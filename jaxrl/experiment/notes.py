"""What a user should know and what stops nothing."""


class Note(UserWarning):
    """A warning of the experiments; the command line prints it in one line."""
