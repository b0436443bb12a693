"""One place to send calls to: a client, its limiter, its models and its rank.

Owns what a user gives of a member, and the sentences for what cannot be one. Must never
choose, wait or send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Never

from ratelimit.arguments import spelled
from ratelimit.control.engine import Engine
from ratelimit.errors import InvalidArgument
from ratelimit.families import Patterns
from ratelimit.limiter import RateLimiter
from ratelimit.limits import amount_of

_LONGEST_NAME: Final = 60
"""Characters; a member's name becomes the value of a header."""

EXAMPLE: Final = 'Member(AsyncOpenAI(), limiter=RateLimiter(rpm=500), name="main")'


class Member:
    """One key, deployment or provider that a `Pool` may send calls to.

    :param client: an `openai.OpenAI` or `AsyncOpenAI`, or one of their Azure forms. Its
        base URL, key, headers and HTTP client are used; its own retries are not, as the
        pool's client has its own.
    :param limiter: of this member's quota: with limits given, learned (`RateLimiter()`)
        or in a shared store. Left out where another member with the same ``quota`` has
        one.
    :param name: by which headers, statistics and errors call it; by default the host of
        its address.
    :param models: the models that it serves: a mapping from the name that is asked for
        (or a pattern, as in ``limits=``) to the name that this member has for it, such
        as an Azure deployment or another provider's model; "" keeps the name. A list of
        names keeps each. By default it serves every model under its own name.
    :param prefer: lower goes first: of the members that can pay now, a call takes one
        with the lowest number.
    :param after: seconds that a call waits for better members before it may go here;
        better are those of a lower ``prefer``, or of the same and a lower ``after``. A
        member that is parked is not waited for.
    :param weight: the share of calls among members of the same ``prefer``, as long as
        all of them can pay.
    :param quota: a name that members of one account share, as they drain one bucket:
        all of them are on one limiter. OpenAI counts by organisation and project,
        OpenRouter by account.
    :param request: makes the body that this member is sent of a copy of the call's
        body, with the member's model in it; to drop or rename what its server does not
        know.

    Raises `InvalidArgument` on what cannot be used.
    """

    @spelled(EXAMPLE)
    def __init__(
        self,
        client: Any,
        /,
        *,
        limiter: RateLimiter | None = None,
        name: str | None = None,
        models: Mapping[str, str] | Iterable[str] | None = None,
        prefer: float = 0,
        after: float = 0,
        weight: float = 1,
        quota: str | None = None,
        request: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.is_async = _is_async(client)
        self.client = client
        if limiter is not None and not isinstance(limiter, RateLimiter):
            raise InvalidArgument(f"limiter= is a RateLimiter, not {type(limiter).__name__}")
        self.limiter = limiter
        self.is_named = name is not None
        self.name = _name(client.base_url.host if name is None else name)
        self._models = _models(models)
        self._patterns = None if self._models is None else Patterns(self._models)
        self.prefer = _number(prefer, "prefer=, of which lower goes first,")
        self.after = amount_of(after, "after=, in seconds,")
        self.weight = amount_of(weight, "weight=")
        if not self.weight:
            raise InvalidArgument("weight= is above 0; leave a member out that gets no calls")
        if quota is not None and not isinstance(quota, str):
            raise InvalidArgument(f"quota= is a name that members share, not {quota!r}")
        self.quota = quota
        if request is not None and not callable(request):
            raise InvalidArgument(
                "request= is a function that takes a body and returns the body for this member,"
                f" not {type(request).__name__}"
            )
        self.request = request

    def serves(self, model: str) -> str | None:
        """Return this member's name for a model; None where it does not serve it.

        A call that names no model is served by every member.
        """
        if self._models is None or self._patterns is None or not model:
            return model
        pattern = self._patterns.of(model)
        return None if pattern is None else self._models[pattern] or model

    @property
    def models(self) -> tuple[str, ...]:
        """The patterns of the models that it serves; none at all: every model."""
        return tuple(self._models or ())

    def __repr__(self) -> str:
        return f"<Member {self.name}>"

    def __reduce__(self) -> Never:
        raise InvalidArgument(
            "a member cannot be pickled, as its client and limiter cannot; make the pool in each"
            " process"
        )


def engine_of(member: Member) -> Engine:
    """Return what a member's limiter delegates to: a pool is one more face of it."""
    assert member.limiter is not None  # noqa: S101  # the pool has given it one
    return member.limiter._engine  # noqa: SLF001  # see above


def _is_async(client: object) -> bool:
    """Tell which kind of client this is; raise for what a pool cannot send with."""
    from openai import AsyncOpenAI, OpenAI  # noqa: PLC0415  # importing it is slow

    if isinstance(client, AsyncOpenAI):
        return True
    if isinstance(client, OpenAI):
        return False
    raise InvalidArgument(
        "a Member takes an openai.OpenAI, AsyncOpenAI or one of their Azure forms, not"
        f" {type(client).__name__}; another provider is reached by AsyncOpenAI(base_url=...,"
        " api_key=...)"
    )


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isascii() or not name.isprintable():
        raise InvalidArgument(f"name= is a text of ASCII letters, digits and signs, not {name!r}")
    name = name.strip()
    if not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidArgument(f"name= has between 1 and {_LONGEST_NAME} characters, not {name!r}")
    return name


def _models(models: object) -> dict[str, str] | None:
    if models is None:
        return None
    if isinstance(models, Mapping):
        found = dict(models)
    elif isinstance(models, Iterable) and not isinstance(models, (str, bytes)):
        found = dict.fromkeys(models, "")
    else:
        raise InvalidArgument(
            'models= is a mapping such as {"gpt-4o": "my-deployment"}, or a list of names, not'
            f" {models!r}"
        )
    if not found or not all(
        isinstance(each, str) and each and isinstance(own, str) for each, own in found.items()
    ):
        raise InvalidArgument(
            "models= has at least one model, and every name in it is a text; leave it out for a"
            " member that serves every model"
        )
    return found


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124  # NaN
        raise InvalidArgument(f"{what} is a number, not {value!r}")
    return value
