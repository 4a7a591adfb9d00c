"""How often 95 % intervals hold the truth, under noise that is not what textbooks assume.

Every simulation draws a truth (prompt times that saturate, or a staircase of 128 tokens; a time per output token),
times its settings under one regime of noise, fits them by ``RuntimeModel.fit`` and looks which intervals hold the
truth. Prints docs/intervals.md's table; run it on two revisions to compare them. Seeded; one core.

Run:  python benchmarks/intervals.py [--simulations 100] [--seed 1]
"""

import argparse
import warnings

import numpy as np
import pandas as pd

from idealized_runtime import RuntimeModel

PROMPT_SIZES = np.array([1, 64, 128, 256, 512, 768, 1024, 1536])
OUTPUT_SIZES = np.array([1, 2, 4, 8, 16, 32])
BETWEEN = np.array([90, 150, 200, 300, 400, 600, 650, 900, 1100, 1300])
NUM_TRIALS = 8
NOISE = 0.01
PROMPTS, OUTPUTS = (axis.ravel() for axis in np.meshgrid(PROMPT_SIZES, OUTPUT_SIZES, indexing="ij"))
# Regime, noise, whether trials were timed in shuffled blocks, prompt times, how times are told.
REGIMES = (
    ("independent noise of 1 %", "independent", False, "smooth", "trials"),
    ("drift of 10 % over the sweep, size by size", "drift", False, "smooth", "trials"),
    ("drift of 10 %, in shuffled blocks", "drift", True, "smooth", "trials"),
    ("heavy tails (Student's t, 3 degrees of freedom)", "tails", False, "smooth", "trials"),
    ("autocorrelation 0.9, size by size", 0.9, False, "smooth", "trials"),
    ("autocorrelation 0.9, in shuffled blocks", 0.9, True, "smooth", "trials"),
    ("autocorrelation 0.98, size by size", 0.98, False, "smooth", "trials"),
    ("autocorrelation 0.98, in shuffled blocks", 0.98, True, "smooth", "trials"),
    ("autocorrelation 0.98, only mean and deviation known", 0.98, False, "smooth", "printed"),
    ("prompt times on a staircase of 128 tokens", "independent", False, "staircase", "trials"),
    ("trials rounded to 1 ms, noise of 0.05 ms", "quiet", False, "smooth", "rounded"),
    ("mean and deviation printed in ms, noise of 0.05 ms", "quiet", False, "smooth", "printed"),
)


def draw_truth(rng, shape):
    """Function of prompt times (s), and g (s)."""
    g, slope = rng.uniform(0.01, 0.05), rng.uniform(0.5, 3)
    scale, knee = slope * g / 1000, rng.uniform(100, 300)

    def prompt_time_s(p):
        tokens = np.ceil(p / 128) * 128 if shape == "staircase" else np.asarray(p, dtype=float)
        return scale * np.hypot(knee / slope * 3, tokens)

    return prompt_time_s, g


def relative_noise(rng, noise, num_trials):
    """Noise of all trials of a sweep, in the order in which they were timed."""
    if noise == "drift":
        return 0.1 * (np.linspace(0, 1, num_trials) - 0.5) + NOISE * rng.standard_normal(num_trials)
    if noise == "tails":
        return NOISE / np.sqrt(3) * rng.standard_t(3, num_trials)
    if noise == "independent":
        return NOISE * rng.standard_normal(num_trials)
    from scipy.signal import lfilter

    # Begins where it would be after a long time.
    steps = NOISE * rng.standard_normal(num_trials) * np.sqrt(1 - noise**2)
    steps[0] = NOISE * rng.standard_normal()
    return lfilter([1], [1, -noise], steps)


def time_sweep(rng, prompt_time_s, g, noise, *, in_blocks, told) -> pd.DataFrame:
    """Timings of one sweep: a row a trial, or what the logs of 2023 print of them."""
    setting = np.repeat(np.arange(len(PROMPTS)), NUM_TRIALS)
    if in_blocks:
        setting = np.concatenate([rng.permutation(len(PROMPTS)) for _ in range(NUM_TRIALS)])
    runtime_s = (prompt_time_s(PROMPTS) + (OUTPUTS - 1) * g)[setting]
    if noise == "quiet":
        runtime_s = runtime_s + 5e-5 * rng.standard_normal(len(setting))
    else:
        runtime_s = runtime_s * (1 + relative_noise(rng, noise, len(setting)))
    trials = pd.DataFrame(
        {
            "num_prompt_tokens": PROMPTS[setting],
            "num_output_tokens": OUTPUTS[setting],
            "runtime_s": runtime_s.round(3) if told == "rounded" else runtime_s,
            "trial_start_s": np.cumsum(runtime_s) - runtime_s[0],
        }
    )
    keys = ["num_prompt_tokens", "num_output_tokens"]
    if told == "printed":
        printed = trials.groupby(keys, as_index=False)["runtime_s"].agg(runtime_s="mean", runtime_std_s="std")
        return printed.round(3).assign(runtime_resolution_s=1e-3)
    return trials.assign(trial=trials.groupby(keys).cumcount())


def hits(rng, noise, in_blocks, shape, told) -> list[float]:
    """Share of the intervals of one simulation that hold the truth, by quantity."""
    prompt_time_s, g = draw_truth(rng, shape)
    model = RuntimeModel.fit(time_sweep(rng, prompt_time_s, g, noise, in_blocks=in_blocks, told=told))
    o = rng.choice(OUTPUT_SIZES, len(BETWEEN))
    between_s = prompt_time_s(BETWEEN) + (o - 1) * g
    pairs = (
        (model.time_per_output_token_interval_s(), g),
        (model.prompt_encoding_interval_s(PROMPT_SIZES), prompt_time_s(PROMPT_SIZES)),
        (model.predict_interval(PROMPTS, OUTPUTS), prompt_time_s(PROMPTS) + (OUTPUTS - 1) * g),
        (model.predict_interval(BETWEEN, o), between_s),
    )
    return [float(np.mean((lower <= truth) & (truth <= upper))) for (lower, upper), truth in pairs]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="regimes whose name has this part")
    arguments = parser.parse_args()
    # Notes and findings of a log are what this script simulates.
    warnings.simplefilter("ignore")
    print("| regime | g | prompt times | prediction at sizes | prediction between sizes |\n|---|---|---|---|---|")
    for number, (name, *regime) in enumerate(REGIMES):
        if arguments.only not in name:
            continue
        rng = np.random.default_rng([arguments.seed, number])
        held = np.mean([hits(rng, *regime) for _ in range(arguments.simulations)], axis=0)
        print(f"| {name} | {' | '.join(f'{100 * share:.0f} %' for share in held)} |")


if __name__ == "__main__":
    main()
