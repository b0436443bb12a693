"""The packages of the race: each by its own public way, where it is installed.

Owns imports of packages that are nobody's dependency here, what brings them, and where
their time comes from. Must never contain what everybody shares (`clients.py`).

Whose time is a function they are handed, or the event loop's, runs on the virtual clock
as it is. `token-throttle` reads `time.time()` and `time.monotonic()`: for the race both
names in its modules are bound to the loop's time, its waits being the loop's already.
`litellm` counts in minutes of the wall clock and has an HTTP client of its own: it runs
in real time only.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import openai

from benchmarks.race.clients import ABSENT, Ground, Send, Unavailable, asking, prompt_of, reserve
from benchmarks.race.workloads import MODEL, Job

REQUIREMENTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "token-throttle": ("token_throttle", "token-throttle>=14", "3.12"),
    "async-batch-llm": ("async_batch_llm", "async-batch-llm>=0.28", "3.10"),
    "litellm router": ("litellm", "litellm>=1.80", "3.9"),
}
"""By client: the module, what pip brings it, and the least Python."""
REAL_TIME_ONLY: Final = frozenset({"litellm router"})
_OUTPUT = "max_tokens", "max_completion_tokens"


def missing(client: str, *, real: bool) -> str | None:
    """Tell why a client cannot run here, and what to do about it; None when it can."""
    if client not in REQUIREMENTS:
        return None
    module, requirement, least = REQUIREMENTS[client]
    if importlib.util.find_spec(module) is None:
        old = sys.version_info < tuple(map(int, least.split(".")))
        return f"needs Python {least}" if old else f"pip install '{requirement}'"
    return (
        "counts by the wall clock: --real-time only"
        if client in REAL_TIME_ONLY and not real
        else None
    )


def _module(client: str) -> Any:
    try:
        return importlib.import_module(REQUIREMENTS[client][0])
    except ImportError as error:
        raise Unavailable(f"{client}: {error}") from error


def token_throttle(ground: Ground) -> Send:
    """Wait in `acquire_capacity` for each limit; give usage to `refund_capacity`."""
    library = _module("token-throttle")
    now = asyncio.get_running_loop().time
    for name, module in list(sys.modules.items()):
        if (
            name.startswith("token_throttle")
            and isinstance(module, ModuleType)
            and hasattr(module, "time")
        ):
            module.time = SimpleNamespace(time=now, monotonic=now, perf_counter=now)  # type: ignore[attr-defined]  # as said above
    seconds = {"rpm": 60, "rpd": 86_400, "tpm": 60, "tpd": 86_400}
    quotas = [
        library.Quota(
            metric="requests" if name.startswith("r") else "tokens",
            limit=int(limit),
            per_seconds=seconds[name],
        )
        for name, limit in ground.limits.items()
    ]
    limiter = library.RateLimiter(
        library.PerModelConfig(quotas=library.UsageQuotas(quotas)),
        backend=library.MemoryBackendBuilder(),
    )
    ground.closing.push_async_callback(limiter.aclose)
    ask = asking(ground.connect(2))

    async def limited(job: Job) -> object:
        async with limiter.reserve(
            {"requests": 1, "tokens": reserve(job.body)}, model=MODEL
        ) as handle:
            answer: Any = await ask(job)
            handle.set_actual_usage({"requests": 1, "tokens": answer.usage.total_tokens})
            return answer

    return limited


def async_batch_llm(ground: Ground) -> Send:
    """Wait in the batch framework's quota gate; reconcile the usage."""
    _module("async-batch-llm")
    admission: Any = importlib.import_module("async_batch_llm._internal.admission")
    estimates: Any = importlib.import_module("async_batch_llm.token_estimation")
    gate = admission.QuotaGate(
        ground.limits["rpm"], int(ground.limits["tpm"]), clock=asyncio.get_running_loop().time
    )
    ground.closing.push_async_callback(gate.shutdown)
    ask = asking(ground.connect(2))

    async def limited(job: Job) -> object:
        prompt = prompt_of(job.body)
        output = next(
            (job.body[name] for name in _OUTPUT if job.body.get(name) is not None), ABSENT
        )
        reservation = await gate.reserve(
            estimates.TokenEstimate(prompt, output * int(job.body.get("n") or 1))
        )
        reservation.mark_provider_started()
        try:
            answer: Any = await ask(job)
        except openai.OpenAIError:
            reservation.finalize_unknown()
            raise
        reservation.reconcile(answer.usage.total_tokens)
        return answer

    return limited


def litellm_router(ground: Ground) -> Send:
    """One deployment with its limits behind a Router with ten retries."""
    # it would fetch a list of prices at its import
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    library = _module("litellm router")
    deployment = {
        "model_name": MODEL,
        "litellm_params": {
            "model": f"openai/{MODEL}",
            "api_base": ground.base_url,
            "api_key": "any",
            "rpm": int(ground.limits["rpm"]),
            "tpm": int(ground.limits["tpm"]),
        },
    }
    router = library.Router(model_list=[deployment], num_retries=10)

    async def routed(job: Job) -> object:
        body: dict[str, Any] = {**job.body, "model": MODEL}
        return await router.acompletion(**body, extra_headers=job.headers)

    return routed


PEERS: Final[Mapping[str, Callable[[Ground], Send]]] = {
    "token-throttle": token_throttle,
    "async-batch-llm": async_batch_llm,
    "litellm router": litellm_router,
}
