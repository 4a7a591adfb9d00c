"""What every timing log shares: the columns of its frame, and its faults."""

import pandas as pd

IDENTITY_COLUMNS = ["model", "hardware", "software"]
SETTING_COLUMNS = ["num_prompt_tokens", "num_output_tokens", "batch_size"]
PARALLELISM_COLUMNS = ["tensor_parallel_size", "pipeline_parallel_size"]
# Integers that a text log may lack: nullable, and so of one type whatever a frame was read from.
_NULLABLE_COLUMNS = ("batch_size", *PARALLELISM_COLUMNS, "num_trials", "num_disturbed")


class LogFormatError(ValueError):
    """A line of a log is cut, or is not what it claims to be."""


class LogMismatchError(ValueError):
    """A log holds another architecture, engine or machine than the run that wants to go on with it."""


class IncompleteLogWarning(UserWarning):
    """A log is partial: no footer, or settings that failed."""


class RepeatedSettingWarning(UserWarning):
    """A setting stands in a 2023 text log more than once; the last one counts."""


def with_frame_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows, in the types that every reader gives: missing integers stay integers."""
    return frame.astype({name: "Int64" for name in _NULLABLE_COLUMNS if name in frame})
