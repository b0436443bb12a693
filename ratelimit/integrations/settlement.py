"""What an answer settles, by one rule for all integrations.

Owns when usage, a text, a refusal or nothing takes the place of a lease's reserve, and
the warnings that are given once. Must never read the network or count tokens.

The rule: usage settles. Without usage the reserve stays, unless the text that passed is
known to be the whole answer, or the user has said that it is. What a stream that was
broken off may have used is not known: the server may go on without its reader.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from ratelimit.errors import EstimateWarning, LimiterError, LimiterWarning, caution
from ratelimit.estimate.models import traits_of
from ratelimit.feedback import (
    SSEUsage,
    StreamUsage,
    Usage,
    read_error,
    read_error_answer,
    read_response,
    read_usage,
)
from ratelimit.feedback.answers import error_of, host_of, kept_body, reply_status, said_in
from ratelimit.feedback.failures import refusal_among
from ratelimit.feedback.streams import MOST_TEXT
from ratelimit.lease import AdmittedLease as Lease

SettleBy = Literal["usage", "text"]
"""What settles a call: the usage that its answer carries, or, where there is none, the
text that a function returns or yields.
"""

_ANSWERS_IN_TEXT: Final = re.compile(r"gpt-3\.?5|gpt-4|chatgpt-4|gpt-5[0-9.]*-chat|davinci|babbage")
"""Models that bill the text they answer with, and nothing beside it: OpenAI's that do
not reason. Any other model may have used more than it shows.
"""

_MORE_THAN_TEXT: Final = ("audio", "realtime", "search", "transcribe", "tts")
"""Parts of the names of those models that answer or read in other ways as well."""

_warned: set[str] = set()


def warn_once(kind: str, message: str, category: type[LimiterWarning] = EstimateWarning) -> None:
    """Warn once per kind and process.

    What is wrong with one body is wrong with the next thousand.
    """
    if kind not in _warned and len(_warned) < 1_000:
        _warned.add(kind)
        caution(message, category, stacklevel=3)


def settle_stream(
    lease: Lease,
    stream: StreamUsage | SSEUsage,
    *,
    complete: bool,
    by: SettleBy = "usage",
    host: str = "",
) -> bool:
    """Settle a stream that has ended or was left.

    Return False, and leave the lease open, where a complete stream does not show what
    it used.

    :param complete: whether the stream came to its end; a stream that was left after
        its last word is complete as well. One that ends without it was broken off.
    :param host: the server's name, "" when it is not known.
    """
    complete = complete or stream.finished
    whole = complete and (by == "text" or not stream.is_cut)
    usage, error = stream.usage, stream.error
    counted = lease.ended
    if usage is not None and whole:
        lease.settle(usage)
    if error is not None:
        refusal = read_error(error, host)
        if refusal is not None and not counted:
            lease.refuse(refusal)
        lease.close()
        return True
    if usage is not None:
        lease.close()
        return True

    if 0 < len(stream.text) < MOST_TEXT and (by == "text" or (whole and _is_whole_answer(lease))):
        lease.settle_by_text(stream.text)
        return True
    if complete:
        return False

    lease.close()
    return True


def settle_answer(lease: Lease, answer: object, *, by: SettleBy = "usage") -> bool:
    """Settle by a whole answer; return whether it shows what the call used.

    An HTTP response is read by its status as well: a refusal is counted, a redirect
    costs nothing. So is a refusal in a tuple or list; an exception means what it would
    mean if it were raised. A text is what a model has generated, and is not read. What
    cannot be read keeps its reserve.
    """
    try:
        return _settle_answer(lease, answer, by)
    except LimiterError:
        raise
    except Exception as error:  # noqa: BLE001  # a foreign object may raise anything
        warn_of_unread(error)
        lease.close()
        return True


def warn_of_unread(error: Exception) -> None:
    """Say once that the reserve stays of an answer that failed when it was looked at.

    The user's call has succeeded, and must not end in that failure.
    """
    warn_once(
        "unread answer",
        f"an answer could not be read ({type(error).__name__}), so its reserve stays debited",
    )


def _settle_answer(lease: Lease, answer: object, by: SettleBy) -> bool:
    if isinstance(answer, str):
        if by == "usage" or lease.ended:
            return False
        lease.settle_by_text(answer)
        return True

    status = reply_status(answer)
    if status is not None and not lease.ended and not 200 <= status < 300:
        refusal = read_response(answer)
        if refusal is not None:
            lease.refuse(refusal)
        elif 300 <= status < 400:
            lease.cancel()
        lease.close()
        return True

    if isinstance(answer, BaseException):
        lease.fail(answer)
        return True

    if isinstance(answer, (tuple, list)) and not lease.ended:
        refusal = refusal_among(answer)
        if refusal is not None:
            lease.refuse(refusal)
            lease.close()
            return True

    return _settle_said(lease, answer, by)


def _settle_said(lease: Lease, answer: object, by: SettleBy) -> bool:
    """Settle by what an answer says, also by a stream that was read to its end."""
    said, host = said_in(answer), host_of(answer)
    body = kept_body(answer) if said is None else None
    if body is not None:
        stream = SSEUsage()
        stream.feed(body)
        stream.close()
        if stream.usage or stream.error or stream.text:
            return settle_stream(lease, stream, complete=True, by=by, host=host)
    return settle_whole(lease, read_usage(answer), said, host)


def settle_whole(lease: Lease, usage: Usage | None, answer: object, host: str) -> bool:
    """Settle by an answer's usage, and by the error that it may hold.

    Return False, and leave the lease open, where it has neither.
    """
    counted = lease.ended
    if usage is not None:
        lease.settle(usage)
        if usage.output_tokens and error_of(answer) is None:
            return True  # something was generated: an answer
    failure = read_error_answer(answer, host)
    if failure is None:
        return usage is not None

    if failure.refusal is not None and not counted:
        lease.refuse(failure.refusal)
    lease.close()
    return True


def holds_output(lease: Lease) -> bool:
    """Tell whether this lease still holds tokens of a limit for its answer."""
    if lease.ended or lease.estimate is None:
        return False

    limits = lease.family.admission.store.limits
    limited = any(limit.name in {"tokens", "output_tokens"} for limit in limits)
    return limited and lease.family.pricing.settles and lease.estimate.output_tokens > 0


def _is_whole_answer(lease: Lease) -> bool:
    """Tell whether a call is billed for its prompt and its text alone."""
    estimate: Any = lease.estimate
    if estimate is None or estimate.endpoint not in {"chat.completions", "completions"}:
        return False

    name = traits_of(estimate.model).name
    return _ANSWERS_IN_TEXT.match(name) is not None and not any(
        part in name for part in _MORE_THAN_TEXT
    )
