"""Answers: what they are made of, and the errors that come as answers.

Owns the names by which httpx, requests, aiohttp and the SDKs' raw responses hold a
status, a body and a host, and the error objects that come with status 200, in a stream
or in a failed Response. Must never read the network, do other I/O, read a clock or act
on anything. Never raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as declared
from typing import Final, Literal
from urllib.parse import urlsplit

from ratelimit.feedback.finality import OVERLOADED_CODES, is_refusing
from ratelimit.feedback.messages import MESSAGES
from ratelimit.feedback.refusals import Refusal, codes_of, read_refusal
from ratelimit.feedback.untrusted import amount, decoded, field, http_status, is_filled, items, text


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended that raised an exception, or was answered by an error."""

    kind: Literal["nothing_sent", "refused", "unknown"]
    """"nothing_sent": no byte of the request reached the server, give everything back.
    "refused": `refusal` says how. "unknown": it may have been counted, keep what was
    reserved.
    """
    refusal: Refusal | None = None
    source: BaseException | None = declared(default=None, compare=False, repr=False)
    """The exception that has brought the refusal, if one has."""


UNKNOWN: Final = Outcome("unknown")


def read_error(error: object, host: str = "") -> Refusal | None:
    """Read an error object as a refusal; None when it is none.

    For errors that come inside an answer that began with 200: in a stream, in a failed
    Response.

    :param error: the mapping or object that holds `message`, `code` or `type`.
    :param host: the server's host name, as for `read_refusal`.
    """
    status = _status(error)
    refusal = read_refusal(status, None, {"error": error}, host)
    if refusal is not None:
        return refusal

    codes = codes_of(error)
    if OVERLOADED_CODES.intersection(codes):
        return read_refusal(503, None, {"error": error}, host)

    return read_refusal(429, None, {"error": error}, host) if is_refusing(codes) else None


def read_error_answer(answer: object, host: str = "") -> Outcome | None:
    """Tell an error that came with status 200 from an answer; None when it is one.

    OpenRouter, Azure's content filter and relays send an error object as the body of a
    200: an `error`, of the answer or of a choice. A refusal may come after a part of
    the answer, which does not undo it; beside any other error nothing was generated.

    :param answer: bytes, text, the decoded JSON, an SDK's object, or a response, which
        counts as far as its body was read.
    :param host: the server's host name, as for `read_refusal`.
    """
    found = decoded(said_in(answer))
    if isinstance(found, list) and found:  # Google wraps its errors in a list
        found = found[0]
    if found is None or isinstance(found, (str, int, float, list)):
        return None

    error = error_of(found)
    if error is None and "error" in {text(field(found, "object")), text(field(found, "type"))}:
        error = found
    error = error_by_shape(found) if error is None else with_status(error, found)
    if not is_filled(error) or isinstance(error, (bool, int, float)):
        return None

    refusal = read_error(error, host)
    if refusal is not None:
        return Outcome("refused", refusal)
    return None if _generated(found) else UNKNOWN


def error_of(answer: object) -> object:
    """Return the error of an answer, or of one of its choices; None without one."""
    for holder in (answer, *items(field(answer, "choices"))):
        error = field(holder, "error")
        if is_filled(error):
            return error
    return None


def with_status(error: object, answer: object) -> object:
    """Return an error, as an object where it is a text beside a status."""
    return {"message": error, "code": _status(answer)} if isinstance(error, str) else error


def error_by_shape(answer: object) -> object:
    """Return the error that an answer without an `error` is; None where it is none.

    By the shapes of vendors and gateways, of which an answer with output has none:

        {"code": 429, "message": ...}, {"statusCode": 429, ...}     gateways, Spring
        {"base_resp": {"status_code": 1002, "status_msg": ...}}     MiniMax
        {"success": false, "errors": [{"code": ..., "message": ...}]}   Cloudflare
        {"success": false, "msg": ...}                              relays
        {"detail": ...} alone                                       FastAPI
        {"choices": null}                                           relays
    """
    if any(is_filled(field(answer, name)) for name in _OUTPUTS) or _generated(answer):
        return None

    base = field(answer, "base_resp")
    code = amount(field(base, "status_code"))
    if code:
        status = _MINIMAX_STATUSES.get(code)
        return {"message": field(base, "status_msg"), "status": status, "code": f"{code:.0f}"}

    errors = field(answer, "errors")
    if isinstance(errors, list) and errors:
        return with_status(errors[0], answer)

    message = next(filter(None, (text(field(answer, name)) for name in MESSAGES)), "")
    status = _status(answer)
    if field(answer, "success") is False or (status is not None and message):
        return {"message": message, "code": status or field(answer, "code")}

    alone = isinstance(answer, dict) and len(answer) == 1 and "detail" in answer
    if alone or (isinstance(answer, dict) and answer.get("choices", ()) is None):
        return {"message": message or "the answer holds nothing"}
    return None


_OUTPUTS: Final = ("text", "results", "embeddings", "response", "result")
"""Where further endpoints, and other vendors' answers, hold what was generated."""

_MINIMAX_STATUSES: Final[Mapping[float, int]] = {
    1002: 429,
    1039: 429,
    1041: 429,
    2045: 429,
    1008: 402,
}
"""HTTP statuses of what MiniMax's codes say (its page of error codes): requests,
tokens, connections or growth beyond a limit, and an empty balance.
"""


def _generated(answer: object) -> bool:
    """Tell whether an answer holds anything that was generated."""
    if any(is_filled(field(answer, name)) for name in ("output", "data", "candidates", "content")):
        return True

    parts = ("content", "tool_calls", "function_call", "refusal", "audio")
    return any(
        is_filled(field(choice, "text"))
        or any(is_filled(field(field(choice, "message"), part)) for part in parts)
        for choice in items(field(answer, "choices"))
    )


def _status(error: object) -> int | None:
    """Return the HTTP status that an error object names, as a number or as text."""
    for name in ("code", "status", "status_code", "statusCode"):
        found = amount(field(error, name))
        if found is not None and 400 <= found < 600 and found == int(found):
            return int(found)
    return None


def status_of(response: object) -> int | None:
    """Return the HTTP status of a response, or of an exception that has one."""
    for name in ("status_code", "status"):
        status = http_status(field(response, name))
        if status is not None:
            return status
    return None


def reply_status(answer: object) -> int | None:
    """Return the status of what has headers, as a response does; None without them."""
    return None if field(answer, "headers") is None else status_of(answer)


def kept_body(response: object) -> bytes | None:
    """Return the body of a response that was read, else None.

    httpx and requests keep it in `_content`, aiohttp in `_body`: their public doors
    would read the network, or raise.
    """
    for name in ("_content", "_body"):
        body = field(response, name)
        if isinstance(body, bytes):
            return body
    return None


def said_in(answer: object) -> object:
    """Return the JSON that was read of a response, else None; no response as it is.

    A response makes its body of what it reads of the network when it is asked for
    `text`, `content` or `data`.
    """
    if isinstance(answer, Mapping) or reply_status(answer) is None:
        return answer

    body = kept_body(answer)
    return decoded(kept_body(field(answer, "http_response")) if body is None else body)


def host_of(holder: object) -> str:
    """Return the host that an answer came from, "" when it is not known."""
    request = field(holder, "request")
    if request is None:
        request = field(holder, "request_info")
    for url in (field(request, "url"), field(holder, "url")):
        if isinstance(url, str):
            try:
                return urlsplit(url).hostname or ""
            except ValueError:
                return ""
        host = field(url, "host")
        if isinstance(host, str):
            return host
    return ""
