import os
import signal
import sys

# One thread for each worker, before numpy comes: two workers whose threads wait for each other on two cores take up to
# twenty times as long for the small matrices of a test.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from idealized_runtime.measurements.published import PublishedDataMissingError, published_data


def pytest_configure():
    """A shell has what it starts in the background ignore interrupts, which the programs of tests are sent."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def published():
    """The folder of published measurements."""
    return published_data()


@pytest.fixture(autouse=True)
def close_figures():
    """Leave no figure of a test behind; one that draws none does not pay for matplotlib."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def _skip_without_published_data():
    """Skip a test whose published data are absent, with a sentence; in continuous integration that is an error.

    Public repositories hold only a part of them, so a file in the folder may be missing too.
    """
    try:
        return (yield)
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true" or not _is_published(error):
            raise
        pytest.skip(str(error))


def _is_published(error: FileNotFoundError) -> bool:
    if isinstance(error, PublishedDataMissingError):
        return True
    return str(error.filename).startswith(str(published_data()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from _skip_without_published_data())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from _skip_without_published_data())
