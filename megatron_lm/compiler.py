"""Megatron's compiled functions, which are compiled when they are first called."""

import functools
import importlib.util
import sys
from importlib.abc import MetaPathFinder


class LateCompilation(MetaPathFinder):
    """Lets Megatron be imported without torch's compiler, which takes a third of the seconds of that import.

    Megatron has torch compile dozens of functions, the compiler is imported for the first of them, and most models call
    none. Each is compiled as before, but not until it is called.
    """

    def find_spec(self, name, path, target=None):
        """Of the module that chooses Megatron's compiler, which is run by a loader that makes it a late one."""
        if name != "megatron.core.jit":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module.jit_fuser = functools.partial(_compiled_when_called, module.jit_fuser)

        spec.loader.exec_module = exec_module
        return spec


def _compiled_when_called(compiler, function):
    compiled = functools.cache(functools.partial(compiler, function))

    @functools.wraps(function)
    def call(*arguments, **options):
        return compiled()(*arguments, **options)

    return call
