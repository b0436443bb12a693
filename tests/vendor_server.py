"""A server that speaks as Anthropic, Groq, Gemini and Mistral do, for their SDKs.

Owns the shape of one answer of each endpoint, with usage and headers. Must never
enforce a limit: what is admitted is read off the limiter.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

JSON: Final = {"content-type": "application/json"}
STREAM: Final = {"content-type": "text/event-stream"}
ANTHROPIC: Final = {
    f"anthropic-ratelimit-{name}-{field}": value
    for name, limit in {"requests": 50, "input-tokens": 40_000, "output-tokens": 8_000}.items()
    for field, value in {
        "limit": str(limit),
        "remaining": str(limit - 1),
        "reset": "2030-01-01T00:00:00Z",
    }.items()
}
GROQ: Final = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-remaining-requests": "14399",
    "x-ratelimit-reset-requests": "6s",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-tokens": "17975",
    "x-ratelimit-reset-tokens": "83.3ms",
    "x-groq-region": "us",
}
MISTRAL: Final = {
    "x-ratelimit-limit-req-minute": "60",
    "x-ratelimit-remaining-req-minute": "59",
    "x-ratelimit-limit-tokens-minute": "500000",
    "x-ratelimit-remaining-tokens-minute": "499975",
}
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}

Answer = tuple[dict[str, str], bytes]


def whole(answer: dict[str, Any], headers: dict[str, str]) -> Answer:
    """An answer in one piece."""
    return JSON | headers, json.dumps(answer).encode()


def stream(events: list[dict[str, Any]], headers: dict[str, str], end: str = "") -> Answer:
    """An answer in events, which carry their names where they have a type."""
    texts = [
        (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return STREAM | headers, "".join([*texts, end]).encode()


def anthropic(body: dict[str, Any]) -> Answer:
    """POST /v1/messages."""
    message: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "content": []}
    message |= {"model": body["model"], "stop_reason": None, "stop_sequence": None}
    text = {"type": "text", "text": "Hello"}
    if not body.get("stream"):
        usage = {"input_tokens": 20, "output_tokens": 5}
        done = {"content": [text], "stop_reason": "end_turn", "usage": usage}
        return whole(message | done, ANTHROPIC)
    begun = message | {"usage": {"input_tokens": 20, "output_tokens": 1}}
    delta = {"type": "text_delta", "text": "Hello"}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return stream(
        [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": text | {"text": ""}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ],
        ANTHROPIC,
    )


def gemini(method: str) -> Answer:
    """POST /v1beta/models/MODEL:METHOD."""
    candidate = {"content": {"role": "model", "parts": [{"text": "Hello"}]}, "index": 0}
    counts = {"promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25}
    done = {"candidates": [candidate | {"finishReason": "STOP"}], "usageMetadata": counts}
    if method == "batchEmbedContents":
        return whole({"embeddings": [{"values": [0.5, 0.25]}]}, {})
    if method == "streamGenerateContent":
        first = {"promptTokenCount": 20, "totalTokenCount": 20}
        return stream([{"candidates": [candidate], "usageMetadata": first}, done], {})
    return whole(done, {})


def conversation() -> Answer:
    """POST /v1/conversations of Mistral."""
    output = {"type": "message.output", "role": "assistant", "content": "Hello"}
    return whole({"conversation_id": "c", "outputs": [output], "usage": USAGE}, MISTRAL)


def chat(body: dict[str, Any], headers: dict[str, str], last: dict[str, Any]) -> Answer:
    """POST /v1/chat/completions of Groq and Mistral.

    :param last: what the last chunk of a stream has besides.
    """
    base = {"id": "c", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        done = {"object": "chat.completion", "choices": [choice], "usage": USAGE}
        return whole(base | done, headers)
    chunk = base | {"object": "chat.completion.chunk"}
    said = {"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}
    stop = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
    events = [chunk | {"choices": [said]}, chunk | {"choices": [stop]} | last]
    return stream(events, headers, "data: [DONE]\n\n")


def answer(path: str, body: dict[str, Any]) -> Answer:
    """Answer a request by its path."""
    if path.endswith("/v1/messages"):
        return anthropic(body)
    if ":" in path:
        return gemini(path.rpartition(":")[2])
    if path.endswith("/conversations"):
        return conversation()
    if path.startswith("/openai/v1"):
        return chat(body, GROQ, {"x_groq": {"id": "r", "usage": USAGE}})
    return chat(body, MISTRAL, {"usage": USAGE})


@contextmanager
def serving() -> Iterator[tuple[str, list[str]]]:
    """Serve on a free port; yield the address and the paths that are asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            path = self.path.partition("?")[0]
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(path)
            headers, content = answer(path, body)
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
