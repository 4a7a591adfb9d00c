"""Our Megatron path against a plain torch loop, Hugging Face transformers and llama.cpp, and against the floor.

GPT-2-small shape, float32. All contestants hold the same weights and generate greedily. Each round times every
contestant once, in turn (A B C A B C ...); a ratio is taken within its round, so what slows the machine for a while
slows both sides. Printed: median [quartiles] over rounds. The floor of an output token is its weights, read once at the
rate that this machine was measured to read with, again in each round.

llama.cpp takes part where the packages xllamacpp and gguf are installed (`pip install xllamacpp gguf`), one sequence at
a time; its cache is of float16, as it comes.

Run:  python benchmarks/generation.py [--rounds 15] [--engine sdpa] [--threads N] [--only token batch prompt]
"""

import argparse
import atexit
import importlib.util
import multiprocessing
import os
import signal
import tempfile
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers

from idealized_runtime.architectures import get_architecture, weight_bytes_read
from megatron_lm.device import select_device
from megatron_lm.engines import PORTABLE_ENGINES, load_engine
from megatron_lm.environment import describe_hardware, describe_software
from megatron_lm.generation import generate
from megatron_lm.machine_rates import measure_machine_rates
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import Sampling

GREEDY = Sampling(top_k=1)
CONTEXT_SIZES = (128, 512, 1000)
BATCH_SIZES = (2, 4, 8)
PROMPT_SIZES = (128, 512, 1000)
NUM_DECODED = 16
# Parts of the table: an output token behind several contexts, in several batches, and passes over prompts.
PARTS = ("token", "batch", "prompt")


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


class TokenClock(transformers.StoppingCriteria):
    """Notes when each token came, and never stops."""

    def __init__(self):
        self.times_s = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times_s.append(perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


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


class LlamaCpp:
    """The same weights in llama.cpp: written as a GGUF file, generated from in a process of its own.

    It is stopped while it is not its turn: its threads, which wait awake, would take a quarter of the others' speed.
    """

    def __init__(self, peer, num_threads: int):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.gguf")
            write_gguf(peer, path)
            spawn = multiprocessing.get_context("spawn")
            self._pipe, end = spawn.Pipe()
            arguments = end, path, peer.config.n_positions, num_threads
            self._process = spawn.Process(target=serve_llama, args=arguments, daemon=True)
            self._process.start()
            # Stopped, it would not end when it is asked to, as it is at the exit.
            atexit.register(self._process.kill)
            self._pipe.recv()  # the weights are read
        os.kill(self._process.pid, signal.SIGSTOP)

    def time(self, prompt, num_output_tokens):
        """Seconds of the prompt pass and of one output token, and no tokens: its cache is of another type."""
        request = {"prompt": prompt[0].tolist(), "n_predict": num_output_tokens, "temperature": 0.0,
                   "cache_prompt": False, "ignore_eos": True}  # fmt: skip
        os.kill(self._process.pid, signal.SIGCONT)
        self._pipe.send(request)
        timings = self._pipe.recv()
        os.kill(self._process.pid, signal.SIGSTOP)
        # The first token is sampled at the end of the prompt.
        token_s = None if num_output_tokens == 1 else timings["predicted_ms"] / 1e3 / (num_output_tokens - 1)
        return timings["prompt_ms"] / 1e3, token_s, None


def serve_llama(pipe, path, num_positions, num_threads):
    """Answer each request of the pipe by llama.cpp's own timings of it."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = path, num_positions, 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = num_threads
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    pipe.send("ready")
    while True:
        pipe.send(server.handle_completions(pipe.recv())["timings"])


def write_gguf(peer, path):
    """A transformers GPT-2 as a GGUF file; its tokens have names, but no text is made of them."""
    import gguf

    config, state = peer.config, {name: value.numpy() for name, value in peer.state_dict().items()}
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{number}" for number in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["t 0"])
    writer.add_tensor("token_embd.weight", state["transformer.wte.weight"])
    writer.add_tensor("position_embd.weight", state["transformer.wpe.weight"])
    for kind in ("weight", "bias"):
        writer.add_tensor(f"output_norm.{kind}", state[f"transformer.ln_f.{kind}"])
        for i in range(config.n_layer):
            for name, source in (("attn_norm", "ln_1"), ("ffn_norm", "ln_2"), ("attn_qkv", "attn.c_attn"),
                                 ("attn_output", "attn.c_proj"), ("ffn_up", "mlp.c_fc"),
                                 ("ffn_down", "mlp.c_proj")):  # fmt: skip
                value = state[f"transformer.h.{i}.{source}.{kind}"]
                writer.add_tensor(f"blk.{i}.{name}.{kind}", np.ascontiguousarray(value.T))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def time_engine(engine, prompt, num_output_tokens):
    """Seconds of the prompt pass and of one output token, and the tokens of the first sequence."""
    engine.reset(len(prompt), prompt.shape[1] + num_output_tokens - 1)
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
        stopping_criteria=[clock],
        pad_token_id=0,
        eos_token_id=None,
    )
    first_s, last_s = clock.times_s[0], clock.times_s[-1]
    per_token_s = (last_s - first_s) / (num_output_tokens - 1) if num_output_tokens > 1 else None
    return first_s - start_s, per_token_s, tokens[0, prompt.shape[1] :].tolist()


def read_weights_s(num_bytes):
    """Seconds to read so many bytes at the rate that the machine is measured to have now."""
    return num_bytes / measure_machine_rates(torch.device("cpu"), torch.float32)["read_bytes_per_s"]


def compare(contestants, vocab_size, *, batch_size, num_prompt_tokens, num_output_tokens, rounds):
    """Seconds of every contestant, arrays of shape (2, rounds): prompt pass and one output token."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocab_size, (batch_size, num_prompt_tokens), generator=generator)
    times = {name: [] for name in contestants}
    for index in range(rounds + 2):
        tokens = {}
        for name, run in contestants.items():
            prompt_s, token_s, tokens[name] = run(prompt, num_output_tokens)
            if index >= 2:  # two rounds to warm up
                times[name].append((prompt_s, token_s))
        given = [those for those in tokens.values() if those is not None]
        if any(other != given[0] for other in given):
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
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    device = select_device("cpu")
    with ProcessGrid(device), torch.inference_mode():
        compare_all(arguments, get_architecture("gpt2-small"), device)


def compare_all(arguments, architecture, device):
    torch.manual_seed(0)
    config = transformers.GPT2Config(attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)
    peer = transformers.GPT2LMHeadModel(config).eval()
    engines = {dtype: new_engine(arguments.engine, architecture, device, dtype, peer) for dtype in
               (torch.float32, torch.bfloat16)}  # fmt: skip
    loop = PlainLoop(plain_weights(peer), architecture.num_layers, architecture.num_attention_heads)
    floor_bytes = weight_bytes_read(architecture, dtype="float32")
    contestants = {
        "ours": lambda prompt, o: time_engine(engines[torch.float32], prompt, o),
        "loop": lambda prompt, o: time_engine(loop, prompt, o),
        "transformers": lambda prompt, o: time_transformers(peer, prompt, o),
        "llama.cpp": None,
        "floor": lambda prompt, o: (np.nan, read_weights_s(floor_bytes), None),
        "bfloat16": lambda prompt, o: (*time_engine(engines[torch.bfloat16], prompt, o)[:2], None),
    }
    if all(importlib.util.find_spec(name) for name in ("xllamacpp", "gguf")):
        contestants["llama.cpp"] = LlamaCpp(peer, arguments.threads).time
    else:
        print("llama.cpp is left out: the packages xllamacpp and gguf are not installed")
    software = ", ".join(f"{name} {version}" for name, version in describe_software(device).items())
    print(f"{describe_hardware(device)}; {arguments.threads} threads; {software}, "
          f"transformers {transformers.__version__}; engine {arguments.engine}; {arguments.rounds} rounds")  # fmt: skip
    print("| what | ours, ms | ours / plain torch loop | / transformers | / llama.cpp | / floor | bfloat16 / ours |")
    print("|---|---|---|---|---|---|---|")
    context = CONTEXT_SIZES[0]
    rows = {
        "token": [(f"one output token, context {size}", size, 1) for size in CONTEXT_SIZES],
        "batch": [(f"one output token, batch {size}, context {context}", context, size) for size in BATCH_SIZES],
        "prompt": [(f"prompt encoding, {size} tokens", size, 1) for size in PROMPT_SIZES],
    }
    for part in arguments.only:
        kind, num_output_tokens = (0, 1) if part == "prompt" else (1, 1 + NUM_DECODED)
        for label, size, batch_size in rows[part]:
            # llama.cpp's server takes one sequence after the other; no pass over a prompt is bound by reading weights.
            left_out = {"llama.cpp"} if batch_size > 1 else set()
            left_out |= {"floor"} if kind == 0 else set()
            here = {name: run for name, run in contestants.items() if run and name not in left_out}
            times_s = compare(here, architecture.vocab_size, batch_size=batch_size, num_prompt_tokens=size,
                              num_output_tokens=num_output_tokens, rounds=arguments.rounds)  # fmt: skip
            ours = times_s["ours"][kind]
            cells = [ratio(ours, times_s[name][kind]) if name in times_s else "" for name in contestants][1:-1]
            cells.append(ratio(times_s["bfloat16"][kind], ours))
            print(f"| {label} | {np.median(ours) * 1e3:.2f} | {' | '.join(cells)} |", flush=True)
    print("Ours, the loop and transformers generated the same tokens in every round.")


def new_engine(name, architecture, device, dtype, peer):
    """Our engine with the weights of a transformers model."""
    model = build_model(architecture, device=device, dtype=dtype, seed=0)
    load_megatron_weights(model, peer)
    engine = load_engine(name)(model, architecture)
    engine.tune({1, *BATCH_SIZES, *PROMPT_SIZES})
    return engine


if __name__ == "__main__":
    main()
