import json
import os
import subprocess

import pytest

from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import read_requests

SCRIPT = ROOT / "logs" / "api" / "mlx_in_process.py"


@pytest.fixture(scope="module")
def python():
    """Python of the environment with mlx-lm; absent in continuous integration it is an error."""
    path = ROOT / ".servers/mlx/bin/python"
    if not path.exists():
        message = "mlx-lm is not installed: `make test` puts it into .servers/"
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(message)
        pytest.skip(message)
    return path


def test_random_llama_is_made_and_timed_in_process(python, tmp_path):
    folder, log = tmp_path / "llama", tmp_path / "log.jsonl"
    subprocess.run([python, SCRIPT, "make", folder], check=True)
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["type"] == "WordLevel"
    sizes = ["--all-num-input-tokens", "1", "5", "--all-num-output-tokens", "1", "4"]
    trials = ["--num-trials", "2", "--num-warmup", "1"]
    subprocess.run([python, SCRIPT, "time", folder, "--log", log, "--hardware", "test", *sizes, *trials], check=True)
    requests = read_requests(log)
    assert requests.groupby("is_warmup").size().to_dict() == {False: 8, True: 4}
    timed = requests[~requests["is_warmup"]]
    assert timed["is_fit"].all()
    # Every output token is timed, and the last one ends the run.
    assert (timed["num_chunks"] == timed["num_output_tokens"]).all()
    assert (timed.query("num_output_tokens == 4").eval("runtime_s > time_to_first_token_s")).all()
