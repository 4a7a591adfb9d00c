"""Sends one request and times its answer; every fault of a server comes back as a failed answer."""

import asyncio
import json
import warnings
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter

import httpx

from idealized_runtime.api import answers
from idealized_runtime.api.answers import Answer, AnswerReader
from idealized_runtime.api.endpoint import Endpoint

# What may follow [DONE] is read without timing it, so that the connection can be used again, but not waited for.
_DRAIN_S = 0.5
_CONNECT_TIMEOUT_S = 30.0
_LIST_TIMEOUT_S = 10.0
# Of what is no answer: the message of an error, a list of models; and of one piece of a compressed body.
_MAX_ERROR_BYTES, _MAX_LIST_BYTES, _MAX_PIECE_BYTES = 2**16, 2**22, 2**16
# gzip, or zlib as "deflate" has it.
_COMPRESSIONS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_FAULTS = (TimeoutError, httpx.RequestError, answers.AnswerError)


class ExposedKeyWarning(UserWarning):
    """A key is sent unencrypted over a network."""


class ApiClient:
    """An open client of one endpoint; ``async with`` closes its connections.

    Parameters
    ----------
    endpoint : Endpoint
    max_connections : int, optional
        As many requests as may be under way at once; no limit where it is not given.

    Warns
    -----
    ExposedKeyWarning
        The endpoint has a key, and another machine is asked without TLS.
    """

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        if endpoint.is_key_exposed:
            warnings.warn(
                f"the key goes unencrypted over {endpoint.base_url} to another machine, where anyone on the way can "
                "read it: give an https address",
                ExposedKeyWarning,
                stacklevel=2,
            )
        # What it takes once, no request is to wait for.
        endpoint.clean("")
        key = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        options = {
            # Compressed streams arrive in larger pieces than they are sent in.
            "headers": {"Accept-Encoding": "identity", "Content-Type": "application/json", **key},
            "timeout": httpx.Timeout(
                endpoint.timeout_s, connect=min(endpoint.timeout_s, _CONNECT_TIMEOUT_S), pool=None
            ),
            # No proxy or certificate from the environment: what is timed is named by the flags.
            "verify": httpx.create_ssl_context(trust_env=False),
            "trust_env": False,
        }
        # As many requests as may be under way at once: a load has no other limit than its own.
        self._http = httpx.AsyncClient(**options, limits=httpx.Limits())
        # Never uses a connection again.
        self._fresh = httpx.AsyncClient(**options, limits=httpx.Limits(max_keepalive_connections=0))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()
        await self._fresh.aclose()

    async def send(self, prompt: str, num_output_tokens: int) -> Answer:
        """Send one request and read its answer to the end.

        Once, but for one case: a server may close an idle connection while the request is on its way to it. That
        request, of which the server has seen nothing, is sent again on a fresh connection, and its answer says so.

        Returns
        -------
        Answer
            With ``error`` where the request failed in any way; nothing is raised for that.
        """
        content = json.dumps(self.endpoint.body(prompt, num_output_tokens)).encode()
        answer = await self._send_once(self._http, content)
        if answer.is_stale:
            answer = await self._send_once(self._fresh, content)
            answer.notes.append("sent again, since the server had closed the idle connection")
        answer.clean(self.endpoint.clean)
        return answer

    async def list_models(self) -> list[str] | None:
        """Names of the models that the server says it has; None where it does not say."""
        request = self._http.build_request("GET", f"{self.endpoint.base_url}/models")
        try:
            async with asyncio.timeout(min(self.endpoint.timeout_s, _LIST_TIMEOUT_S)):
                response = await self._http.send(request, stream=True)
                try:
                    response.raise_for_status()
                    body = await _read(response, _MAX_LIST_BYTES)
                finally:
                    await response.aclose()
            return [self.endpoint.clean(str(entry["id"])) for entry in answers.load(body)["data"]] or None
        except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError, answers.AnswerError):
            return None

    async def _send_once(self, http, content) -> Answer:
        answer = Answer(sent_at=datetime.now(UTC).isoformat(timespec="microseconds"))

        async def trace(event, _info):
            # Told only where a connection is opened for this request.
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                answer.time_to_connect_s = perf_counter() - start_s

        request = http.build_request("POST", self.endpoint.url, content=content, extensions={"trace": trace})
        start_s = perf_counter()
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                await self._exchange(http, request, answer, start_s)
        except _FAULTS as error:
            self._fail(answer, error)
        return answer

    async def _exchange(self, http, request, answer, start_s):
        clean = self.endpoint.clean
        response = await http.send(request, stream=True)
        try:
            answer.time_to_headers_s = perf_counter() - start_s
            answer.status = response.status_code
            answer.headers = {name: value for name, value in response.headers.items() if name != "set-cookie"}
            if not response.is_success:
                message, code = answers.body_message(await _read(response, _MAX_ERROR_BYTES), clean)
                if response.is_redirect:
                    message = (
                        f"redirected to {clean(answer.headers.get('location', 'nowhere'))}; give the address itself"
                    )
                elif answer.status in (404, 405):
                    message += self.endpoint.version_hint
                answer.fail(answers.STATUS_ERROR, f"HTTP {answer.status}: {message}", code=code)
                return
            if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
                answer.notes.append(f"compressed by {clean(encoding)} though not asked to")
            reader = AnswerReader(answer, is_streaming=self.endpoint.is_streaming, clean=clean)
            pieces = _decoded(response)
            async for piece in pieces:
                reader.feed(piece, perf_counter() - start_s)
                if reader.is_done:
                    break
            reader.close(perf_counter() - start_s)
            with suppress(TimeoutError, httpx.TransportError, answers.AnswerError):
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in pieces:
                        pass
        finally:
            await response.aclose()

    def _fail(self, answer, error):
        """A connection that broke before the headers carried no answer; one that broke after them cut it."""
        said = type(error).__name__ + (f": {self.endpoint.clean(str(error))}" if str(error) else "")
        unanswered = f"no answer from {self.endpoint.base_url}: {said}"
        if isinstance(error, answers.AnswerError):
            answer.fail(error.kind, str(error), code=error.code)
        elif isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            answer.fail(answers.CONNECTION_ERROR, unanswered, code=answers.NOT_SENT)
        elif isinstance(error, (TimeoutError, httpx.TimeoutException)):
            answer.fail(answers.TIMEOUT_ERROR, f"no whole answer within {self.endpoint.timeout_s:g} s")
        elif answer.status is None:
            answer.fail(answers.CONNECTION_ERROR, unanswered)
            # A connection that was used before, and no byte of an answer.
            is_cut = isinstance(error, httpx.NetworkError) or "disconnected without sending" in str(error)
            answer.is_stale = is_cut and answer.time_to_connect_s is None
        else:
            num_chunks = len(answer.chunk_times_s)
            answer.fail(answers.CUT_ERROR, f"the connection broke after {num_chunks} events with text: {said}")


async def _decoded(response) -> AsyncIterator[bytes]:
    """Bytes of a body as they come, decompressed in pieces: a megabyte may unpack to a thousand.

    Raises
    ------
    AnswerError
        The body is not compressed as its header says, or in a way that is not known here.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        async for data in response.aiter_raw():
            yield data
        return
    if encoding not in _COMPRESSIONS:
        raise answers.AnswerError(answers.UNREADABLE_ERROR, "compressed, though not asked to, in an unknown way")
    decompress = zlib.decompressobj(_COMPRESSIONS[encoding])
    async for data in response.aiter_raw():
        try:
            while data:
                piece = decompress.decompress(data, _MAX_PIECE_BYTES)
                data = decompress.unconsumed_tail
                yield piece
        except zlib.error as error:
            raise answers.AnswerError(answers.UNREADABLE_ERROR, f"not compressed by {encoding}: {error}") from error


async def _read(response, most: int) -> bytes:
    """The beginning of a body: so many bytes at most, and the rest of a piece."""
    body = b""
    async for data in _decoded(response):
        body += data
        if len(body) >= most:
            break
    return body
