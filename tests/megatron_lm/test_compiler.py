import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
import torch

compiled = []
def compile(function):
    compiled.append(function.__name__)
    return function
torch.compile = compile

from idealized_runtime.architectures import Architecture
from megatron_lm.device import select_device
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid

device = select_device("cpu")
with ProcessGrid(device):
    build_model(Architecture("tiny", 2, 64, 4), device=device, dtype=torch.float32, seed=1)
assert compiled == []
assert "torch._dynamo" not in sys.modules

from megatron.core.fusions.fused_bias_swiglu import swiglu

y = torch.arange(4.0)
for _ in range(2):
    assert swiglu(y).equal(torch.nn.functional.silu(y[:2]) * y[2:])
assert compiled == ["swiglu"]
"""


def test_megatron_compiles_a_function_once_and_when_it_is_first_called():
    subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, check=True)
