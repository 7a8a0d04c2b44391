"""What can go wrong, as sentences for the person who started the command."""


class Problem(Exception):
    """The command cannot go on. The text is one line that says what to do."""


class Unavailable(Exception):
    """One peer cannot be had or started here. The text goes into the results as the reason."""


class Interrupted(BaseException):
    """A signal ends the command. Not an Exception, so that nothing but the clean-up catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def one_line(text: str, limit: int = 300) -> str:
    """The text without line breaks, cut to `limit` characters."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 3] + "..."
