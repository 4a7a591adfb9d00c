"""One answer of a server, read as its bytes come: a stream of events, or one JSON object.

Servers that claim one protocol differ. Read alike here: streams without ``[DONE]``, with comment lines, with empty
``choices``, with one line end or two between events; usage in an event of its own, in all of them, or in none; a
stream answered whole, and one under the wrong content type.
"""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from idealized_runtime.api.endpoint import one_line
from idealized_runtime.checks import is_integer, is_number
from idealized_runtime.records import definitions

# Faults of an answer, as the ``type`` of its error.
STATUS_ERROR = "StatusError"
CONNECTION_ERROR = "ConnectionError"
CUT_ERROR = "CutAnswerError"
TIMEOUT_ERROR = "TimeoutError"
UNREADABLE_ERROR = "UnreadableAnswerError"
SERVER_ERROR = "ServerError"
# The code of a connection error before the request was sent.
NOT_SENT = "not_sent"

# Nothing was generated yet: the same request may well succeed a little later.
_RETRIED_STATUSES = {408, 409, 425, 429}
# Of 5xx, these say that it never will.
_LASTING_STATUSES = {501, 505}
# Wrong key, no money, no right, no such model or address: nothing that follows can succeed.
_REFUSED_STATUSES = {401, 402, 403, 404, 405, 410, *range(300, 400)}
# OpenAI's 429 of an account without money, which no waiting ends.
_REFUSED_CODES = {"insufficient_quota", "billing_hard_limit_reached"}
MALFORMED_STATUSES = {400, 413, 415, 422}
_STREAM_LINE = re.compile(rb"(data|event|id|retry)?:")
# What is read of one answer at most: of a line or a whole answer, of all bytes, of events with text.
_MAX_LINE_BYTES, _MAX_BYTES, _MAX_EVENTS = 2**24, 2**28, 2**20
# Looked at of what is shown in a message, and shown.
_MAX_EXCERPT_BYTES, _EXCERPT_CHARACTERS = 2**14, 60
# What is kept of an object that a server sends: entries of each, and levels.
_MAX_ENTRIES, _MAX_LEVELS = 64, 4
# Servers name the text of a reasoning model's thoughts either way.
_TEXT_FIELDS = ("text", "content", "reasoning_content", "reasoning")


@dataclass
class Answer:
    """What came back for one request; seconds since its clock started."""

    sent_at: str
    definitions: str = definitions.STREAMED
    time_to_connect_s: float | None = None
    time_to_headers_s: float | None = None
    chunk_times_s: list[float] = field(default_factory=list)
    runtime_s: float | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    model_reported: str | None = None
    usage: dict | None = None
    finish_reason: str | None = None
    notes: list[str] = field(default_factory=list)
    error: dict | None = None
    # Failed on a connection used before, which the server may have closed before it saw the request.
    is_stale: bool = False

    def clean(self, clean: Callable[[str], str]):
        """Keep of what the server sent only what a log can hold."""
        for name in ("headers", "model_reported", "usage", "finish_reason"):
            setattr(self, name, kept(getattr(self, name), clean))

    def fail(self, kind: str, message: str, *, code: str | None = None):
        """Mark the answer as failed; what came before stays."""
        self.error = {"type": kind, "message": message}
        if code:
            self.error["code"] = code

    @property
    def is_retryable(self) -> bool:
        """Whether nothing was generated and the fault may pass."""
        if self.error is None or self.is_refused:
            return False
        if self.error["type"] == CONNECTION_ERROR:
            return True
        status = self.status or 0
        is_passing = status in _RETRIED_STATUSES or (status >= 500 and status not in _LASTING_STATUSES)
        return self.error["type"] == STATUS_ERROR and is_passing

    @property
    def is_refused(self) -> bool:
        """Whether no other request can succeed either: a wrong key, a wrong model."""
        if self.error is None or self.error["type"] != STATUS_ERROR:
            return False
        return self.status in _REFUSED_STATUSES or self.error.get("code") in _REFUSED_CODES

    @property
    def is_billed(self) -> bool:
        """Whether tokens may have been generated: not where a status refused them, or nothing was sent."""
        if self.error is None:
            return True
        return self.error["type"] != STATUS_ERROR and self.error.get("code") != NOT_SENT


class AnswerError(Exception):
    """What came is no answer, or a part of one, or says that the server failed: ``kind`` is the type of its error."""

    def __init__(self, kind: str, message: str, code: str | None = None):
        super().__init__(message)
        self.kind, self.code = kind, code


class AnswerReader:
    """Fills an :class:`Answer` from the bytes of a response that succeeded.

    Parameters
    ----------
    answer : Answer
        With status and headers.
    is_streaming : bool
        Whether a stream was asked for.
    clean : callable
        What is kept of a text of the server, as :meth:`~idealized_runtime.api.endpoint.Endpoint.clean`.
    """

    def __init__(self, answer: Answer, *, is_streaming: bool, clean: Callable[[str], str] = one_line):
        self.answer = answer
        self.is_done = False
        self._is_streaming, self._clean = is_streaming, clean
        self._is_stream: bool | None = None
        # Pieces of a line, or of a whole answer, that has not ended: joined once, however many there are.
        self._pieces: list[bytes] = []
        self._num_pending = self._num_event_bytes = self._num_bytes = 0
        self._event: list[bytes] = []
        self._num_comments = self._num_events = 0

    def feed(self, data: bytes, time_s: float):
        """Take bytes that arrived at ``time_s``; ``is_done`` tells when the stream has said that it is over.

        Raises
        ------
        AnswerError
            As :meth:`close`.
        """
        if self._is_stream is None:
            # A stream begins with a field or a comment, an object with a brace, whatever the content type claims.
            data = (b"".join(self._pieces) + data).lstrip(b"\xef\xbb\xbf\r\n\t ")
            self._pieces, self._num_pending = [], 0
            if _STREAM_LINE.match(data):
                self._is_stream = True
                self._note_content_type("text/event-stream")
            elif data.startswith((b"{", b"[")) or len(data) > len("event:"):
                self._is_stream = False
        if self._is_stream and (b"\n" in data or b"\r" in data or b"\r" in b"".join(self._pieces[-1:])):
            self._read_lines(data, time_s)
        else:
            self._pieces.append(data)
            self._num_pending += len(data)
        self._num_bytes += len(data)
        if self._num_pending + self._num_event_bytes > _MAX_LINE_BYTES or self._num_bytes > _MAX_BYTES:
            what = "an event of the answer" if self._is_stream else "the answer"
            raise AnswerError(UNREADABLE_ERROR, f"{what} does not end: {self._num_bytes} bytes have come")

    def close(self, time_s: float):
        """The body has ended.

        Raises
        ------
        AnswerError
            It is no answer, or a part of one, or says that the server failed.
        """
        if self._is_stream:
            self._read_lines(b"\n", time_s)
            if self._event and self._read_event(b"\n".join(self._event), time_s):
                self._event = []
            self._finish_stream()
        else:
            self._read_whole()
        if self.answer.runtime_s is None:
            self.answer.runtime_s = time_s

    def _note_content_type(self, expected):
        given = self.answer.headers.get("content-type", "none")
        if not given.startswith(expected):
            self.answer.notes.append(f"content type {self._clean(given)}")

    def _read_lines(self, data, time_s):
        *lines, rest = re.split(rb"\r\n|\n|\r(?!\n|$)", b"".join([*self._pieces, data]))
        self._pieces, self._num_pending = [rest], len(rest)
        for line in lines:
            if self.is_done:
                return
            if line.startswith(b":"):
                self._num_comments += 1
            elif line.startswith(b"data:"):
                self._event.append(line[len(b"data:") :].removeprefix(b" "))
                self._num_event_bytes += len(line)
                # Some servers leave out the blank line that ends an event: a line that can be read by itself is one.
                if len(self._event) == 1 and self._read_event(self._event[0], time_s):
                    self._event, self._num_event_bytes = [], 0
            elif not line.strip() and self._event:
                event, self._event, self._num_event_bytes = b"\n".join(self._event), [], 0
                if not self._read_event(event, time_s):
                    raise AnswerError(UNREADABLE_ERROR, f"an event is not JSON: {self._excerpt(event)}")

    def _read_event(self, event, time_s) -> bool:
        if event.strip() == b"[DONE]":
            self.answer.runtime_s = time_s
            self.is_done = True
            return True
        try:
            record = load(event.decode("utf-8", errors="replace"))
        except ValueError:
            return not event.strip()
        if not isinstance(record, dict):
            raise AnswerError(UNREADABLE_ERROR, f"an event is no object: {self._excerpt(event)}")
        self._num_events += 1
        if self._take(record):
            self.answer.chunk_times_s.append(time_s)
            if len(self.answer.chunk_times_s) > _MAX_EVENTS:
                raise AnswerError(UNREADABLE_ERROR, f"the answer has more than {_MAX_EVENTS} events with text")
        return True

    def _excerpt(self, data) -> str:
        """The beginning of an answer, to be shown in a message."""
        return repr(self._clean(data[:_MAX_EXCERPT_BYTES].decode("utf-8", errors="replace"))[:_EXCERPT_CHARACTERS])

    def _take(self, record) -> bool:
        """Keep what an object says; whether it carries text."""
        if record.get("error"):
            raise AnswerError(SERVER_ERROR, *error_message(record, self._clean))
        answer, has_text = self.answer, False
        if isinstance(record.get("model"), str):
            answer.model_reported = record["model"]
        choices = record.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        # Moonshot's usage stands in a choice, Groq's in an object of its own; llama.cpp's cache is among its timings.
        for holder in (*choices, record.get("x_groq"), record):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                answer.usage = holder["usage"]
        timings = record.get("timings")
        if isinstance(timings, dict) and "cache_n" in timings:
            answer.usage = {**(answer.usage or {}), "cache_n": timings["cache_n"]}
        for choice in choices:
            said = choice.get("delta") or choice.get("message") or choice
            has_text |= isinstance(said, dict) and any(said.get(name) for name in _TEXT_FIELDS)
            if isinstance(choice.get("finish_reason"), str):
                answer.finish_reason = choice["finish_reason"] or answer.finish_reason
        return has_text

    def _finish_stream(self):
        answer = self.answer
        if not self._is_streaming:
            answer.notes.append("streamed though not asked to")
        if self._num_comments:
            answer.notes.append(f"{self._num_comments} comment lines")
        if not self.is_done:
            if answer.finish_reason is None or self._event:
                ended = f"the stream ends after {self._num_events} events, without [DONE] or a finish_reason"
                raise AnswerError(CUT_ERROR, ended)
            answer.notes.append("no [DONE]")

    def _read_whole(self):
        content_type, body = self.answer.headers.get("content-type", "none"), b"".join(self._pieces)
        if not body.strip():
            raise AnswerError(CUT_ERROR, "the answer is empty")
        try:
            record = load(body.decode("utf-8"))
        except ValueError as error:
            if body.lstrip().startswith(b"{") and "json" in content_type:
                raise AnswerError(CUT_ERROR, f"the answer is cut after {len(body)} bytes") from error
            said = f"neither events nor JSON, content type {self._clean(content_type)}: {self._excerpt(body)}"
            raise AnswerError(UNREADABLE_ERROR, said) from error
        if not isinstance(record, dict):
            raise AnswerError(UNREADABLE_ERROR, f"no object: {self._excerpt(body)}")
        if not isinstance(record.get("choices"), list) and not record.get("error"):
            raise AnswerError(UNREADABLE_ERROR, f"an object without choices: {self._excerpt(body)}")
        self.answer.definitions = definitions.WHOLE
        self._note_content_type("application/json")
        if self._is_streaming:
            self.answer.notes.append("answered whole though a stream was asked for")
        self._take(record)


def error_message(record, clean: Callable[[str], str] = one_line) -> tuple[str, str | None]:
    """Message and code of an error object, in the forms that servers give it."""
    error = kept(record.get("error", record) if isinstance(record, dict) else record, clean)
    if not isinstance(error, dict):
        return clean(str(error)), None
    code = error.get("code") or error.get("type")
    message = error.get("message") or error.get("detail") or json.dumps(error)
    return clean(str(message)), None if code is None else clean(str(code))


def body_message(body: bytes, clean: Callable[[str], str] = one_line) -> tuple[str, str | None]:
    """Message and code of the body of a refusal, JSON or not."""
    try:
        return error_message(load(body.decode("utf-8")), clean)
    except ValueError:
        return clean(re.sub(r"<[^>]*>", " ", body.decode("utf-8", errors="replace"))) or "(no message)", None


def kept(value, clean: Callable[[str], str], num_levels: int = _MAX_LEVELS):
    """What a log holds of a value that a server sent: its first entries and levels, numbers that JSON has."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict) and num_levels:
        entries = itertools.islice(value.items(), _MAX_ENTRIES)
        return {clean(name): kept(entry, clean, num_levels - 1) for name, entry in entries}
    if isinstance(value, list) and num_levels:
        return [kept(entry, clean, num_levels - 1) for entry in value[:_MAX_ENTRIES]]
    is_kept = isinstance(value, bool) or is_integer(value, -(2**63)) or (isinstance(value, float) and is_number(value))
    return value if is_kept else None


def load(text: str | bytes):
    """JSON without the numbers that a log cannot hold.

    Raises
    ------
    ValueError
        It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
