"""Response objects of HTTP libraries: their status, body and host, looked up safely.

Owns the names by which httpx, requests, aiohttp and the SDKs' raw responses hold these.
Must never read the network, know what a body means, or raise.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ratelimit.feedback.untrusted import field


def status_of(response: object) -> int | None:
    """Return the HTTP status of a response, or of an exception that has one."""
    for name in ("status_code", "status"):
        status = field(response, name)
        if type(status) is int:
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
