"""The estimator: a request in, an `Estimate` out; usage makes the next one better.

Owns the order of the work (read, count, bound, charge, correct) and the promise that no
request, however odd, raises. Must never hold a formula, wait, or talk to a server: the
limiter decides when and in which thread to call it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Final, Literal

from ratelimit.errors import EstimateWarning, caution
from ratelimit.estimate import tokenizer
from ratelimit.estimate.charge import charge
from ratelimit.estimate.endpoints import endpoint_named, endpoint_of
from ratelimit.estimate.learning import Memory
from ratelimit.estimate.models import ModelTraits, traits_of
from ratelimit.estimate.offload import needs_thread
from ratelimit.estimate.output import PLAIN_RESERVE, add_answers, typical_answer
from ratelimit.estimate.prompts import add_prompt
from ratelimit.estimate.responses import is_divided
from ratelimit.estimate.results import Basis, Estimate, EstimatorStatistics
from ratelimit.estimate.totals import UNREAD_TOKENS, Totals
from ratelimit.estimate.untrusted import as_mapping, as_str, sent_body
from ratelimit.limits import LARGEST

_STEADY: Final = frozenset({"tools", "results", "schema"})
"""Kinds of content that a server writes the same tokens around in each prompt."""


class Estimator:
    """Estimates requests for one limiter.

    Safe to share between threads; its memory is bounded.

    :param output: what to hold for an answer: "max" the bound that the body sets,
        "learned" what nine of ten answers of this model and call site stay within, a
        number of tokens per choice, or None: the bound if there is one, else learned.
    """

    def __init__(self, *, output: Literal["max", "learned"] | int | None = None) -> None:
        self._output = output
        self._memory = Memory()
        # Guards the memory and the warnings; never held while counting. Reentrant: a
        # finalizer or signal handler that settles a call teaches, also in the middle of
        # anything else here.
        self._lock = threading.RLock()
        self._warned: dict[str, None] = {}
        self.on_degraded: Callable[[str], object] = bool
        """Called once for each kind of body that can only be guessed, with its kind."""

    def estimate(self, request: object, *, endpoint: str | None = None, site: str = "") -> Estimate:
        """Estimate what a request will cost.

        Never raises: a request that cannot be read is a guess, and one warning.

        :param request: the body, as a mapping.
        :param endpoint: "chat.completions", "responses", ..., or a URL's path; guessed
            from the body's fields when None.
        :param site: names the place in the caller's program, of which the answers are
            learned apart.
        """
        try:
            return self._estimate(sent_body(as_mapping(request)), endpoint, site)
        except Exception as error:  # noqa: BLE001  # a call must not fail with its estimate
            kind = type(error).__name__
            self._warn(
                f"unreadable:{kind}",
                f"A request could not be read ({kind}: {error}); its cost is a flat guess of"
                f" {UNREAD_TOKENS + PLAIN_RESERVE:,} tokens.",
            )
            return Estimate(
                endpoint="other",
                model="",
                prompt_tokens=UNREAD_TOKENS,
                output_tokens=PLAIN_RESERVE,
                max_output_tokens=None,
                charge=UNREAD_TOKENS,
                basis=Basis(site=site),
            )

    def needs_thread(self, request: object) -> bool:
        """Whether a worker thread should estimate a request. Cheap; never raises."""
        try:
            return needs_thread(request)
        except Exception as error:  # noqa: BLE001  # an odd request is better read in a thread
            kind = type(error).__name__
            self._warn(f"unreadable:{kind}", f"A request could not be read ({error!r}).")
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
        """Take in what a call with this estimate was billed.

        :param prompt_tokens: tokens of the prompt, None where the answer shows none.
        :param output_tokens: tokens of the answer, likewise.
        :param response_id: the id of a Response that the server keeps: a later request
            with that `previous_response_id` pays for it again.
        :param reasoning_tokens: the part of `output_tokens` that is not kept.
        """
        basis = estimate.basis
        if (
            prompt_tokens
            and estimate.endpoint == "responses"
            and "tools" in basis.kind
            and is_divided(estimate.prompt_tokens, prompt_tokens)
        ):
            prompt_tokens = estimate.prompt_tokens

        with self._lock:
            if prompt_tokens and basis.formula_tokens:
                self._memory.add_prompt(estimate.model, estimate.endpoint, basis, prompt_tokens)

            if output_tokens is not None and output_tokens >= 0:
                per_choice = -(-output_tokens // (estimate.choices or 1))
                self._memory.add_answer(estimate.model, basis.site, basis.bound_bits, per_choice)

            if prompt_tokens and estimate.endpoint == "responses":
                kept = prompt_tokens - basis.fixed_tokens + (output_tokens or 0) - reasoning_tokens
                for name in filter(None, (response_id, basis.conversation)):
                    self._memory.keep(name, max(kept, 0))

    def typical_output(self, estimate: Estimate) -> int:
        """Return what nine of ten such calls answer, in tokens over all choices.

        For servers that do not charge the bound. It is the estimate's own
        `output_tokens` until enough answers were seen of calls with a bound of about
        that size (short answers of calls that allow 200 tokens say nothing of one that
        allows 2,500), and never more.
        """
        basis = estimate.basis
        with self._lock:
            seen = self._memory.expected(estimate.model, basis.site, basis.bound_bits)

        if seen is None:
            return estimate.output_tokens

        return min(estimate.output_tokens, seen * estimate.choices)

    def count_text(self, text: str, model: str) -> int:
        """Return the tokens of `text` for `model`.

        It is for a stream that ended without usage.
        """
        return tokenizer.count(text, traits_of(model).encoding)

    def prepare(self) -> None:
        """Load the vocabulary of today's models before it is needed, in a thread."""
        tokenizer.prepare()

    def reset_after_fork(self) -> None:
        """Replace the lock, which a thread of the parent process may hold."""
        self._lock = threading.RLock()

    def statistics(self) -> EstimatorStatistics:
        """Return what was learned so far, and which warnings were given."""
        with self._lock:
            return EstimatorStatistics(
                prompts=self._memory.prompts(),
                outputs=self._memory.outputs(),
                warnings=tuple(self._warned),
            )

    def _estimate(self, body: Mapping[str, object], named: str | None, site: str) -> Estimate:
        model = as_str(body.get("model"))
        endpoint = endpoint_of(body) if named is None else endpoint_named(named)
        traits = traits_of(model)
        if endpoint == "embeddings":
            # Every embedding model counts this way, whatever a deployment is called.
            traits = dataclasses.replace(traits, encoding="cl100k_base")

        totals = Totals(traits)
        inexact = tokenizer.inexact_counts()
        add_prompt(body, endpoint, totals)
        if not traits.openai or tokenizer.inexact_counts() != inexact:
            totals.lower_confidence("guess")
        elif not traits.known:
            totals.lower_confidence("formula")

        conversation = self._add_kept(body, totals) if endpoint == "responses" else ""
        if totals.unread:
            self._warn_of_unread(*totals.unread)

        add_answers(body, endpoint, totals)
        bound, choices = totals.max_tokens, totals.choices * totals.prompts
        expected = self._expected_answer(bound, traits, model, endpoint, site)
        bits = None if bound is None or self._output == "learned" else bound.bit_length()
        kinds = totals.kinds
        basis = Basis(
            kind="+".join(sorted(kinds)) if kinds else "text",
            site=site,
            bound_bits=bits,
            formula_tokens=totals.tokens,
            fixed_tokens=totals.fixed,
            # A text alone is off by its encoding, which is a ratio.
            steady=kinds <= _STEADY if kinds else totals.confidence != "guess",
            known=traits.known,
            conversation=conversation,
        )
        # Rows are read at once: no lock is needed.
        corrected = self._memory.corrected(model, endpoint, basis)
        if corrected != totals.tokens:
            totals.confidence = "learned"
            totals.tokens = corrected

        return Estimate(
            endpoint=endpoint,
            model=model,
            prompt_tokens=min(totals.tokens, LARGEST),
            output_tokens=min(expected * choices, LARGEST),
            max_output_tokens=None if bound is None else min(bound * choices, LARGEST),
            charge=min(charge(endpoint, totals), LARGEST),
            images=min(totals.images, LARGEST),
            confidence=totals.confidence,
            choices=choices,
            basis=basis,
        )

    def _expected_answer(
        self, bound: int | None, traits: ModelTraits, model: str, endpoint: str, site: str
    ) -> int:
        """Return the tokens to hold for one answer."""
        if bound is not None and self._output in (None, "max"):
            return bound

        if isinstance(self._output, int):
            expected = self._output
        else:
            with self._lock:
                seen = self._memory.expected(model, site, None)

            if seen is None and bound is not None:
                # Until enough answers were seen, only the bound is sure.
                return bound

            expected = typical_answer(traits, endpoint) if seen is None else seen

        return expected if bound is None else min(expected, bound)

    def _add_kept(self, body: Mapping[str, object], totals: Totals) -> str:
        """Add what the server keeps and bills again.

        Return the conversation's id, "" without one.
        """
        named = body.get("conversation")
        conversation = as_str(named) or as_str(as_mapping(named).get("id"))
        asked = as_str(body.get("previous_response_id")) or conversation
        if not asked and not as_mapping(body.get("prompt")):
            return ""

        totals.kinds.add("kept")
        with self._lock:
            kept = self._memory.kept(asked)

        totals.lower_confidence("guess" if kept is None else "formula")
        totals.tokens += kept or 0
        return conversation

    def _warn_of_unread(self, field: str, kind: str) -> None:
        self._warn(
            f"unread:{field}",
            f"The tokens of `{field}` are guessed at {UNREAD_TOKENS:,}: a value of type {kind}"
            " cannot be read, or not without consuming what the call is about to send. Pass a"
            " list instead.",
        )

    def _warn(self, kind: str, message: str) -> None:
        with self._lock:
            if kind in self._warned:
                return

            self._warned[kind] = None

        caution(message, EstimateWarning, stacklevel=3)
        self.on_degraded(kind)
