import resource
import signal
from types import SimpleNamespace

import pytest

import generate_text


@pytest.fixture
def drive(capsys):
    """Runs the driver in this process; gives its exit code and what it printed."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*argv):
        try:
            code = generate_text.main([str(word) for word in argv])
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, limits)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
