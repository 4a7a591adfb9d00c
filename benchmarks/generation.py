"""Our Megatron path against a plain torch loop and Hugging Face transformers, GPT-2-small shape, float32.

All contestants hold the same weights and generate greedily. Each round times every contestant once, in
turn (A B C A B C ...); a ratio is taken within its round, so what slows the machine for a while slows
both sides. Printed: median [quartiles] over rounds.

Run:  python benchmarks/generation.py [--rounds 15] [--engine sdpa]
"""

import argparse
import warnings
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers

from idealized_runtime.architectures import get_architecture
from megatron_lm.device import select_device
from megatron_lm.engines import PORTABLE_ENGINES, load_engine
from megatron_lm.environment import describe_hardware, describe_software
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import Sampling

GREEDY = Sampling(top_k=1)
CONTEXT_SIZES = (128, 512, 1000)
PROMPT_SIZES = (128, 512, 1024)
NUM_DECODED = 16


class PlainLoop:
    """GPT-2 as a loop over tensors, with a KV cache: nothing but the operations themselves."""

    def __init__(self, weights: dict, num_layers: int, num_heads: int):
        self._weights, self._num_heads = weights, num_heads
        self._layers = [{name: weights[f"h.{i}.{name}"] for name in (*_LINEARS, *_NORMS)} for i in range(num_layers)]

    def reset(self, batch_size, max_sequence_length):
        hidden_size = self._weights["wte"].shape[1]
        shape = (batch_size, self._num_heads, max_sequence_length, hidden_size // self._num_heads)
        if not hasattr(self, "_caches") or self._caches[0][0].shape != shape:
            self._caches = [(torch.empty(shape), torch.empty(shape)) for _ in self._layers]
        self._num_cached = 0

    def encode(self, tokens, first_sequence=0):
        weights = self._weights
        (batch_size, num_tokens), start = tokens.shape, self._num_cached
        end = start + num_tokens
        hidden = (weights["wte"][tokens] + weights["wpe"][start:end]).view(batch_size * num_tokens, -1)
        for layer, (keys, values) in zip(self._layers, self._caches, strict=True):
            heads = F.linear(_norm(hidden, layer["ln_1"]), *layer["attn.c_attn"])
            heads = heads.view(batch_size, num_tokens, 3, self._num_heads, -1).permute(2, 0, 3, 1, 4)
            keys[:, :, start:end], values[:, :, start:end] = heads[1], heads[2]
            attended = F.scaled_dot_product_attention(
                heads[0], keys[:, :, :end], values[:, :, :end], is_causal=num_tokens > 1
            )
            attended = attended.transpose(1, 2).reshape(batch_size * num_tokens, -1)
            hidden = hidden + F.linear(attended, *layer["attn.c_proj"])
            up = F.gelu(F.linear(_norm(hidden, layer["ln_2"]), *layer["mlp.c_fc"]), approximate="tanh")
            hidden = hidden + F.linear(up, *layer["mlp.c_proj"])
        self._num_cached = end
        last = hidden.view(batch_size, num_tokens, -1)[:, -1]
        return F.linear(_norm(last, weights["ln_f"]), weights["wte"])

    def decode(self, tokens, num_cached_tokens, first_sequence=0):
        return self.encode(tokens)


class TokenClock:
    """A streamer that notes when each token came; the first call brings the prompt."""

    def __init__(self):
        self.times_s = []

    def put(self, _):
        self.times_s.append(perf_counter())

    def end(self):
        pass


_LINEARS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_NORMS = ("ln_1", "ln_2")


def _norm(hidden, parameters):
    return F.layer_norm(hidden, hidden.shape[-1:], *parameters, 1e-5)


def load_megatron_weights(model, peer):
    """Copy a transformers GPT-2's weights into Megatron's model; its q, k, v stand together head by head."""
    state = peer.state_dict()
    num_heads = peer.config.n_head
    ours = {"embedding.word_embeddings.weight": state["transformer.wte.weight"],
            "embedding.position_embeddings.weight": state["transformer.wpe.weight"]}  # fmt: skip
    for i in range(peer.config.n_layer):
        theirs, layer = f"transformer.h.{i}.", f"decoder.layers.{i}."
        for kind in ("weight", "bias"):
            for name, source in (("input_layernorm", "ln_1"), ("pre_mlp_layernorm", "ln_2")):
                ours[f"{layer}{name}.{kind}"] = state[f"{theirs}{source}.{kind}"]
            for name, source in (("self_attention.linear_qkv", "attn.c_attn"),
                                 ("self_attention.linear_proj", "attn.c_proj"),
                                 ("mlp.linear_fc1", "mlp.c_fc"), ("mlp.linear_fc2", "mlp.c_proj")):  # fmt: skip
                # Conv1D stores (in, out).
                value = state[f"{theirs}{source}.{kind}"].T
                if source == "attn.c_attn":
                    value = value.unflatten(0, (3, num_heads, -1)).transpose(0, 1).flatten(0, 2)
                ours[f"{layer}{name}.{kind}"] = value
    for kind in ("weight", "bias"):
        ours[f"decoder.final_layernorm.{kind}"] = state[f"transformer.ln_f.{kind}"]
    missing = model.load_state_dict(ours, strict=False).missing_keys
    assert all("extra_state" in name or "output_layer" in name for name in missing), missing


def plain_weights(peer) -> dict:
    """The same weights as a flat dictionary; linear layers as (out, in) matrices."""
    state = {name.removeprefix("transformer."): value for name, value in peer.state_dict().items()}
    weights = {
        "wte": state["wte.weight"],
        "wpe": state["wpe.weight"],
        "ln_f": (state["ln_f.weight"], state["ln_f.bias"]),
    }
    for i in range(peer.config.n_layer):
        for name in _LINEARS:
            prefix = f"h.{i}.{name}"
            weights[prefix] = (state[f"{prefix}.weight"].T.contiguous(), state[f"{prefix}.bias"])
        for name in _NORMS:
            weights[f"h.{i}.{name}"] = (state[f"h.{i}.{name}.weight"], state[f"h.{i}.{name}.bias"])
    return weights


def time_engine(engine, prompt, num_output_tokens):
    """Seconds of the prompt pass and of one output token, and the tokens."""
    engine.reset(1, prompt.shape[1] + num_output_tokens - 1)
    split_s = []
    start_s = perf_counter()
    tokens = generate(engine, prompt, num_output_tokens, GREEDY, generator=None,
                      on_prompts_encoded=lambda: split_s.append(perf_counter()))  # fmt: skip
    end_s = perf_counter()
    token_s = None if num_output_tokens == 1 else (end_s - split_s[0]) / (num_output_tokens - 1)
    return split_s[0] - start_s, token_s, tokens[0].tolist()


def time_transformers(peer, prompt, num_output_tokens):
    """The same for ``generate`` of transformers."""
    clock = TokenClock()
    start_s = perf_counter()
    tokens = peer.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=num_output_tokens,
        min_new_tokens=num_output_tokens,
        do_sample=False,
        streamer=clock,
        pad_token_id=0,
        eos_token_id=None,
    )
    first_s, last_s = clock.times_s[1], clock.times_s[-1]
    per_token_s = (last_s - first_s) / (num_output_tokens - 1) if num_output_tokens > 1 else None
    return first_s - start_s, per_token_s, tokens[0, prompt.shape[1] :].tolist()


def compare(contestants, vocab_size, *, num_prompt_tokens, num_output_tokens, rounds):
    """Seconds of every contestant, arrays of shape (rounds,), prompt pass and one output token."""
    prompt = torch.randint(vocab_size, (1, num_prompt_tokens), generator=torch.Generator().manual_seed(0))
    times = {name: [] for name in contestants}
    for index in range(rounds + 2):
        tokens = {}
        for name, run in contestants.items():
            prompt_s, token_s, tokens[name] = run(prompt, num_output_tokens)
            if index >= 2:  # two rounds to warm up
                times[name].append((prompt_s, token_s))
        reference = next(iter(tokens.values()))
        if any(other != reference for other in tokens.values()):
            raise RuntimeError(f"outputs differ at p={num_prompt_tokens}: {tokens}")
    return {name: np.array(values, dtype=float).T for name, values in times.items()}


def ratio(ours, theirs) -> str:
    """Median [lower quartile, upper quartile] of the ratio within rounds."""
    low, median, high = np.percentile(ours / theirs, (25, 50, 75))
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--engine", choices=PORTABLE_ENGINES, default="sdpa")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    architecture = get_architecture("gpt2-small")
    device = select_device("cpu")
    with ProcessGrid(device):
        compare_all(arguments, architecture, device)


def compare_all(arguments, architecture, device):
    torch.manual_seed(0)
    config = transformers.GPT2Config(attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)
    peer = transformers.GPT2LMHeadModel(config).eval()
    model = build_model(architecture, device=device, dtype=torch.float32, seed=0)
    load_megatron_weights(model, peer)
    engine = load_engine(arguments.engine)(model, architecture)
    loop = PlainLoop(plain_weights(peer), architecture.num_layers, architecture.num_attention_heads)
    contestants = {
        "ours": lambda prompt, o: time_engine(engine, prompt, o),
        "loop": lambda prompt, o: time_engine(loop, prompt, o),
        "transformers": lambda prompt, o: time_transformers(peer, prompt, o),
    }
    software = ", ".join(f"{name} {version}" for name, version in describe_software(device).items())
    print(f"{describe_hardware(device)}; {torch.get_num_threads()} threads; {software}, "
          f"transformers {transformers.__version__}; engine {arguments.engine}; {arguments.rounds} rounds")  # fmt: skip
    print("| what | ours, ms | ours / plain torch loop | ours / transformers |\n|---|---|---|---|")
    with torch.inference_mode():
        for label, sizes, row, num_output_tokens in (
            ("one output token, context", CONTEXT_SIZES, 1, 1 + NUM_DECODED),
            ("prompt encoding, tokens", PROMPT_SIZES, 0, 1),
        ):
            for size in sizes:
                times_s = compare(contestants, architecture.vocab_size, num_prompt_tokens=size,
                                  num_output_tokens=num_output_tokens, rounds=arguments.rounds)  # fmt: skip
                ours, loop_s, peer_s = (times_s[name][row] for name in ("ours", "loop", "transformers"))
                row_text = (f"{np.median(ours) * 1e3:.2f}", ratio(ours, loop_s), ratio(ours, peer_s))
                print(f"| {label} {size} | {' | '.join(row_text)} |", flush=True)
    print("All contestants generated the same tokens in every round.")


if __name__ == "__main__":
    main()
