"""Runtime models: t(p, o) = prompt_encoding_time(p) + (o - 1) g, fitted to a few timed settings.

``settings`` checks the frame and makes one row a setting; ``linear`` is the weighted least-squares fit,
``uncertainty`` its covariance and tests; ``interpolation`` gives prompt times between profiled sizes;
``published`` is the procedure of arXiv:2305.02440; ``weighted`` puts the better one together;
``model`` predicts; ``ranges`` refuses sizes beyond the profiled ones; ``parameters`` reads and writes the files;
``batches`` takes one batch size out of a log.
``command`` is the command line, ``python -m idealized_runtime.fits``.
"""

from idealized_runtime.fits.batches import settings_of_batch
from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.fits.parameters import read_parameters, write_parameters
from idealized_runtime.fits.protocol import ModelOfRuntimes, NoIntervalError
from idealized_runtime.fits.ranges import ExtrapolationWarning

__all__ = [
    "ExtrapolationWarning",
    "ModelOfRuntimes",
    "NoIntervalError",
    "RuntimeModel",
    "read_parameters",
    "settings_of_batch",
    "write_parameters",
]
