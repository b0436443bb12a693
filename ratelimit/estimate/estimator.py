"""The estimator: a request in, an `Estimate` out, and usage taken in to do better next time.

Owns the order of the work (read, count, bound, charge, correct) and the promise that no request, however odd, raises.
Must never hold a formula, wait, or talk to anybody: the limiter decides when and on which thread to call it.
"""

from __future__ import annotations

import datetime as dt
import threading
import warnings
from collections.abc import Mapping
from typing import Literal

from ratelimit.estimate import charge as charging
from ratelimit.estimate import output as answers
from ratelimit.estimate.chat import count_chat
from ratelimit.estimate.endpoints import endpoint_of
from ratelimit.estimate.learning import Memory
from ratelimit.estimate.models import Family, family
from ratelimit.estimate.plain import obj, text
from ratelimit.estimate.responses import count_responses
from ratelimit.estimate.results import Estimate, EstimateWarning, EstimatorStatistics
from ratelimit.estimate.tally import Tally
from ratelimit.estimate.texts import count_texts
from ratelimit.estimate.tokenizer import count

HEAVY = 50_000  # characters of uncounted text above which a worker thread is cheaper than a stalled event loop


class Estimator:
    """Estimates requests for one limiter. Safe to share between threads; its memory is bounded.

    :param output: what to hold for an answer: "max" the bound the body sets, "learned" what nine of ten answers of this
        model and call site stay within, a number of tokens per choice, or None: the bound if there is one, else
        learned.
    :param charge: which rule the server charges by: None for OpenAI's of today, a date, or a name from `charge.NAMED`.
    """

    def __init__(
        self,
        *,
        output: Literal["max", "learned"] | int | None = None,
        charge: str | dt.date | None = None,
    ) -> None:
        charging.rule_for("chat.completions", charge)  # an unknown name is said here, not at the first call
        self._output = output
        self._regime = charge
        self._memory = Memory()
        self._lock = threading.Lock()
        self._warned: dict[str, None] = {}

    def estimate(self, request: object, *, endpoint: str | None = None, site: str = "") -> Estimate:
        """Say what `request` (the body, as a mapping) will cost.

        Never raises: a request that cannot be read is a guess, and one warning.
        """
        try:
            return self._estimate(obj(request), endpoint, site)
        except Exception as error:  # noqa: BLE001 # a user's call must not fail because its estimate did
            self._warn(type(error).__name__, f"could not estimate a request ({error!r}); holding a flat reserve")
            reserve = answers.PLAIN_RESERVE
            return Estimate("other", "", reserve, reserve, None, reserve, site=site)

    def heavy(self, request: object) -> bool:
        """Whether `request` holds so much uncounted text that a worker thread should count it."""
        del request
        return False

    def learn(self, estimate: Estimate, *, prompt_tokens: int | None, output_tokens: int | None) -> None:
        """Take in what a call with this estimate was really billed, in tokens; None where the answer did not say."""
        with self._lock:
            if prompt_tokens and estimate.formula_tokens:
                self._memory.billed(estimate.model, estimate.kind, prompt_tokens / estimate.formula_tokens)
            if output_tokens is not None and output_tokens >= 0:
                self._memory.answered(estimate.model, estimate.site, -(-output_tokens // max(estimate.choices, 1)))

    def count_text(self, text: str, model: str) -> int:
        """Tokens of `text` for `model`: what a stream that ended without usage has answered so far."""
        return count(text, family(model).encoding)

    def statistics(self) -> EstimatorStatistics:
        """Show what was learned so far, and which warnings were given."""
        with self._lock:
            return EstimatorStatistics(self._memory.prompts(), self._memory.outputs(), tuple(self._warned))

    def _estimate(self, body: Mapping[str, object], named: str | None, site: str) -> Estimate:
        model = text(body.get("model"))
        traits = family(model)
        endpoint = endpoint_of(named, body)
        tally = Tally(traits)
        if endpoint == "chat.completions":
            count_chat(body, tally)
        elif endpoint == "responses":
            count_responses(body, tally)
        elif endpoint in {"embeddings", "moderations"}:
            count_texts(body.get("input"), tally)
        elif endpoint == "completions":
            count_texts(body.get("prompt"), tally)
        kind = "+".join(sorted(tally.kinds)) or "text"
        prompt = tally.tokens
        with self._lock:
            factor = self._memory.correction(model, kind)
        if factor != 1.0:
            tally.doubt("learned")
            prompt = round(prompt * factor)
        choices = answers.choices(body, endpoint)  # of each prompt
        total = choices * tally.prompts
        bound = answers.bound(body, endpoint)
        load = charging.Load(
            endpoint=endpoint,
            text_bytes=tally.text_bytes,
            messages=tally.messages,
            choices=choices,
            attachments=tally.images + tally.files,
            prompts=tally.prompts,
            token_ids=tally.token_ids,
            images=tally.images,
            max_tokens=bound,
            prompt_tokens=prompt,
            hidden=tally.hidden,
        )
        return Estimate(
            endpoint=endpoint,
            model=model,
            prompt_tokens=prompt,
            output_tokens=total * self._expected(bound, traits, model, endpoint, site),
            max_output_tokens=None if bound is None else bound * total,
            charge=charging.rule_for(endpoint, self._regime)(load),
            images=tally.images,
            confidence=tally.confidence,
            kind=kind,
            site=site,
            choices=total,
            formula_tokens=tally.tokens,
        )

    def _expected(self, bound: int | None, traits: Family, model: str, endpoint: str, site: str) -> int:
        """Tokens to hold for one answer."""
        if isinstance(self._output, int):
            expected = self._output
        elif bound is not None and self._output != "learned":
            return bound
        else:
            with self._lock:
                seen = self._memory.expected(model, site)
            expected = answers.reserve(traits, endpoint) if seen is None else seen
        return expected if bound is None else min(expected, bound)

    def _warn(self, kind: str, message: str) -> None:
        with self._lock:
            if kind in self._warned:
                return
            self._warned[kind] = None
        warnings.warn(message, EstimateWarning, stacklevel=3)
