import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from idealized_runtime.measurements.published import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Neither a sandbox, which root may not have, nor anything that asks a network.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Of a page on a machine that does other things, too.
PATIENCE_MS = 60_000


@contextlib.contextmanager
def serving(folder, *flags):
    """The address and the process of a planner that is served for as long as this lasts, from a folder with a page."""
    (folder / "page").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("raise SystemExit")]), folder / "page" / "planner.ipynb")
    command = [sys.executable, "-m", "idealized_runtime", "page", "--no-browser", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder) as server:
        try:
            for line in server.stderr:
                if found := re.search(r"http://\S+", line):
                    yield found[0], server
                    return
            raise AssertionError("the server ended without an address")
        finally:
            server.terminate()
            server.communicate(timeout=30)


@pytest.fixture(scope="session")
def browser():
    """A real Chromium; without one, tests are skipped with a sentence, in continuous integration they fail."""
    if CHROMIUM is None:
        sentence = "the page is tested in Chromium, which is not installed (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            raise RuntimeError(sentence)
        pytest.skip(sentence)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@pytest.fixture(scope="session")
def address(browser, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("served")) as (found, _):
        yield found


@pytest.fixture
def own_server(browser, tmp_path):
    """A server that no other test opens pages of: its address and its process."""
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def open_page(browser, address):
    """Opens the planner with a state; at the end nothing may have gone wrong in the console or asked another host."""
    faults, contexts = [], []

    def open_one(link="", *, width=1300, height=900):
        context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: is_elsewhere(request.url, address) and faults.append(f"asked {request.url}"))
        page.goto(f"{address}?{link}")
        page.wait_for_selector(".answer p")
        page.wait_for_selector(".figures img, .numbers p, .numbers section")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def commands_run(tmp_path_factory):
    """Runs a line of the page in a shell, as a reader would: its JSON."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "idealized-runtime"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m idealized_runtime "$@"\n')
    program.chmod(0o755)

    def run(line):
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            f"{line} --json", shell=True, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def is_elsewhere(url, address):
    return not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
