"""The estimator: a request in, an `Estimate` out, and usage taken in to do better next
time.

Owns the order of the work (read, count, bound, charge, correct) and the promise that no
request, however odd, raises. Must never hold a formula, wait, or talk to anybody: the
limiter decides when and on which thread to call it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Mapping
from typing import Final, Literal

from ratelimit.errors import EstimateWarning, caution
from ratelimit.estimate import charge as charging
from ratelimit.estimate import output as answers
from ratelimit.estimate.chat import count_chat
from ratelimit.estimate.endpoints import endpoint_named, endpoint_of
from ratelimit.estimate.learning import Memory
from ratelimit.estimate.models import Family, family
from ratelimit.estimate.offload import heavy
from ratelimit.estimate.responses import count_responses, divided
from ratelimit.estimate.results import Endpoint, Estimate, EstimatorStatistics
from ratelimit.estimate.texts import count_texts
from ratelimit.estimate.tokenizer import count, exact
from ratelimit.estimate.totals import Totals
from ratelimit.estimate.untrusted import count as number
from ratelimit.estimate.untrusted import obj, text

_AS_BOUND: Final = (None, "max")
"""What `output` says where a body's own bound is held, when it sets one."""


class Estimator:
    """Estimates requests for one limiter. Safe to share between threads; its memory is
    bounded.

    :param output: what to hold for an answer: "max" the bound the body sets, "learned"
        what nine of ten answers of this model and call site stay within, a number of
        tokens per choice, or None: the bound if there is one, else learned.
    :param charge: which rule the server charges by: None for OpenAI's of today, a date,
        or a name from `charge.NAMED`.
    :raises ValueError: `charge` is no such name.
    """

    def __init__(
        self,
        *,
        output: Literal["max", "learned"] | int | None = None,
        charge: str | dt.date | None = None,
    ) -> None:
        # an unknown name is said here, not at the first call
        charging.rule_for("chat.completions", charge)
        self._output = output
        self._regime = charge
        self._memory = Memory()
        # Guards the memory and the warnings; never held while counting. Reentrant: a
        # finalizer or signal handler that settles a call teaches, also in the middle of
        # anything else here.
        self._lock = threading.RLock()
        self._warned: dict[str, None] = {}

    def estimate(self, request: object, *, endpoint: str | None = None, site: str = "") -> Estimate:
        """Say what `request` (the body, as a mapping) will cost.

        :param endpoint: "chat.completions", "responses", ..., or a URL's path; guessed
            from the body's keys when None.
        :param site: names the place in the caller's program, whose answers are learned
            apart from those of others.

        Never raises: a request that cannot be read is a guess, and one warning.
        """
        try:
            return self._estimate(
                request if request.__class__ is dict else obj(request), endpoint, site
            )
        except Exception as error:  # noqa: BLE001 # a user's call must not fail because its estimate did
            kind = type(error).__name__
            self._warn(
                f"unreadable:{kind}",
                f"A request could not be read ({kind}: {error}); its cost is a flat guess.",
            )
            reserve = answers.PLAIN_RESERVE
            return Estimate("other", "", reserve, reserve, None, reserve, site=site)

    def heavy(self, request: object) -> bool:
        """Tell whether `request` holds so much uncounted text that a worker thread
        should estimate it. Cheap; never raises.
        """
        try:
            return heavy(request)
        except Exception as error:  # noqa: BLE001 # as above; an odd request is better read where it can block nobody
            self._warn(
                f"unreadable:{type(error).__name__}", f"A request could not be read ({error!r})."
            )
            return True

    def learn(
        self,
        estimate: Estimate,
        *,
        prompt_tokens: int | None,
        output_tokens: int | None,
        response_id: str = "",
        reasoning_tokens: int = 0,
    ) -> None:
        """Take in what a call with this estimate was really billed, in tokens; None
        where the answer did not say.

        `response_id` and `reasoning_tokens` (a part of `output_tokens`) are worth
        giving for Responses that the server keeps: a later request with that
        `previous_response_id`, or of the same conversation, pays for them again.
        """
        if (
            prompt_tokens
            and estimate.endpoint == "responses"
            and "tools" in estimate.kind
            and divided(estimate.prompt_tokens, prompt_tokens)
        ):
            prompt_tokens = estimate.prompt_tokens
        with self._lock:
            if prompt_tokens and estimate.formula_tokens:
                self._memory.billed(
                    estimate.model, estimate.kind, prompt_tokens / estimate.formula_tokens
                )
            if output_tokens is not None and output_tokens >= 0:
                self._memory.answered(
                    estimate.model,
                    estimate.site,
                    estimate.bound_bits,
                    -(-output_tokens // (estimate.choices or 1)),
                )
            if prompt_tokens and estimate.endpoint == "responses":
                kept = (
                    prompt_tokens - estimate.fixed_tokens + (output_tokens or 0) - reasoning_tokens
                )
                for name in filter(None, (response_id, estimate.conversation)):
                    self._memory.keep(name, max(kept, 0))

    def typical_output(self, estimate: Estimate) -> int:
        """Return what nine of ten such calls answer, in tokens over all choices: for
        servers that do not charge the bound.

        The estimate's own `output_tokens` until enough answers were seen of calls whose
        bound is about as large (short answers of calls that allow 200 tokens say
        nothing of one that allows 2,500), and never more than that.
        """
        with self._lock:
            seen = self._memory.expected(estimate.model, estimate.site, estimate.bound_bits)
        return (
            estimate.output_tokens
            if seen is None
            else min(estimate.output_tokens, seen * estimate.choices)
        )

    def count_text(self, text: str, model: str) -> int:
        """Count `text` for `model`, in tokens: what a stream that ended without usage
        has answered so far.
        """
        return count(text, family(model).encoding)

    def forget_others(self) -> None:
        """After a fork: whoever held the lock belongs to the parent process."""
        self._lock = threading.RLock()

    def statistics(self) -> EstimatorStatistics:
        """Show what was learned so far, and which warnings were given."""
        with self._lock:
            return EstimatorStatistics(
                self._memory.prompts(), self._memory.outputs(), tuple(self._warned)
            )

    def _estimate(self, body: Mapping[str, object], named: str | None, site: str) -> Estimate:
        model = body.get("model")
        if not isinstance(model, str):
            model = ""
        endpoint = endpoint_of(body) if named is None else endpoint_named(named)
        traits = family(model)
        # every embedding model counts this way, whatever a deployment is called
        if endpoint == "embeddings":
            traits = dataclasses.replace(traits, encoding="cl100k_base")
        tally = Totals(traits)
        if endpoint == "chat.completions":
            count_chat(body, tally)
        else:
            _count(body, endpoint, tally)
        if not traits.openai or not exact(traits.encoding):
            tally.doubt("guess")
        conversation = self._add_kept(body, tally) if endpoint == "responses" else ""
        kind = "+".join(sorted(tally.kinds)) if tally.kinds else "text"
        formula = tally.tokens
        with self._lock:
            factor = self._memory.correction(model, kind)
        if factor != 1.0:
            tally.confidence = "learned"
            tally.tokens = round(formula * factor)
        answers.add_answers(body, endpoint, tally)
        bound, total = tally.max_tokens, tally.choices * tally.prompts
        expected = (
            bound
            if bound is not None and self._output in _AS_BOUND
            else self._expected(bound, traits, model, endpoint, site)
        )
        return Estimate(
            endpoint,
            model,
            tally.tokens,
            expected * total,
            None if bound is None else bound * total,
            charging.rule_for(endpoint, self._regime)(tally),
            tally.images,
            tally.confidence,
            kind,
            site,
            total,
            None if bound is None or self._output == "learned" else bound.bit_length(),
            formula,
            tally.fixed,
            conversation,
        )

    def _expected(
        self, bound: int | None, traits: Family, model: str, endpoint: str, site: str
    ) -> int:
        """Return the tokens to hold for one answer."""
        if isinstance(self._output, int):
            expected = self._output
        else:
            with self._lock:
                seen = self._memory.expected(model, site, None)
            if seen is None and bound is not None:
                return bound  # until enough was seen, as sure as can be
            expected = answers.reserve(traits, endpoint) if seen is None else seen
        return expected if bound is None else min(expected, bound)

    def _add_kept(self, body: Mapping[str, object], tally: Totals) -> str:
        """Add what the server keeps and bills again; return the conversation's id, ""
        without one.
        """
        named = body.get("conversation")
        conversation = text(named) or text(obj(named).get("id"))
        asked = text(body.get("previous_response_id")) or conversation
        if not asked and not obj(body.get("prompt")):
            return ""
        tally.kinds.add("kept")
        with self._lock:
            kept = self._memory.kept(asked)
        tally.doubt("guess" if kept is None else "formula")
        tally.tokens += kept or 0
        return conversation

    def _warn(self, kind: str, message: str) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned[kind] = None
        caution(message, EstimateWarning, stacklevel=3)


def _count(body: Mapping[str, object], endpoint: Endpoint, tally: Totals) -> None:
    """Add the prompt of a body without chat messages to `tally`."""
    if endpoint == "responses":
        count_responses(body, tally)
    elif endpoint in {"embeddings", "moderations"}:
        count_texts(body.get("input"), tally)
    elif endpoint == "completions":
        count_texts(body.get("prompt"), tally)
    elif endpoint == "images":
        tally.content(text(body.get("prompt")))
        tally.images = number(body.get("n")) or 1
        tally.doubt("guess")
    else:
        tally.content(text(body.get("input")) or text(body.get("prompt")))
        tally.doubt("guess")
