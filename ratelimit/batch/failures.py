"""What a failure means for the run: one request's own, every request's, or a pause.

Owns the kinds of failures, how many of one kind end a run, and when the server counts
as away. Must never send, wait or write.

A failure that every further request would share must not be met a hundred thousand
times. Some are certain at once: a refused key, a used-up account. Others show by
repetition: a model that does not exist, a server error, a body the server does not
take. A few of them are enough until something succeeds, since a success proves the
address, the key and the form right; the access to a model is counted for each model.

What begins later, as when a model is switched off or a day's limit is used up, shows by
more of them: `MANY_ALIKE` failures of one model with one code, and no answer between.

A server that cannot be reached is waited for once it has answered in this run; before
that the address is more likely wrong than the server away. A server that has answered
and then fails `FEW` requests in a row with errors of its own counts as away, too.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Final

from ratelimit.batch.results import UNREADABLE, Result, error_in
from ratelimit.errors import LimiterError, RequestTooLarge
from ratelimit.feedback import Refusal, read_error, read_exception, read_refusal
from ratelimit.feedback.finality import BILLING_ADVICE, CREDIT_ADVICE, NO_ACCESS_ADVICE

FEW: Final = 5
"""Failures of the model, the address or the server, after which a run ends."""

FEW_REFUSED_BODIES: Final = 20
"""Failures by what is in the body, after which a run ends that has not succeeded once.
More than `FEW`: the first lines of a file may have a fault that the others lack.
"""

MANY_ALIKE: Final = 50
"""Failures of one model with one code and no answer of it between, after which a run
ends that has succeeded. More than `FEW_REFUSED_BODIES`: much is known to be right.
"""

OWN_CODES: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "string_above_max_length",
    }
)
"""Codes of what one prompt says, or of its length. A file that is sorted by these has
many of them in a row, which stop no run that has succeeded.
"""

PATIENCE: Final = 600.0
"""Seconds for which a server that has answered before is waited for."""

MOST_MODELS: Final = 1_000
"""Models, or codes of failures, that are counted apart."""


class Kind(Enum):
    """What a failure concerns."""

    REQUEST = "this request alone"
    BODY = "the form of the body"
    LIMIT = "a limit of the account"
    ACCESS = "the model, or the address"
    SERVER = "the server's state"
    UNREACHABLE = "the way to the server"
    EVERYTHING = "every request"


class Verdict(Enum):
    """What becomes of a request that failed, and of the run."""

    RESULT = "the failure is the request's result"
    WAIT = "the request is sent again when the server is back"
    STOP = "the run ends, and the request has no result"
    STOP_LATE = "the run ends so after answers, by many failures alike"


def kind_of_exception(error: Exception) -> Kind:
    """Tell what an exception out of a request concerns."""
    status = getattr(error, "status_code", None)
    if status == 401:
        return Kind.EVERYTHING

    outcome = read_exception(error)
    if outcome.refusal is not None:
        return _kind_of_refusal(outcome.refusal)

    if isinstance(error, LimiterError):
        return Kind.REQUEST if isinstance(error, RequestTooLarge) else Kind.EVERYTHING

    if outcome.kind == "nothing_sent":
        return Kind.UNREACHABLE

    if isinstance(status, int):
        return _kind_of_status(status)

    return Kind.SERVER if _is_of_http(error) else Kind.REQUEST


def _is_of_http(error: Exception) -> bool:
    """Return whether an error without an answer is a broken connection or a timeout.

    Errors of other modules come out of making the request.
    """
    return type(error).__module__.partition(".")[0] in {"openai", "httpx", "httpx2"}


def kind_of_result(result: Result) -> Kind:
    """Tell what a failed result that came without an exception concerns."""
    if result.error is not None:
        return Kind.ACCESS if result.error["code"] == UNREADABLE else Kind.REQUEST

    error = error_in(result.body)
    refusal = read_error(error)
    if refusal is not None:
        return _kind_of_refusal(refusal)

    code = result.code
    if code in {"server_error", "internal_error", "internal_server_error"} or code.startswith("5"):
        return Kind.SERVER

    if code in {"model_not_found", "invalid_api_key", "404", "401", "403"}:
        return Kind.ACCESS

    return Kind.BODY


def _kind_of_refusal(refusal: Refusal) -> Kind:
    """Tell an account's end, a request larger than its limit, and one that may wait."""
    if refusal.advice in {CREDIT_ADVICE, BILLING_ADVICE}:
        return Kind.EVERYTHING

    if refusal.advice == NO_ACCESS_ADVICE:
        return Kind.ACCESS

    if refusal.hopeless:
        return Kind.REQUEST

    return Kind.SERVER if refusal.overloaded else Kind.LIMIT


def _kind_of_status(status: int) -> Kind:
    if status >= 500:
        return Kind.SERVER

    if status in {400, 409, 413, 422}:
        return Kind.BODY

    # 403, 404, 405, and redirects that lead nowhere
    return Kind.ACCESS if status != 408 else Kind.SERVER


class Failures:
    """What has failed and succeeded in one run so far.

    :param patience: seconds to wait for a server that is away; None: `PATIENCE` once
        the server has answered, and not at all before.
    """

    def __init__(self, patience: float | None = None) -> None:
        self._given = patience
        self._succeeded = False
        self._answered = False
        self._models: set[str] = set()
        self._of_model: Counter[str] = Counter()
        self._of_body: Counter[str] = Counter()
        self._of_server = 0
        self._alike: dict[str, Counter[str]] = {}

    @property
    def patience(self) -> float:
        """Seconds to wait for a server that is away."""
        if self._given is not None:
            return self._given

        return PATIENCE if self._answered else 0.0

    def on_success(self, model: str) -> None:
        """Note an answer: whatever was counted for its model and the server is over."""
        self._succeeded = self._answered = True
        self._of_server = 0
        self._of_model.pop(model, None)
        self._alike.pop(model, None)
        if len(self._models) < MOST_MODELS:
            self._models.add(model)

    def on_failure(self, kind: Kind, model: str, code: str) -> Verdict:
        """Note a failure, and judge it.

        :param code: the server's word for it; refusals of bodies with one code are
            counted together.
        """
        if kind is Kind.EVERYTHING:
            return Verdict.STOP

        if kind is Kind.UNREACHABLE:
            return Verdict.WAIT if self.patience > 0 else Verdict.STOP

        if kind is Kind.SERVER:
            return self._on_server_error()

        self._answered = True
        self._of_server = 0
        if kind is Kind.ACCESS and model not in self._models:
            return Verdict.STOP if _count(self._of_model, model) >= FEW else Verdict.RESULT

        if kind is Kind.BODY and not self._succeeded:
            few = _count(self._of_body, code) < FEW_REFUSED_BODIES
            return Verdict.RESULT if few else Verdict.STOP

        is_late = kind is not Kind.REQUEST and self._are_many_alike(model, code)
        return Verdict.STOP_LATE if is_late else Verdict.RESULT

    def _are_many_alike(self, model: str, code: str) -> bool:
        """Count one more failure since the last answer of its model, and judge them."""
        is_bounded = model in self._alike or len(self._alike) < MOST_MODELS
        if not self._succeeded or code in OWN_CODES or not is_bounded:
            return False

        return _count(self._alike.setdefault(model, Counter()), code) >= MANY_ALIKE

    def _on_server_error(self) -> Verdict:
        self._of_server += 1
        if self._of_server < FEW:
            return Verdict.RESULT

        return Verdict.WAIT if self._succeeded and self.patience > 0 else Verdict.STOP


def _count(counter: Counter[str], key: str) -> int:
    """Count one more of `key`, and return how many there are; the keys are bounded."""
    if key not in counter and len(counter) >= MOST_MODELS:
        return 0

    counter[key] += 1
    return counter[key]


def may_concern_all(result: Result) -> bool:
    """Return whether a failed result may turn out to be every request's.

    Those of a limit, the model, the address and the server may; what is wrong with one
    body or what the limiter refuses may not.
    """
    if result.error is not None:
        return result.error["code"] in {UNREADABLE, "APIConnectionError", "APITimeoutError"}

    if result.status is None or 200 <= result.status < 300:
        kind = kind_of_result(result)
    else:
        refusal = read_refusal(result.status, None, result.body)
        kind = _kind_of_status(result.status) if refusal is None else _kind_of_refusal(refusal)
    return kind not in {Kind.REQUEST, Kind.BODY}
