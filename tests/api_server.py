"""A server of OpenAI's protocol on this machine that does what a test says, to the byte, faults included."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# What a behaviour gives: bytes to send, seconds to wait; CUT drops the connection as it is.
CUT = object()
Step = bytes | float | object


@dataclass
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict
    received_s: float

    @property
    def prompt(self) -> str:
        return self.body["prompt"] if "prompt" in self.body else self.body["messages"][0]["content"]

    @property
    def num_prompt_tokens(self) -> int:
        """A token a word, and a mark after it one more."""
        return len(self.prompt.split()) + sum(mark in self.prompt for mark in ";!:?,.|~")

    @property
    def num_output_tokens(self) -> int:
        return self.body.get("max_tokens") or self.body["max_completion_tokens"]


@dataclass
class ApiServer:
    """A listening server; ``with`` closes it. Behaviours are taken in turn, the last one again and again."""

    behaviours: list[Callable[[Request], Iterator[Step]]]
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    # Names of /models; a server that lists none does not know the address.
    models: tuple[str, ...] = ()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self):
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader, writer):
        try:
            while request := await _read_request(reader):
                if request.path == "/v1/models":
                    await _perform([self._list_models()], writer)
                    continue
                self.requests.append(request)
                behaviour = self.behaviours[min(len(self.requests), len(self.behaviours)) - 1]
                if await _perform(behaviour(request), writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _list_models(self) -> bytes:
        if not self.models:
            return json_answer({"error": {"message": "not found"}}, 404)
        return json_answer({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})


async def _perform(steps, writer) -> bool:
    """Whether the connection is over."""
    for step in steps:
        if step is CUT:
            return True
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        else:
            await asyncio.sleep(step)
    return False


async def _read_request(reader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(lines[0].split()[1], headers, json.loads(body or b"{}"), time.perf_counter())


def head(status=200, content_type="text/event-stream", *, length=None, **headers) -> bytes:
    """Status line and headers; without ``length`` the body is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", size]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def event(record, end="\n\n") -> bytes:
    """One event of a stream."""
    return f"data: {record if isinstance(record, str) else json.dumps(record)}{end}".encode()


def text_event(text="a", finish_reason=None, end="\n\n", **fields) -> bytes:
    """An event with text, of the completions protocol."""
    return event({"choices": [{"text": text, "index": 0, "finish_reason": finish_reason}], **fields}, end)


def usage_of(request, **fields) -> dict:
    return {"prompt_tokens": request.num_prompt_tokens, "completion_tokens": request.num_output_tokens, **fields}


def usage_event(request, **fields) -> bytes:
    """Usage in an event of its own, with empty choices."""
    return event({"choices": [], "usage": usage_of(request, **fields)})


DONE = event("[DONE]")


def well_behaved(request, *, first_s=0.0, next_s=0.0) -> Iterator[Step]:
    """A stream or a whole answer, as vLLM gives it."""
    if not request.body["stream"]:
        yield from whole(request, wait_s=first_s + (request.num_output_tokens - 1) * next_s)
        return
    yield head(Set_Cookie="session=secret")
    for number in range(request.num_output_tokens):
        yield next_s if number else first_s
        is_last = number + 1 == request.num_output_tokens
        yield chunk(text_event(finish_reason="length" if is_last else None))
    yield chunk(usage_event(request)) + chunk(DONE) + END


def whole(request, *, wait_s=0.0) -> Iterator[Step]:
    """One JSON object."""
    yield wait_s
    yield json_answer({"choices": [{"text": "a" * request.num_output_tokens, "finish_reason": "length"}],
                       "usage": usage_of(request)})  # fmt: skip


def json_answer(record, status=200, **headers) -> bytes:
    body = json.dumps(record).encode()
    return head(status, "application/json", length=len(body), **headers) + body


def refusal(status, message="no", *, code=None, **headers) -> Callable[[Request], Iterator[Step]]:
    """An error status with OpenAI's error object."""
    return lambda _request: iter([json_answer({"error": {"message": message, "code": code}}, status, **headers)])


def stream(*pieces: bytes, content_type="text/event-stream", is_chunked=True) -> Callable[[Request], Iterator[Step]]:
    """Exactly these bytes as the body of a stream; unless chunked, it ends with the connection."""

    def behave(_request):
        if is_chunked:
            yield head(content_type=content_type)
            yield from (chunk(piece) for piece in pieces)
            yield END
        else:
            yield f"HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
            yield from pieces
            yield CUT

    return behave
