"""What a command says beside its answer."""

import sys
import warnings
from contextlib import contextmanager


@contextmanager
def warnings_as_lines(program: str):
    """Warnings become lines like those of errors, without the place in our code that found them."""

    def show(message, *_, **__):
        print(f"{program}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
