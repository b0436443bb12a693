"""Why a run cannot go on, in one sentence that says what to do.

Owns these sentences. They never repeat what a server says of the key. Must never decide
whether a run goes on.
"""

from __future__ import annotations

from typing import Final

from ratelimit.batch import Request
from ratelimit.batch.asking import Ending
from ratelimit.batch.failures import (
    FEW_REFUSED_BODIES,
    MANY_ALIKE,
    Kind,
    kind_of_exception,
)
from ratelimit.batch.outage import Outage
from ratelimit.batch.results import UNREADABLE
from ratelimit.commands.secrets import Address
from ratelimit.commands.show import duration
from ratelimit.errors import BudgetSpent, LimiterError
from ratelimit.feedback import read_exception

KEPT: Final = "; what was done is kept"

AGAIN: Final = f"{KEPT}, run the command again to go on"

LONGEST_REASON: Final = 300
"""Characters that are shown of what a server says."""


def explain(error: Exception, ending: Ending, address: Address, outage: Outage | None) -> str:
    """Explain the error that has ended a run.

    :param outage: the wait for the server that has just ended in vain.
    """
    sentence = _sentence(error, ending, address, outage)
    if ending.late:
        model = ending.request.model if ending.request is not None else ""
        sentence = (
            f"after answers, {MANY_ALIKE} requests of {model or 'no named model'} failed alike,"
            f" with no answer of it between: {sentence}"
        )
    return sentence if sentence.endswith(KEPT) else sentence + AGAIN


def budget_spent(error: BudgetSpent, left: int) -> str:
    """Explain that the budget does not allow for what is left."""
    requests = "1 request is" if left == 1 else f"{left:,} requests are"
    return (
        f"{str(error).partition(';')[0]}; {requests} left{KEPT}, run the command again with a "
        "larger --budget to go on"
    )


def _sentence(error: Exception, ending: Ending, address: Address, outage: Outage | None) -> str:
    if getattr(error, "status_code", None) == 401:
        return _unauthorised(address)

    outcome = read_exception(error)
    if outcome.refusal is not None and outcome.refusal.advice:
        return outcome.refusal.advice.rstrip(".")

    if outage is not None:
        waited = duration(outage.waited())
        return f"{why_away(error, address)}, for {waited}; a longer --patience waits longer"

    if ending.kind is Kind.BODY:
        return _of_bodies(error, ending)

    return (
        _of_ours(error, address)
        if isinstance(error, LimiterError)
        else _of_one_kind(error, ending.request, address)
    )


def _of_one_kind(error: Exception, request: Request | None, address: Address) -> str:
    kind = kind_of_exception(error)
    if kind is Kind.ACCESS:
        return _no_access(error, request, address)

    if kind is Kind.UNREACHABLE:
        return why_away(error, address)

    reason = _reason(error)
    if kind is Kind.SERVER:
        return f"several requests in a row failed by the server ({reason}); try again later"

    return reason


def _unauthorised(address: Address) -> str:
    if address.login is None:
        return f"{address.shown} refuses the API key; {address.remedy}"

    return (
        f"{address.shown} refuses the user and password of the base URL, which are sent in place"
        " of the API key; correct them, or leave them out to send OPENAI_API_KEY"
    )


def _of_ours(error: LimiterError, address: Address) -> str:
    reason = str(error)[:LONGEST_REASON]
    if UNREADABLE in reason:
        return (
            f"{address.shown} answers, but not with JSON: check that --base-url (or"
            f" OPENAI_BASE_URL) is the API's, which usually ends in /v1 ({reason})"
        )

    return reason


def _no_access(error: Exception, request: Request | None, address: Address) -> str:
    reason = _reason(error)
    path = request.path if request is not None else ""
    model = request.model if request is not None else ""
    if getattr(error, "status_code", None) == 403:
        return (
            f"{address.shown} refuses access to {model or path} ({reason}); check what the key's"
            " project may use, or give another --model"
        )

    if getattr(error, "code", None) == "model_not_found":
        return (
            f"{address.shown} has no model {model!r} for this key ({reason}); correct the file, or"
            " give another one with --model"
        )

    return (
        f"{address.shown} does not serve {model or 'the request'} at {path} ({reason}); check the"
        " model, --base-url (which usually ends in /v1), and --endpoint"
    )


def _of_bodies(error: Exception, ending: Ending) -> str:
    """Explain a failure by their bodies that many requests have met."""
    request, reason = ending.request, _reason(error)
    # The name of a plain body holds its hash: once mended it is another request.
    is_plain = request is not None and request.given.get("custom_id") is None
    retry = "send them again with --retry-failed, then run the command without it for the rest"
    if ending.late:
        return f"{reason}; their failures are written down, {retry}{KEPT}"

    remedy = "run the same command again" if is_plain else retry
    return (
        f"no request of this run was answered, and {FEW_REFUSED_BODIES} failed alike ({reason});"
        f" their failures are written down, mend the file and {remedy}{KEPT}"
    )


def why_away(error: Exception, address: Address) -> str:
    """Return what is wrong with a server that the run waits for."""
    if isinstance(getattr(error, "status_code", None), int):
        return f"{address.shown} fails every request ({_reason(error)})"

    return f"cannot reach {address.shown}: {error.__cause__ or error}"


def _reason(error: Exception) -> str:
    """Return what a server says of a failure, on one line."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    if status is None:
        named = "" if isinstance(error, LimiterError) else f"{type(error).__name__}: "
        return f"{named}{error}"[:LONGEST_REASON]

    shown = " ".join(str(message or "").split())
    return (f"HTTP {status}" + (f": {shown}" if shown else ""))[:LONGEST_REASON]
