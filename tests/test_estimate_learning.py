"""What answers teach: their length, the ratio of bill and formula, and how long a kept
conversation is.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.estimate import Estimate, Estimator
from ratelimit.estimate.learning import ANSWERS, BELIEVED, BOUND, ENOUGH, KEPT, ROWS, Memory
from ratelimit.estimate.results import Basis
from tests.estimate_bodies import png

BODY: dict[str, Any] = {
    "model": "deepseek-chat",
    "messages": [{"role": "user", "content": "What is the weather in Ulm today, and tomorrow?"}],
}


def correction(memory: Memory) -> float:
    """By what a formula's figure is multiplied after these bills."""
    return memory.corrected("m", "responses", Basis(formula_tokens=10**6)) / 10**6


def answered(
    estimator: Estimator, tokens: list[int], body: dict[str, Any] | None = None, site: str = ""
) -> Estimate:
    """The estimate of a body after answers of these lengths."""
    body = body or BODY
    for length in tokens:
        estimator.learn(
            estimator.estimate(body, site=site), prompt_tokens=None, output_tokens=length
        )
    return estimator.estimate(body, site=site)


def billed(estimator: Estimator, ratios: list[float]) -> Estimate:
    """The estimate of BODY after bills that were these multiples of the formula."""
    for ratio in ratios:
        estimate = estimator.estimate(BODY)
        estimator.learn(
            estimate,
            prompt_tokens=round(estimate.basis.formula_tokens * ratio),
            output_tokens=None,
        )
    return estimator.estimate(BODY)


def test_the_bound_is_held_while_there_is_one() -> None:
    """Without a wish the reserve is the body's bound over all choices, whatever was
    seen.
    """
    body = {**BODY, "max_tokens": 300, "n": 2}
    estimate = answered(Estimator(), [5] * 100, body)

    assert (estimate.output_tokens, estimate.max_output_tokens, estimate.choices) == (600, 600, 2)


def test_a_number_is_held_up_to_the_bound() -> None:
    """A reserve given as a number is per choice, and never above the body's bound."""
    assert Estimator(output=70).estimate({**BODY, "n": 3}).output_tokens == 210
    assert Estimator(output=70).estimate({**BODY, "max_tokens": 50}).output_tokens == 50


def test_without_a_bound_a_reserve_is_held_until_enough_was_seen() -> None:
    """The documented reserve serves, more for models that think first, until a quantile
    of real answers replaces it.
    """
    assert answered(Estimator(), [9] * (ENOUGH - 1)).output_tokens == 256
    assert answered(Estimator(), [9] * ENOUGH).output_tokens == 9
    assert Estimator().estimate({"model": "o3-mini", "messages": []}).output_tokens == 1024
    assert answered(Estimator(), [9] * ENOUGH).max_output_tokens is None


def test_learned_output_holds_what_nine_of_ten_answers_need() -> None:
    """The quantile is over the latest answers and capped by the bound; until enough
    were seen the bound is held.
    """
    body = {**BODY, "max_tokens": 500}

    assert answered(Estimator(output="learned"), [10] * (ENOUGH - 1), body).output_tokens == 500
    assert (
        answered(Estimator(output="learned"), list(range(1, 101)), body).output_tokens
        == sorted(range(37, 101))[57]
    )
    assert answered(Estimator(output="learned"), [900] * ENOUGH, body).output_tokens == 500
    assert (
        answered(Estimator(output="learned"), [900] * ENOUGH + [7] * ANSWERS, body).output_tokens
        == 7
    )


def test_answers_are_learned_per_choice_and_call_site() -> None:
    """Two choices share an answer's tokens; what one place in a program sees says
    nothing about another.
    """
    estimator = Estimator(output="learned")
    answered(estimator, [20] * ENOUGH, {**BODY, "n": 2}, site="here")

    assert estimator.estimate({**BODY, "n": 2}, site="here").output_tokens == 20
    assert estimator.estimate({**BODY, "n": 4}, site="here").output_tokens == 40
    assert estimator.estimate(BODY, site="there").output_tokens == 256


def test_a_ratio_corrects_once_it_is_believed() -> None:
    """A model whose bills are half as high again is estimated so after a few bills, and
    the estimate says that it learned.
    """
    assert billed(Estimator(), [1.5] * (BELIEVED - 1)).confidence == "guess"
    learned = billed(Estimator(), [1.5] * 20)

    assert learned.confidence == "learned"
    assert learned.prompt_tokens == pytest.approx(1.5 * learned.basis.formula_tokens, rel=0.05)


def test_noise_corrects_nothing() -> None:
    """A formula that is right, or nearly, stays as it is."""
    memory = Memory()
    for ratio in [1.0, 1.03] * 20:
        memory.add_bill("m", "text", ratio)

    assert correction(memory) == 1.0
    assert memory.prompts()[0].ratio > 1.01


FUNCTION: dict[str, Any] = {"name": "now", "description": "The time"}
TOOLS = [{"type": "function", "function": FUNCTION}]
LONGER: dict[str, Any] = {**BODY, "messages": [{"role": "user", "content": "Sun or rain? " * 30}]}


def differing(estimator: Estimator, model: str, differences: list[int]) -> Estimate:
    """The estimate of a body with functions after bills that differed by these."""
    body = {**LONGER, "model": model, "tools": TOOLS}
    for difference in differences:
        estimate = estimator.estimate(body)
        billed = estimate.basis.formula_tokens + difference
        estimator.learn(estimate, prompt_tokens=billed, output_tokens=None)

    return estimator.estimate(body)


@pytest.mark.parametrize("model", ["grok-3-mini", "gpt-6-sol", "o5"])
def test_what_a_server_writes_around_functions_is_learned_from_one_bill(model: str) -> None:
    """The second call of a model that no formula was fitted on is exact, for another
    text as well.
    """
    estimator = Estimator()
    learned = differing(estimator, model, [227])
    again = estimator.estimate({**BODY, "model": model, "tools": TOOLS})

    assert learned.prompt_tokens == learned.basis.formula_tokens + 227
    assert learned.confidence == "learned"
    assert again.prompt_tokens == again.basis.formula_tokens + 227


def test_a_constant_is_of_one_endpoint_and_kind() -> None:
    """What is written around functions on Chat says nothing of texts alone, nor of
    Responses.
    """
    estimator = Estimator()
    differing(estimator, "gpt-6-sol", [227])
    given: dict[str, Any] = {"input": "Hi", "tools": [{"type": "function", **FUNCTION}]}
    for body in (BODY, given):
        made = estimator.estimate({**body, "model": "gpt-6-sol"})

        assert made.prompt_tokens == made.basis.formula_tokens


@pytest.mark.parametrize(
    ("differences", "constant"),
    [
        ([227, 227, -90], 227),
        ([227, 227, 0], 227),
        ([227, 227, -90, -90], -90),
        ([227, 40], 40),
        ([40, 227], 40),
        ([227, -3], 0),
        ([900], 0),
    ],
)
def test_an_odd_bill_changes_no_constant_that_two_agreed_on(
    differences: list[int], constant: int
) -> None:
    """Two equal bills make it, two others change it; what two bills do not agree on is
    the smaller one, and too much is no constant.
    """
    made = differing(Estimator(), "grok-3-mini", differences)

    assert made.prompt_tokens - made.basis.formula_tokens == constant


@pytest.mark.parametrize(
    ("differences", "constant"),
    [
        ([30], 30),
        ([30, 30], 30),
        ([30, 0], 0),
        ([30, 0, 30], 0),
        ([0, 30], 0),
        ([0, 30, 30], 30),
        ([30, 30, 0], 0),
        ([30, 30, 1], 30),
        ([-30], 0),
        ([-30, -30], -30),
        ([1], 1),
        ([1, 1, 1], 1),
        ([1, 2], 0),
        ([0, 1, 1], 0),
        ([-1, -1], 0),
    ],
)
def test_a_fitted_model_errs_on_the_safe_side(differences: list[int], constant: int) -> None:
    """A first bill above the formula is believed until the next one, as no estimate may
    stay below the bill; one below it only when another agrees, and after the first
    none within the noise. A bill that meets the formula ends what was learned.
    """
    made = differing(Estimator(), "gpt-4o", differences)

    assert made.prompt_tokens - made.basis.formula_tokens == constant


@pytest.mark.parametrize(("first", "constant"), [(-3, -3), (-1, 0), (-9, 0), (3, 3)])
def test_what_servers_of_one_model_differ_by_is_learned_from_one_bill(
    first: int, constant: int
) -> None:
    """A few tokens are believed in either direction: no body says to which of two
    servers it goes.
    """
    estimator = Estimator()
    asked = [{"role": "user", "content": "Sun or rain? " * 10}]
    body = {"model": "o4-mini", "messages": asked, "tools": TOOLS}
    made = estimator.estimate(body)
    estimator.learn(made, prompt_tokens=made.prompt_tokens + first, output_tokens=None)

    assert estimator.estimate(body).prompt_tokens - made.prompt_tokens == constant


def test_one_odd_bill_corrects_no_right_ones() -> None:
    """A ratio is the middle one of those seen."""
    memory = Memory()
    for ratio in [1.0, 1.0, 4.0, 1.0, 1.0, 4.0, 1.0]:
        memory.add_bill("m", "text", ratio)

    assert correction(memory) == 1.0


def test_what_is_learned_of_pictures_elsewhere_says_nothing_of_those_at_hand() -> None:
    """A picture behind an address is priced at its worst, one that shows its size
    exactly.
    """

    def body(url: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": url}}
        return {"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]}

    estimator = Estimator()
    before = estimator.estimate(body(png(512, 512)))
    for _ in range(2 * BELIEVED):
        estimator.learn(
            estimator.estimate(body("https://example.org/a.png")),
            prompt_tokens=300,
            output_tokens=None,
        )

    assert estimator.estimate(body(png(512, 512))) == before
    assert estimator.estimate(body("https://example.org/a.png")).prompt_tokens < 400


def test_what_is_learned_is_not_learned_twice() -> None:
    """Bills are compared with the formula, never with a corrected estimate: a steady
    ratio stays where it is.
    """
    estimator = Estimator()
    first, second = (
        billed(estimator, [2.0] * 10).prompt_tokens,
        billed(estimator, [2.0] * 200).prompt_tokens,
    )

    assert abs(first - second) <= 1


@given(st.lists(st.floats(0.001, 1000), min_size=BELIEVED, max_size=40))
def test_no_bill_drives_an_estimate_out_of_bounds(ratios: list[float]) -> None:
    """However absurd the bills, a correction stays within BOUND of the formula."""
    memory = Memory()
    for ratio in ratios:
        memory.add_bill("m", "text", ratio)

    assert 1 / BOUND - 1e-9 <= correction(memory) <= BOUND + 1e-9


def test_one_outlier_moves_little_what_many_taught() -> None:
    """After many bills one that is four times off moves the ratio by a tenth."""
    memory = Memory()
    for _ in range(50):
        memory.add_bill("m", "text", 1.5)
    memory.add_bill("m", "text", 6.0)

    assert correction(memory) == pytest.approx(1.5, rel=0.11)


def test_short_answers_say_nothing_of_bodies_that_allow_long_ones() -> None:
    """What is held for an answer is learned by the size of the body's bound: a first
    call that allows 2,500 tokens holds them all.
    """
    estimator = Estimator()
    short, long = {**BODY, "max_tokens": 200}, {**BODY, "max_tokens": 2_500, "n": 2}
    answered(estimator, [150] * ENOUGH, short)

    assert estimator.typical_output(estimator.estimate(short)) == 150
    assert estimator.typical_output(estimator.estimate(long)) == 5_000
    assert estimator.typical_output(estimator.estimate({**BODY, "max_tokens": 180})) == 150
    assert [(row.longest, row.expected_output) for row in estimator.statistics().outputs] == [
        (255, 150)
    ]


def test_a_bill_divided_by_the_calls_of_its_answer_teaches_nothing() -> None:
    """Responses shows the prompt divided by the parallel calls of an answer: that must
    not halve the estimates to come, nor what is kept.
    """
    body = {
        "model": "gpt-4.1",
        "input": "Roll two dice",
        "tools": [{"type": "function", "name": "roll", "parameters": {}}],
    }
    estimator = Estimator()
    estimate = estimator.estimate(body)
    for calls in (2, 4, 2, 3, 8, 2):
        estimator.learn(
            estimate,
            prompt_tokens=estimate.prompt_tokens // calls,
            output_tokens=40,
            response_id="resp_2",
        )

    assert estimator.estimate(body).prompt_tokens == estimate.prompt_tokens
    kept = estimator.estimate(
        {"model": "gpt-4.1", "input": "And?", "previous_response_id": "resp_2"}
    ).prompt_tokens
    assert (
        kept
        == estimator.estimate({"model": "gpt-4.1", "input": "And?"}).prompt_tokens
        + estimate.prompt_tokens
        - estimate.basis.fixed_tokens
        + 40
    )
    for _ in range(20):
        estimator.learn(estimate, prompt_tokens=estimate.prompt_tokens * 3 // 4, output_tokens=40)
    assert estimator.estimate(body).prompt_tokens < estimate.prompt_tokens


@pytest.mark.parametrize("interrupted", ["estimate", "learn", "statistics", "typical_output"])
def test_a_call_may_be_settled_in_the_middle_of_anything(interrupted: str) -> None:
    """A finalizer or signal handler that settles, and so teaches, has interrupted this
    very thread: nothing may hang or break by it.
    """
    estimator = Estimator()
    estimate = answered(estimator, [9] * ENOUGH)
    work: Callable[[], object] = {
        "estimate": lambda: estimator.estimate(BODY),
        "learn": lambda: estimator.learn(estimate, prompt_tokens=30, output_tokens=3),
        "statistics": estimator.statistics,
        "typical_output": lambda: estimator.typical_output(estimate),
    }[interrupted]
    seen = ["nothing"]

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename.endswith(("estimator.py", "learning.py")):
            if event == "line":
                sys.settrace(None)
                estimator.learn(
                    estimate._replace(basis=Basis(site=f"{frame.f_lineno}")),
                    prompt_tokens=30,
                    output_tokens=3,
                )
                sys.settrace(interrupt)
            seen.append(frame.f_code.co_name)
            return interrupt
        return None

    def run() -> None:
        sys.settrace(interrupt)
        try:
            work()
            seen.append("done")
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)

    assert seen[-1] == "done"
    assert interrupted in seen


def test_the_memory_is_bounded() -> None:
    """Models, call sites and conversations beyond what is remembered push out the
    longest unused.
    """
    memory = Memory()
    for number in range(2 * ROWS):
        memory.add_bill(f"m{number}", "text", 2.0)
        memory.add_difference(f"m{number}", "tools", "responses", 7, known=False)
        memory.add_answer(f"m{number}", "", None, 5)
    for number in range(2 * KEPT):
        memory.keep(f"resp_{number}", number)

    assert len(memory.prompts()) == len(memory.outputs()) == len(memory._constants) == ROWS
    assert (memory.kept("resp_0"), memory.kept(f"resp_{2 * KEPT - 1}")) == (None, 2 * KEPT - 1)


def test_statistics_show_what_was_learned() -> None:
    """Each row names its model, what it is about, how much was seen and what came of
    it.
    """
    estimator = Estimator()
    answered(estimator, [9] * ENOUGH, site="here")
    billed(estimator, [1.5] * 3)
    shown = estimator.statistics()

    assert [(row.model, row.kind, row.samples) for row in shown.prompts] == [
        ("deepseek-chat", "text", 3)
    ]
    assert shown.prompts[0].ratio == pytest.approx(1.5, rel=0.05)
    assert [(row.site, row.expected_output) for row in shown.outputs] == [("here", 9)]
    assert shown.warnings == ()


def test_a_kept_response_is_paid_again() -> None:
    """A request that goes on from a response pays for what the server kept: prompt and
    answer, without tools or thoughts.
    """
    estimator = Estimator()
    first = {
        "model": "gpt-4o",
        "input": "Hello",
        "tools": [{"type": "function", "name": "now", "description": "The time"}],
    }
    estimate = estimator.estimate(first)
    estimator.learn(
        estimate,
        prompt_tokens=estimate.prompt_tokens,
        output_tokens=50,
        response_id="resp_1",
        reasoning_tokens=20,
    )
    alone = estimator.estimate({**first, "input": "And now?"}).prompt_tokens
    after = estimator.estimate({**first, "input": "And now?", "previous_response_id": "resp_1"})
    lost = estimator.estimate({**first, "input": "And now?", "previous_response_id": "resp_2"})

    assert after.prompt_tokens - alone == estimate.prompt_tokens - estimate.basis.fixed_tokens + 30
    assert (after.confidence, after.basis.kind) == ("formula", "kept+tools")
    assert (lost.confidence, lost.prompt_tokens) == ("guess", alone)


def test_a_conversation_grows_with_each_answer() -> None:
    """What is said in a conversation the server keeps is paid again by its next
    request, by id or by object.
    """
    estimator = Estimator()
    body = {"model": "gpt-4o", "input": "Hello", "conversation": "conv_1"}
    estimate = estimator.estimate(body)
    estimator.learn(estimate, prompt_tokens=estimate.prompt_tokens, output_tokens=50)

    assert estimator.estimate(body).prompt_tokens == 2 * estimate.prompt_tokens + 50
    assert (
        estimator.estimate({**body, "conversation": {"id": "conv_1"}}).prompt_tokens
        == 2 * estimate.prompt_tokens + 50
    )


def test_nothing_is_learned_from_nothing() -> None:
    """An answer without usage teaches nothing, nor does a bill for an unreadable
    request.
    """
    estimator = Estimator()
    estimator.learn(estimator.estimate(BODY), prompt_tokens=None, output_tokens=None)
    estimator.learn(estimator.estimate(None), prompt_tokens=100, output_tokens=None)

    assert estimator.statistics().prompts == estimator.statistics().outputs == ()


def test_threads_may_share_an_estimator() -> None:
    """Many threads estimating and learning at once lose no sample."""
    estimator = Estimator()
    estimator.estimate(BODY)

    def work() -> None:
        for _ in range(200):
            estimator.learn(estimator.estimate(BODY), prompt_tokens=20, output_tokens=5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [
        row.samples for row in (*estimator.statistics().prompts, *estimator.statistics().outputs)
    ] == [800, 800]
