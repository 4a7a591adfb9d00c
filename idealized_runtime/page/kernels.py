"""Kernels of the page, each forked from a process that has imported all that a page needs: one is there at once."""

import asyncio
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

_NAME = "idealized-runtime-page"
_IMPORTED = ["idealized_runtime.page.imported"]
# Kernels begin here: what is awaited of a thread is awaited in any loop, as the server ends its kernels from another.
_THREADS = ThreadPoolExecutor(max_workers=4)


def begin_imports():
    """Have another process import what kernels need, and fork the kernels of this process from it.

    Where a process cannot safely be forked, which is everywhere but on Linux, kernels start by themselves, and later.
    """
    factory = KernelProvisionerFactory.instance()
    own = ForkedKernel if sys.platform == "linux" else KernelHere
    factory.provisioners[_NAME] = EntryPoint(_NAME, f"{__name__}:{own.__name__}", factory.GROUP_NAME)
    factory.default_provisioner_name = _NAME
    if own is ForkedKernel:
        # It imports what this process would, and nothing that lies in the folder it happens to be in.
        os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONSAFEPATH="1")
        # What comes with IPython's debugger would print a warning.
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
        multiprocessing.set_forkserver_preload(_IMPORTED)
        multiprocessing.forkserver.ensure_running()


class KernelHere(LocalProvisioner):
    """A kernel that works in the folder of the command, where paths that were given to that lead somewhere."""

    async def launch_kernel(self, cmd, *, cwd=None, **options):
        """Start it."""
        return await super().launch_kernel(cmd, **options)


class ForkedKernel(LocalProvisioner):
    """A kernel whose process is forked, as a kernel manager starts, asks and ends it."""

    _started = None

    async def launch_kernel(self, cmd, *, env, **_):
        """Begin to start it: the frame of the page is sent meanwhile."""
        file = cmd[cmd.index("-f") + 1]
        # Names of Voila's own kind would have the kernel import it.
        env = {f"{name}": f"{value}" for name, value in env.items()}
        context = multiprocessing.get_context("forkserver")
        self.process = context.Process(target=_run_kernel, args=(file, env), daemon=True)
        self._started = _THREADS.submit(self.process.start)
        return self.connection_info

    async def poll(self):
        """None as long as it runs, or is about to; else its exit code."""
        return self.process.exitcode if self.process is not None and self._started.done() else None

    async def wait(self):
        """Until it has ended; its exit code."""
        await asyncio.wrap_future(self._started)
        while (code := self.process.exitcode) is None:
            await asyncio.sleep(0.02)
        self.process = None
        return code

    async def send_signal(self, signum):
        """Signal it, once it is there."""
        await asyncio.wrap_future(self._started)
        if self.process.exitcode is None:
            os.kill(self.process.pid, signum)


def _run_kernel(connection_file, environment):
    # An interrupt in the terminal is for the server, which then ends its kernels.
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    import ipywidgets
    from ipykernel.kernelapp import IPKernelApp

    # A kernel of a program tells nobody how to connect to it.
    app = IPKernelApp.instance(parent_handle=os.getppid(), ignore_cwd=True)
    app.initialize(["-f", connection_file])
    # There was no kernel yet when they were imported.
    ipywidgets.register_comm_target()
    app.start()


def _end_with(server):
    """A server that was killed cannot end its kernels."""
    server.join()
    os._exit(1)
