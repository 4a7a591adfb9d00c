"""The server behind the page: Voila on 127.0.0.1, with our frame around the notebook."""

import contextlib
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from idealized_runtime.page.files import FOLDER_SETTING

_SHARE = Path(__file__).parent / "share"
# In the repository page/planner.ipynb is another name of it.
NOTEBOOK = _SHARE / "planner.ipynb"
# Further machines, as JSON: a kernel gets no arguments.
MACHINES_SETTING = "IDEALIZED_RUNTIME_PAGE_MACHINES"
HOST, PORT = "127.0.0.1", 8866
# Neither a notebook nor an address chooses another frame; only the widgets' own scripts are loaded; and a kernel waits,
# with all that is imported, for the next page.
_SETTINGS = (
    "template=planner", "allow_template_override=NO", "allow_theme_override=NO", "show_tracebacks=False",
    "extension_allowlist=@jupyter-widgets/jupyterlab-manager", "extension_allowlist=@voila-dashboards/widgets-manager8",
    "preheat_kernel=True", "default_pool_size=1",
)  # fmt: skip
# A page that is closed ends its kernel. One that cannot say so, since it had not loaded yet or was killed, leaves a
# kernel that nobody talks to: it is ended after so long.
_FORSAKEN_S = 300
# Of a message that brings a file, a third longer than the file.
_MOST_BYTES = 80_000_000


def serve(*, port: int | None, opens_browser: bool, machines: Sequence[str] = (), say: Callable[[str], None] = print):
    """Serve the planner until it is interrupted.

    Parameters
    ----------
    port : int or None
        None: the usual one, or a free one where that is taken.
    opens_browser : bool
    machines : sequence of str
        Further folders of timing logs.
    say
        Called with the address once the page can be opened.

    Raises
    ------
    OSError
        The port is taken.
    """
    # Held from here on, so that of two that start at once each has its own.
    listening = _listening_socket(port)
    port = listening.getsockname()[1]
    from idealized_runtime.page.kernels import begin_imports

    begin_imports()
    # With it, jsonschema, which Voila imports, would build a grammar for a second, to check a kind of address.
    sys.modules.setdefault("rfc3987_syntax", None)
    from jupyter_core.utils import run_sync
    from tornado.httpserver import HTTPServer
    from tornado.web import HTTPError
    from voila.app import Voila
    from voila.tornado.handler import TornadoVoilaHandler

    class Page(TornadoVoilaHandler):
        """Has the cookie sent that a page which is closed must show to end its kernel."""

        async def get(self, path=None):
            # Tornado sets it when its value is first asked for.
            _ = self.xsrf_token
            await super().get(path)

    class Planner(Voila):
        """Says where it listens, and opens that in a browser, as soon as it does."""

        def init_handlers(self):
            *others, (pattern, _, options) = super().init_handlers()
            return [*others, (pattern, Page, options)]

        def listen(self):
            address = f"http://{HOST}:{port}/"
            say(f"The planner is at {address} (Ctrl-C ends it)")
            if opens_browser:
                threading.Timer(0.1, webbrowser.open, [address]).start()
            self.app.listen = lambda *_: HTTPServer(self.app).add_socket(listening)
            super().listen()

        def stop(self):
            # Killed, since a kernel that is interrupted while it still starts prints a traceback. One that has ended
            # meanwhile is said to be none; all end with this process.
            with contextlib.suppress(HTTPError):
                run_sync(self.kernel_manager.shutdown_all)(now=True)
            shutil.rmtree(self.connection_dir)

    with tempfile.TemporaryDirectory(prefix="idealized-runtime-") as files:
        os.environ[FOLDER_SETTING], os.environ[MACHINES_SETTING] = files, json.dumps(list(machines))
        # Before what is installed for the user: another template of this name would be taken.
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(_SHARE), os.environ.get("JUPYTER_PATH")]))
        logging.getLogger("tornado.general").setLevel(logging.ERROR)
        Planner.clear_instance()
        app = Planner.instance(
            ip=HOST, port=port, port_retries=0, open_browser=False, log_level=logging.ERROR,
            tornado_settings={"websocket_max_message_size": _MOST_BYTES},
        )  # fmt: skip
        # As flags, which go before the configuration files of whoever runs it.
        flags = [f"--MappingKernelManager.cull_idle_timeout={_FORSAKEN_S}"]
        # Else every kernel prints that it talks in plain text.
        flags += ["--KernelManager.transport_encryption=auto", *(f"--VoilaConfiguration.{one}" for one in _SETTINGS)]
        app.initialize([str(NOTEBOOK), *flags])
        app.start()


def is_page() -> bool:
    """Whether this is the kernel of a page, and not of a notebook."""
    return "VOILA_PREHEAT" in os.environ


def asked_link() -> str:
    """What stands behind the ``?`` of the address that this kernel's page was asked for with; waits for that page.

    Empty in a notebook.
    """
    if not is_page():
        return ""
    if os.environ["VOILA_PREHEAT"] == "False":
        # Started for a page that came before a kernel was waiting for one.
        return os.environ["QUERY_STRING"]
    # As voila.utils.get_query_string, which would import the whole server.
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    port, base, kernel = (os.environ[f"VOILA_{name}"] for name in ("APP_PORT", "SERVER_URL", "KERNEL_ID"))
    try:
        with connect(f"ws://{HOST}:{port}{base}voila/query/{kernel}") as asked:
            return json.loads(asked.recv())["QUERY_STRING"]
    except (OSError, WebSocketException):
        # The server ended before a page was asked for; what is computed now would find no socket to go to, loudly.
        os._exit(0)


def _listening_socket(port) -> socket.socket:
    """Listens to the port that is asked for, if nobody else does; without one to the usual, or any that is free."""
    for asked in [port] if port is not None else [PORT, 0]:
        try:
            listening = socket.create_server((HOST, asked))
        except OSError as error:
            if port is not None:
                raise OSError(
                    f"port {port} of {HOST} cannot be had ({os.strerror(error.errno)}): name another by --port"
                ) from error
            continue
        # Its server waits for several things at once.
        listening.setblocking(False)
        return listening
    raise OSError(f"no port of {HOST} is free")
