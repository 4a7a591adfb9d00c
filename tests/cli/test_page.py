import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.page import server


def test_port_that_is_taken_is_refused(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["page", "--port", str(port), "--no-browser"]) == 2
    said = f"port {port} of 127.0.0.1 cannot be had ({os.strerror(errno.EADDRINUSE)}): name another by --port"
    assert said in capsys.readouterr().err


def test_usual_port_gives_way_to_a_free_one_where_it_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(server, "PORT", taken.getsockname()[1])
        # Each holds its own before it serves anything.
        with server._listening_socket(None) as first, server._listening_socket(None) as second:
            ports = {one.getsockname()[1] for one in (taken, first, second)}
    assert len(ports) == 3


def test_two_that_start_at_once_have_an_address_each(tmp_path):
    pytest.importorskip("voila")
    command = [sys.executable, "-m", "idealized_runtime", "page", "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
            )
            for _ in range(2)
        ]
        for one in servers:
            stack.callback(one.terminate)
        addresses = [re.search(r"http://\S+", one.stderr.readline())[0] for one in servers]
        assert len(set(addresses)) == 2
        for address in addresses:
            with urllib.request.urlopen(address, timeout=60) as page:
                assert b"What does it cost to run a Transformer?" in page.read()
        assert [one.poll() for one in servers] == [None, None]


def test_machine_that_cannot_be_read_is_refused(capsys):
    assert main(["page", "--no-browser", "--logs", "nowhere"]) == 2
    assert "no timing logs of hardware 'nowhere'" in capsys.readouterr().err


def test_kernel_that_was_started_for_a_page_waits_for_no_other(monkeypatch):
    monkeypatch.setenv("VOILA_PREHEAT", "False")
    monkeypatch.setenv("QUERY_STRING", "model=gpt-j")
    assert server.asked_link() == "model=gpt-j"


def test_browser_opens_by_itself_and_an_interrupt_ends_the_server(tmp_path):
    pytest.importorskip("voila")
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BROWSER": f"{browser} %s"}
    command = [sys.executable, "-m", "idealized_runtime", "page"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        line = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        until = time.monotonic() + 60
        while not opened.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert opened.read_text().strip() == address
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT), rest
    assert "Traceback" not in rest
