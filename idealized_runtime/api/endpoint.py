"""Where requests go and what they say: OpenAI's completions and chat protocols."""

import ipaddress
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from idealized_runtime.checks import printable

PATHS = {"completions": "/completions", "chat": "/chat/completions"}
# Ways to make a server go on until it has generated all tokens asked for. Not all servers know all of them, and some
# refuse a field that they do not know.
FORCINGS = ("ignore_eos", "min_tokens", "logit_bias")
MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
# The bias that bans a token, by OpenAI's reference.
_BAN = -100
# Characters of a text from a server that are looked at, and shown.
_MOST_READ, _MOST_SHOWN = 4096, 300
# So many characters of a key in a row are its secret, too; fewer say nothing, and stand in other words.
_KEY_PIECE = 8


@dataclass(frozen=True)
class Endpoint:
    """One model behind one address, and how it is asked.

    Parameters
    ----------
    base_url : str
        Up to and with the version, such as ``http://127.0.0.1:8000/v1``; no user, password or query.
    model : str
    protocol : {"completions", "chat"}
    is_streaming : bool
    forcings : sequence of {"ignore_eos", "min_tokens", "logit_bias"}
    eos_token_ids : sequence of int
        What ``logit_bias`` bans.
    max_tokens_field : {"max_tokens", "max_completion_tokens"}
    temperature : float, optional
        The server's own where it is not given.
    timeout_s : float
        Of a whole request.
    api_key : str, optional
        Sent as a bearer token; in no record.

    Raises
    ------
    ValueError
        A field is not one of these; the message says what is allowed.
    """

    base_url: str
    model: str
    protocol: str = "completions"
    is_streaming: bool = True
    forcings: Sequence[str] = ("ignore_eos",)
    eos_token_ids: Sequence[int] = ()
    max_tokens_field: str = "max_tokens"
    temperature: float | None = None
    timeout_s: float = 600.0
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "base_url", _check_base_url(self.base_url))
        for name, allowed in (("protocol", PATHS), ("max_tokens_field", MAX_TOKENS_FIELDS)):
            if (given := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {given!r}")
        if unknown := sorted(set(self.forcings) - set(FORCINGS)):
            raise ValueError(f"forcings must be among {', '.join(FORCINGS)}; got {', '.join(unknown)}")
        if "logit_bias" in self.forcings and not self.eos_token_ids:
            raise ValueError("logit_bias needs the ids of the tokens that end a text: give --eos-token-ids")
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s must be positive and finite; got {self.timeout_s!r}")
        if any(token_id < 0 for token_id in self.eos_token_ids):
            raise ValueError(f"eos_token_ids must be at least 0; got {', '.join(map(str, self.eos_token_ids))}")

    @property
    def url(self) -> str:
        """Where requests are posted to."""
        return self.base_url + PATHS[self.protocol]

    def body(self, prompt: str, num_output_tokens: int) -> dict:
        """JSON object of one request."""
        said = {"messages": [{"role": "user", "content": prompt}]} if self.protocol == "chat" else {"prompt": prompt}
        body = {"model": self.model, **said, self.max_tokens_field: num_output_tokens, "stream": self.is_streaming}
        if self.is_streaming:
            body["stream_options"] = {"include_usage": True}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        forced = {
            "ignore_eos": True,
            "min_tokens": num_output_tokens,
            "logit_bias": {str(token_id): _BAN for token_id in self.eos_token_ids},
        }
        return body | {name: forced[name] for name in self.forcings}

    def header(self) -> dict:
        """What of it stands in a log's header: all but the key."""
        return {
            "base_url": self.base_url,
            "endpoint": self.protocol,
            "is_streaming": self.is_streaming,
            "forcings": list(self.forcings),
            "eos_token_ids": list(self.eos_token_ids),
            "max_tokens_field": self.max_tokens_field,
            "temperature": self.temperature,
        }

    @property
    def version_hint(self) -> str:
        """What to try where the server does not know the address, behind a message; empty for one with a version."""
        has_version = re.search(r"/v\d", urlsplit(self.base_url).path)
        return "" if has_version else f"; --base-url names no version: try {self.base_url}/v1"

    @property
    def is_key_exposed(self) -> bool:
        """Whether the key goes unencrypted to another machine."""
        parts = urlsplit(self.base_url)
        try:
            is_here = ipaddress.ip_address(parts.hostname).is_loopback
        except ValueError:
            is_here = parts.hostname == "localhost" or parts.hostname.endswith(".localhost")
        return bool(self.api_key) and parts.scheme == "http" and not is_here

    def clean(self, text: str) -> str:
        """What a server says, fit for a log and a terminal: without the key, printable, on one line, not too long."""
        # In this order: of a key that was cut in two, half would stay.
        return one_line(self.redact(text[:_MOST_READ]))

    def redact(self, text: str) -> str:
        """The same text without the key, which servers like to repeat, in any case and the usual encodings."""
        if not self.api_key:
            return text
        text, pieces = self._whole_key.sub("[key]", text), self._key_pieces
        lower = text.lower()
        starts = [i for i in range(len(text) - _KEY_PIECE + 1) if lower[i : i + _KEY_PIECE] in pieces]
        for start in reversed(starts):
            text = text[:start] + "\0" * _KEY_PIECE + text[start + _KEY_PIECE :]
        return re.sub("\0+", "[key]", text) if starts else text

    @cached_property
    def _encoded_keys(self) -> list[str]:
        """Hexadecimal and base64 forms of the key; of the latter what hangs on nothing before or behind it."""
        key = self.api_key.encode()
        forms = [key.hex()]
        for encode in (b64encode, urlsafe_b64encode):
            for num_before in range(3):
                first, last = -(-num_before * 8 // 6), (num_before + len(key)) * 8 // 6
                forms.append(encode(b"\0" * num_before + key).decode()[first:last])
        return forms

    @cached_property
    def _whole_key(self) -> re.Pattern:
        """The key, each character as itself or escaped, and its other forms; spaces and line ends may stand between."""
        escaped = [
            f"(?:{re.escape(c)}|%{ord(c):02x}|\\\\u{ord(c):04x}|\\\\x{ord(c):02x}|&#0*{ord(c)};|&#x0*{ord(c):x};)"
            for c in self.api_key
        ]
        forms = [escaped, *([re.escape(c) for c in form] for form in self._encoded_keys if len(form) >= _KEY_PIECE)]
        flags = re.IGNORECASE if len(self.api_key) >= _KEY_PIECE else 0
        return re.compile("|".join("[^!-~]{0,4}".join(form) for form in forms), flags)

    @cached_property
    def _key_pieces(self) -> set[str]:
        forms = [self.api_key, *self._encoded_keys] if len(self.api_key) >= 2 * _KEY_PIECE else []
        return {form[i : i + _KEY_PIECE].lower() for form in forms for i in range(len(form) - _KEY_PIECE + 1)}


def one_line(text: str) -> str:
    """A text as a message shows it: printable, on one line, not too long."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + " ..."


def _check_base_url(base_url: str) -> str:
    """The same address without a slash at its end."""
    parts = urlsplit(base_url)
    try:
        # A port that is no port is told only when it is asked for.
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError(f"--base-url must be an address such as http://127.0.0.1:8000/v1; got {base_url!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "--base-url takes no user, password or query; put the key into an environment variable and name it"
        )
    if re.search(r"/(chat/)?completions/?$", parts.path):
        raise ValueError(f"--base-url ends with the version, before /completions; got {base_url!r}")
    return base_url.rstrip("/")


def read_key(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """The key in an environment variable; None where no variable is named.

    Raises
    ------
    ValueError
        The variable is not set, or its value is no key.
    """
    if variable is None:
        return None
    key = environment.get(variable, "").strip()
    if not key:
        raise ValueError(f"--api-key-env {variable}: the environment variable {variable} is not set")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError(f"--api-key-env {variable}: its value has characters that no HTTP header can carry")
    return key
