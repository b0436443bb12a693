"""A request to a pool's client, and what a member's server is sent in its place.

Owns the reading of the one and the writing of the other: address, login, headers,
model, body. The member's own client writes it, so that what its kind needs (Azure's
deployments and tokens, say) is as it always is. Must never send or choose a member.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ratelimit.errors import InvalidArgument
from ratelimit.feedback.untrusted import decoded
from ratelimit.integrations.requests import MeteredCall, metered_call
from ratelimit.pool.members.affinity import prompt_of
from ratelimit.pool.members.member import Member
from ratelimit.pool.members.state import ids_in_body, ids_in_path, stores

BASE: Final = "https://pool.invalid/v1"
"""The address of a pool's client. It leads nowhere: what does not go by its transport,
as Realtime's sockets do not, fails at once and sends no key.
"""

_OF_THE_CLIENT: Final = frozenset(
    {
        "authorization",
        "api-key",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "accept-encoding",
        "cookie",
        "user-agent",
        "openai-organization",
        "openai-project",
    }
)
"""Headers that are a client's own; the member's client has its own."""


@dataclass(eq=False)
class PoolCall:
    """A request as it came to the pool, or the body of one that is made by hand."""

    body: Mapping[str, Any] | None
    """The JSON object; None where the request has another body, or none."""
    path: str = ""
    """Below the base URL; "" where the request is made by hand."""
    method: str = "POST"
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    metered: MeteredCall | None = None
    """What it costs; None: nothing."""

    @property
    def model(self) -> str:
        """The model that it asks for; "" where it names none."""
        if self.metered is not None:
            return self.metered.model
        return str((self.body or {}).get("model") or "")

    @property
    def is_admitted(self) -> bool:
        """Whether it waits for a member's limits.

        An upload is admitted by the member's own transport: no model answers it.
        """
        return self.metered is not None and self.metered.endpoint != "files"

    @property
    def costs_a_request(self) -> bool:
        """Whether one request is all that it costs."""
        return self.metered is not None and self.metered.body is None

    @cached_property
    def prompt(self) -> str | None:
        """What it has in common with calls of the same cached prefix."""
        return prompt_of(self.body, self.model)

    @cached_property
    def names(self) -> list[str]:
        """The ids of what is stored on a server that it names."""
        return [*ids_in_path(self.path), *(ids_in_body(self.body) if self.body else ())]

    @property
    def stores(self) -> bool:
        """Whether the server keeps what this call makes."""
        return stores(self.path) or bool(self.body and self.body.get("store") is True)

    def body_for(self, member: Member, model: str) -> Mapping[str, Any]:
        """Return the body as a member's server is sent it.

        :param model: the member's name for the model.
        """
        body = dict(self.body or {})
        if model and "model" in body:
            body["model"] = model
        if member.request is None:
            return body
        try:
            made = member.request(copy.deepcopy(body))
        except Exception as error:
            raise InvalidArgument(
                f"request= of the pool's member {member.name!r} raised {type(error).__name__} for"
                " a body; it has to take every body that the member may get"
            ) from error
        if not isinstance(made, Mapping):
            raise InvalidArgument(
                f"request= of the pool's member {member.name!r} returns the body for it, a dict,"
                f" not {type(made).__name__}"
            )
        return made


def read_request(request: Any) -> PoolCall:
    """Read a request of the pool's client; its body is in memory."""
    content: bytes = request.content
    is_json = "json" in request.headers.get("content-type", "json")
    body = decoded(content) if content and is_json else None
    base = BASE[BASE.index("/v1") :]
    return PoolCall(
        body if isinstance(body, dict) else None,
        path=request.url.raw_path.decode("ascii").partition("?")[0].removeprefix(base),
        method=request.method,
        content=content,
        headers={
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _OF_THE_CLIENT
        },
        params=_params(request.url),
        extensions=request.extensions,
        metered=metered_call(request),
    )


def _params(url: Any) -> dict[str, Any]:
    """Return a URL's query; a name that stands there several times has a list."""
    found: dict[str, Any] = {}
    for name, value in url.params.multi_items():
        if name in found:
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[name] = value
    return found


def options_for(call: PoolCall, member: Member, model: str, body: Mapping[str, Any] | None) -> Any:
    """Return the options by which a member's SDK client builds the request.

    :param model: the member's name for the model.
    :param body: the JSON object for the member, if the call has one.
    """
    from openai._models import FinalRequestOptions  # noqa: PLC0415  # importing it is slow

    fields: dict[str, Any] = {}
    headers = dict(call.headers)
    path = call.path
    if body is not None:
        fields["json_data"] = dict(body)
        headers.pop("content-type", None)
    else:
        path = _deployment(member, path, model) + path
    return FinalRequestOptions.construct(
        method=call.method.lower(),
        url=path,
        params=dict(call.params),
        headers=headers,
        **fields,
    )


def _deployment(member: Member, path: str, model: str) -> str:
    """Return what Azure has before a path, where its client cannot read the body."""
    from openai.lib.azure import BaseAzureClient, _deployments_endpoints  # noqa: PLC0415

    client = member.client
    named = model and path in _deployments_endpoints and isinstance(client, BaseAzureClient)
    return f"/deployments/{model}" if named and "/deployments" not in str(client.base_url) else ""


def with_content(http: Any, built: Any, call: PoolCall, model: str) -> Any:
    """Return a built request with the call's own body, where that is no JSON.

    :param http: the member's HTTP client.
    """
    if call.body is None and call.content:
        content = call.content
        if model and call.model and model != call.model:
            content = _renamed(content, call.model, model)
        headers = [
            (name, value)
            for name, value in built.headers.multi_items()
            if name.lower() not in {"content-length", "content-type", "host"}
        ]
        kind = call.headers.get("content-type")
        if kind is not None:
            headers.append(("content-type", kind))
        built = http.build_request(
            built.method, built.url, headers=headers, content=content, extensions=built.extensions
        )
    if "timeout" in call.extensions:
        built.extensions["timeout"] = call.extensions["timeout"]
    return built


def _renamed(form: bytes, model: str, own: str) -> bytes:
    """Return a multipart form with the member's name for the model."""
    part = b'name="model"\r\n\r\n'
    return form.replace(part + model.encode() + b"\r\n", part + own.encode() + b"\r\n", 1)
