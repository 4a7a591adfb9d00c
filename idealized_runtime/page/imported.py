"""What a kernel of the page imports and reads first; the process that kernels are forked from imports this module."""

import gc
import importlib

from idealized_runtime.page.machines import read_machine
from idealized_runtime.page.planner import MACHINES

for name in ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.debugger", "websockets.sync.client"):
    importlib.import_module(name)
for name in MACHINES:
    read_machine(name)
# Else a collection in a kernel would write to, and so copy, all memory that it shares.
gc.collect()
gc.freeze()
