"""One answer of a server, read as its bytes come: a stream of events, or one JSON object.

Servers that claim one protocol differ. Read alike here: streams without ``[DONE]``, with comment lines, with empty
``choices``, with one line end or two between events; usage in an event of its own, in all of them, or in none; a
stream answered whole, and one under the wrong content type.
"""

import json
import re
from dataclasses import dataclass, field

from idealized_runtime.records import definitions
from idealized_runtime.records.common import excerpt

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
_MAX_WHOLE_BYTES = 64 * 2**20
_EXCERPT_CHARACTERS = 300
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
    """

    def __init__(self, answer: Answer, *, is_streaming: bool):
        self.answer = answer
        self.is_done = False
        self._is_streaming = is_streaming
        self._is_stream: bool | None = None
        self._buffer = b""
        self._event: list[bytes] = []
        self._num_comments = self._num_events = 0

    def feed(self, data: bytes, time_s: float):
        """Take bytes that arrived at ``time_s``; ``is_done`` tells when the stream has said that it is over.

        Raises
        ------
        AnswerError
            As :meth:`close`.
        """
        self._buffer += data
        if self._is_stream is None:
            # A stream begins with a field or a comment, an object with a brace, whatever the content type claims.
            begin = self._buffer.lstrip(b"\xef\xbb\xbf\r\n\t ")
            if _STREAM_LINE.match(begin):
                self._is_stream = True
                self._note_content_type("text/event-stream")
            elif begin.startswith((b"{", b"[")) or len(begin) > len("event:"):
                self._is_stream = False
        if self._is_stream:
            self._read_lines(time_s)
        elif len(self._buffer) > _MAX_WHOLE_BYTES:
            raise AnswerError(UNREADABLE_ERROR, f"the answer is longer than {_MAX_WHOLE_BYTES} bytes")

    def close(self, time_s: float):
        """The body has ended.

        Raises
        ------
        AnswerError
            It is no answer, or a part of one, or says that the server failed.
        """
        if self._is_stream:
            self._buffer += b"\n"
            self._read_lines(time_s)
            self._finish_stream()
        else:
            self._read_whole()
        if self.answer.runtime_s is None:
            self.answer.runtime_s = time_s

    def _note_content_type(self, expected):
        given = self.answer.headers.get("content-type", "none")
        if not given.startswith(expected):
            self.answer.notes.append(f"content type {given}")

    def _read_lines(self, time_s):
        *lines, self._buffer = re.split(rb"\r\n|\n|\r(?!\n|$)", self._buffer)
        for line in lines:
            if self.is_done:
                return
            if line.startswith(b":"):
                self._num_comments += 1
            elif line.startswith(b"data:"):
                self._event.append(line[len(b"data:") :].removeprefix(b" "))
                # Some servers leave out the blank line that ends an event: an event is over when it can be read.
                if self._read_event(b"\n".join(self._event), time_s):
                    self._event = []
            elif not line.strip() and self._event:
                event, self._event = b"\n".join(self._event), []
                raise AnswerError(UNREADABLE_ERROR, f"an event is not JSON: {excerpt(event)}")

    def _read_event(self, event, time_s) -> bool:
        if event.strip() == b"[DONE]":
            self.answer.runtime_s = time_s
            self.is_done = True
            return True
        try:
            record = _load(event.decode("utf-8", errors="replace"))
        except ValueError:
            return not event.strip()
        if not isinstance(record, dict):
            raise AnswerError(UNREADABLE_ERROR, f"an event is no object: {excerpt(event)}")
        self._num_events += 1
        if self._take(record):
            self.answer.chunk_times_s.append(time_s)
        return True

    def _take(self, record) -> bool:
        """Keep what an object says; whether it carries text."""
        if record.get("error"):
            raise AnswerError(SERVER_ERROR, *error_message(record))
        if isinstance(record.get("model"), str):
            self.answer.model_reported = record["model"]
        if isinstance(record.get("usage"), dict):
            self.answer.usage = record["usage"]
        has_text = False
        choices = record.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                said = choice.get("delta") or choice.get("message") or choice
                has_text |= isinstance(said, dict) and any(said.get(name) for name in _TEXT_FIELDS)
                self.answer.finish_reason = choice.get("finish_reason") or self.answer.finish_reason
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
        content_type, body = self.answer.headers.get("content-type", "none"), self._buffer
        if not body.strip():
            raise AnswerError(CUT_ERROR, "the answer is empty")
        try:
            record = _load(body.decode("utf-8"))
        except ValueError as error:
            if body.lstrip().startswith(b"{") and "json" in content_type:
                raise AnswerError(CUT_ERROR, f"the answer is cut after {len(body)} bytes") from error
            said = f"neither events nor JSON, content type {content_type}: {excerpt(body)}"
            raise AnswerError(UNREADABLE_ERROR, said) from error
        if not isinstance(record, dict):
            raise AnswerError(UNREADABLE_ERROR, f"no object: {excerpt(body)}")
        if not isinstance(record.get("choices"), list) and not record.get("error"):
            raise AnswerError(UNREADABLE_ERROR, f"an object without choices: {excerpt(body)}")
        self.answer.definitions = definitions.WHOLE
        self._note_content_type("application/json")
        if self._is_streaming:
            self.answer.notes.append("answered whole though a stream was asked for")
        self._take(record)


def error_message(record) -> tuple[str, str | None]:
    """Message and code of an error object, in the forms that servers give it."""
    error = record.get("error", record) if isinstance(record, dict) else record
    if not isinstance(error, dict):
        return _shorten(str(error)), None
    code = error.get("code") or error.get("type")
    message = error.get("message") or error.get("detail") or json.dumps(error)
    return _shorten(str(message)), None if code is None else str(code)


def body_message(body: bytes) -> tuple[str, str | None]:
    """Message and code of the body of a refusal, JSON or not."""
    try:
        return error_message(json.loads(body))
    except ValueError:
        text = re.sub(r"<[^>]*>", " ", body.decode("utf-8", errors="replace"))
        return _shorten(" ".join(text.split())) or "(no message)", None


def _shorten(text: str) -> str:
    return text if len(text) <= _EXCERPT_CHARACTERS else text[:_EXCERPT_CHARACTERS] + " ..."


def _load(text: str):
    """JSON without the numbers that a log cannot hold."""
    return json.loads(text, parse_constant=lambda _: None)
