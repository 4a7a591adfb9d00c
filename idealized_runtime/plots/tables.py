"""Tables of a notebook: names of columns as words, which wrap where the page is narrow."""

import re
import sys

import pandas as pd

_UNITS = {"s": "s", "ms": "ms", "percent": "%", "usd": "$", "joules": "J", "watts": "W", "gb": "GB", "ratio": "ratio"}
_WORDS = {"usd": "$", "mmlu": "MMLU", "tflops": "TFLOPs", "std": "deviation", "lm": "LM", "f": "F"}
_BOUND = re.compile(r"_(lower|upper|printed)$")
_UNIT = re.compile(rf"(?<!_per)_({'|'.join(_UNITS)})$")


def in_words(name):
    """A name of the code as a header: ``"runtime_s_lower"`` is ``"runtime (s), lower"``; anything else as it is."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]\w*", name):
        return name
    bound = _BOUND.search(name)
    stem = _BOUND.sub("", name)
    unit = _UNIT.search(stem)
    stem = re.sub(r"_usd_per_(\w+)$", r" ($ per \1)", _UNIT.sub("", stem))
    stem = re.sub(r"^(num|is|are)_", "", stem).replace("_per_s", " a second").replace("r_squared", "R²")
    text = " ".join(_WORDS.get(word, word) for word in stem.split("_"))
    return text + (f" ({_UNITS[unit[1]]})" if unit else "") + (f", {bound[1]}" if bound else "")


def head_in_words():
    """Show tables of this notebook so; outside of one nothing happens."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and (shell := ipython.get_ipython()) is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        formatter.for_type(pd.DataFrame, lambda table: named_in_words(table)._repr_html_())


def named_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns and levels of its index named as :func:`in_words` says."""
    index_names = [in_words(name) for name in table.index.names]
    named = table.rename(columns=in_words).rename_axis(index=index_names if table.index.nlevels > 1 else index_names[0])
    return named.rename_axis(columns=[in_words(name) for name in named.columns.names])
