"""Sends one request and times its answer; every fault of a server comes back as a failed answer."""

import asyncio
import json
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
_FAULTS = (TimeoutError, httpx.RequestError, answers.AnswerError)


class ApiClient:
    """An open client of one endpoint; ``async with`` closes its connections.

    Parameters
    ----------
    endpoint : Endpoint
    max_connections : int, optional
        As many requests as may be under way at once; no limit where it is not given.
    """

    def __init__(self, endpoint: Endpoint, *, max_connections: int | None = None):
        self.endpoint = endpoint
        key = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        self._http = httpx.AsyncClient(
            # Compressed streams arrive in larger pieces than they are sent in.
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json", **key},
            timeout=httpx.Timeout(endpoint.timeout_s, connect=min(endpoint.timeout_s, _CONNECT_TIMEOUT_S), pool=None),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            # No proxy or certificate from the environment: what is timed is named by the flags.
            trust_env=False,
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()

    async def send(self, prompt: str, num_output_tokens: int) -> Answer:
        """Send one request, once, and read its answer to the end.

        Returns
        -------
        Answer
            With ``error`` where the request failed in any way; nothing is raised for that.
        """
        content = json.dumps(self.endpoint.body(prompt, num_output_tokens)).encode()
        answer = Answer(sent_at=datetime.now(UTC).isoformat(timespec="microseconds"))

        async def trace(event, _info):
            # Told only where a connection is opened for this request.
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                answer.time_to_connect_s = perf_counter() - start_s

        request = self._http.build_request("POST", self.endpoint.url, content=content, extensions={"trace": trace})
        start_s = perf_counter()
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                await self._exchange(request, answer, start_s)
        except _FAULTS as error:
            self._fail(answer, error)
        # Servers like to repeat the key in their messages.
        redact = self.endpoint.redact
        answer.headers = {name: redact(value) for name, value in answer.headers.items()}
        if answer.error:
            answer.error = {name: redact(value) for name, value in answer.error.items()}
        return answer

    async def list_models(self) -> list[str] | None:
        """Names of the models that the server says it has; None where it does not say."""
        try:
            async with asyncio.timeout(min(self.endpoint.timeout_s, _LIST_TIMEOUT_S)):
                response = await self._http.get(f"{self.endpoint.base_url}/models")
            entries = response.raise_for_status().json()["data"]
            return [str(entry["id"]) for entry in entries] or None
        except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError):
            return None

    async def _exchange(self, request, answer, start_s):
        response = await self._http.send(request, stream=True)
        try:
            answer.time_to_headers_s = perf_counter() - start_s
            answer.status = response.status_code
            answer.headers = {name: value for name, value in response.headers.items() if name != "set-cookie"}
            if not response.is_success:
                message, code = answers.body_message(await response.aread())
                if response.is_redirect:
                    message = f"redirected to {answer.headers.get('location')}; give the address itself"
                answer.fail(answers.STATUS_ERROR, f"HTTP {answer.status}: {message}", code=code)
                return
            reader = AnswerReader(answer, is_streaming=self.endpoint.is_streaming)
            pieces = response.aiter_bytes()
            async for piece in pieces:
                reader.feed(piece, perf_counter() - start_s)
                if reader.is_done:
                    break
            reader.close(perf_counter() - start_s)
            with suppress(TimeoutError, httpx.TransportError):
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in pieces:
                        pass
        finally:
            await response.aclose()

    def _fail(self, answer, error):
        """A connection that broke before the headers carried no answer; one that broke after them cut it."""
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        unanswered = f"no answer from {self.endpoint.base_url}: {said}"
        if isinstance(error, answers.AnswerError):
            answer.fail(error.kind, str(error), code=error.code)
        elif isinstance(error, httpx.DecodingError):
            answer.fail(answers.UNREADABLE_ERROR, str(error))
        elif isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            answer.fail(answers.CONNECTION_ERROR, unanswered, code=answers.NOT_SENT)
        elif isinstance(error, (TimeoutError, httpx.TimeoutException)):
            answer.fail(answers.TIMEOUT_ERROR, f"no whole answer within {self.endpoint.timeout_s:g} s")
        elif answer.status is None:
            answer.fail(answers.CONNECTION_ERROR, unanswered)
        else:
            num_chunks = len(answer.chunk_times_s)
            answer.fail(answers.CUT_ERROR, f"the connection broke after {num_chunks} events with text: {said}")
