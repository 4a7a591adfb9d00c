"""Prompt encoding time between profiled sizes: straight lines, in a coordinate that knows about tiles.

GPU matrix kernels work in tiles of 128 rows, so part of the work grows where ceil(p / 128) grows and the
rest with every token. The coordinate u(p) = (1 - s) p + s 128 ceil(p / 128) holds both, and the prompt time
is piecewise linear in u through the profiled sizes: exact at each, monotone between them, and with one
number, the tile share s. Whether a log has tiles (s = 0.6) or not (s = 0, plain linear interpolation) is
decided on the log itself by leaving out one size after the other.
"""

from dataclasses import dataclass

import numpy as np

TILE_TOKENS = 128
# Chosen on the 13 published A100 logs; the other 12 choose 0.6 or 0.65 for each of them,
# and shares from 0.4 to 0.7 stay below 6 % at the 95th percentile (V100 logs mostly take 0).
TILE_SHARE = 0.6
_RELATIVE_ERROR = 1e-3


@dataclass(frozen=True)
class Anchors:
    """Two profiled sizes a query lies between, by index, and how far from left (0) to right (1) it lies.

    A position above 1 is an extrapolation; left and right are the same size where a time is held constant.
    """

    left: np.ndarray
    right: np.ndarray
    position: np.ndarray

    def blend(self, values) -> np.ndarray:
        """Value at each query, given one for each profiled size."""
        left, right = values[self.left], values[self.right]
        between = left + self.position * (right - left)
        # Exact at both ends, and never a last digit beyond the right one, so that monotony holds to the bit.
        capped = np.where(right >= left, np.minimum(between, right), np.maximum(between, right))
        return np.where(self.position < 1, capped, np.where(self.position == 1, right, between))


def coordinate(num_prompt_tokens, tile_share) -> np.ndarray:
    """The u in which prompt times are interpolated linearly; in tokens."""
    tiles = np.ceil(np.asarray(num_prompt_tokens) / TILE_TOKENS) * TILE_TOKENS
    return (1 - tile_share) * num_prompt_tokens + tile_share * tiles


def locate(num_prompt_tokens, sizes, times_s, tile_share) -> Anchors:
    """Anchors of each query among the profiled ``sizes`` (ascending), with their times.

    Beyond the last size the line through it and the size nearest to half of it goes on (held constant
    where that line falls); below the first size its time is held, since small prompts cost the same.
    """
    p = np.asarray(num_prompt_tokens, dtype=float)
    right = np.clip(np.searchsorted(sizes, p), min(1, len(sizes) - 1), len(sizes) - 1)
    left = np.maximum(right - 1, 0)
    last = len(sizes) - 1
    half = int(np.argmin(np.abs(sizes - sizes[-1] / 2)))
    rises = times_s[half] < times_s[last]
    left = np.where(p > sizes[-1], half if rises else last, left)
    left, right = np.where(p < sizes[0], 0, left), np.where(p < sizes[0], 0, right)
    u = coordinate(sizes, tile_share)
    width = u[right] - u[left]
    position = np.where(width > 0, (coordinate(p, tile_share) - u[left]) / np.where(width > 0, width, 1), 0.0)
    return Anchors(left, right, position)


def leave_one_out_errors(sizes, times_s, tile_share) -> np.ndarray:
    """Predicted minus fitted time (s) of each size but the first and last, predicted from its neighbours."""
    u = coordinate(sizes, tile_share)
    position = (u[1:-1] - u[:-2]) / (u[2:] - u[:-2])
    return (1 - position) * times_s[:-2] + position * times_s[2:] - times_s[1:-1]


def choose_tile_share(sizes, times_s) -> float:
    """0, or ``TILE_SHARE`` where tiles predict left-out sizes better by more than one standard error.

    The measure is the mean absolute relative error over the inner sizes, paired; with fewer than three
    inner sizes there is no standard error and the plain line stays.
    """
    if len(sizes) < 5:
        return 0.0
    plain, tiled = (np.abs(leave_one_out_errors(sizes, times_s, share)) for share in (0.0, TILE_SHARE))
    gain = (plain - tiled) / times_s[1:-1]
    return TILE_SHARE if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else 0.0


def tile_share_spread(sizes, times_s, tile_share) -> float:
    """Root-mean-square distance of the tile share from the one chosen, over the shares that the sizes leave possible.

    A share is as likely as the errors that it makes at left-out sizes say, all alike before (0 to 0.9: more would make
    one size of those within a tile).
    """
    shares = np.linspace(0, 0.9, 10)
    squares = np.array([np.mean(leave_one_out_errors(sizes, times_s, s) ** 2 / times_s[1:-1]) for s in shares])
    # What a timing itself errs by bounds how well the errors tell shares apart.
    squares = squares + _RELATIVE_ERROR**2 * np.mean(times_s)
    weights = (squares / squares.min()) ** (-(len(sizes) - 2) / 2)
    return float(np.sqrt(weights @ (shares - tile_share) ** 2 / weights.sum()))
