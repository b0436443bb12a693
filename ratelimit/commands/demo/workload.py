"""A workload for users who have none at hand: the calls of a small shop's support.

Owns the texts and their mixture: many short questions, some long documents, a few with
tools, a few streamed, answers bounded and not. Must never send, or know limits. The
same seed makes the same calls.
"""

from __future__ import annotations

import random
from typing import Any, Final

from ratelimit.commands.calls import Call

MODELS: Final = ("gpt-4o-mini", "gpt-4o-mini", "gpt-4o", "gpt-4.1-mini")
BOUNDS: Final = (None, 60, 150, 300, 600)

QUESTIONS: Final = (
    "My parcel was due on {day} and the tracking page still says {state}. What can I do?",
    "Please translate into French: the {thing} you ordered is {state}; it comes on {day}.",
    "Is the {thing} suitable for a child of {number} years? Answer with yes or no and one reason.",
    "Write a friendly reply to a customer: the {thing} arrived {state}. Offer a refund by {day}.",
    "How many days lie between {day} the {number}th and the month's end? Is a return still free?",
    "Classify as complaint, question or praise: 'My {thing} is {state}, no call since {day}!'",
)
SENTENCES: Final = (
    "The customer wrote on {day} that the {thing} was {state} and asked for a call back.",
    "Our agent checked order {number} and found that the {thing} had left the warehouse on {day}.",
    "According to the carrier it is {state}; the next scan is expected within {number} hours.",
    "The customer has been with us for {number} years and has returned a {thing} once.",
    "We offered a voucher of {number} euros, which was declined politely.",
    "A new {thing} could be sent on {day}, provided that the address is confirmed before noon.",
)
FILLING: Final = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    "state": ("in transit", "damaged", "lost", "delayed at customs", "waiting for pickup"),
    "thing": ("kettle", "bicycle lamp", "bookshelf", "garden hose", "headset", "winter coat"),
}
SYSTEM: Final = "You work in the support of a small shop. Be brief, friendly and exact."
TOOLS: Final[list[dict[str, Any]]] = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Look up an order and where its parcel is",
            "parameters": {
                "type": "object",
                "properties": {"number": {"type": "integer", "description": "the order's number"}},
                "required": ["number"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "send_replacement",
            "description": "Send the same article again",
            "parameters": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer", "description": "the order's number"},
                    "express": {
                        "type": "boolean",
                        "description": "deliver on the next working day",
                    },
                },
                "required": ["number"],
            },
        },
    },
]


def make_calls(count: int, seed: int) -> list[Call]:
    """Write `count` calls.

    Seven of ten are short questions, two are letters, one is a file of notes to sum up.
    """
    chance = random.Random(f"workload {seed}")
    return [_call(chance, f"call {number + 1}") for number in range(count)]


def _call(chance: random.Random, origin: str) -> Call:
    kind = chance.random()
    body: dict[str, Any] = {"model": chance.choice(MODELS)}
    if kind < 0.7:
        text, bound = _filled(chance, chance.choice(QUESTIONS)), chance.choice(BOUNDS)
    elif kind < 0.9:
        text, bound = (
            "Answer this letter.\n\n" + _notes(chance, chance.randint(8, 30)),
            chance.choice(BOUNDS),
        )
    else:
        text, bound = (
            "Sum up these notes in five points.\n\n" + _notes(chance, chance.randint(60, 140)),
            400,
        )
    body["messages"] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    if bound is not None:
        body["max_tokens"] = bound
    feature = chance.random()
    if feature < 0.08:
        body["tools"] = TOOLS
    elif feature < 0.16:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return Call(body, "chat.completions", origin)


def _notes(chance: random.Random, sentences: int) -> str:
    return " ".join(_filled(chance, chance.choice(SENTENCES)) for _ in range(sentences))


def _filled(chance: random.Random, text: str) -> str:
    return text.format(
        number=chance.randint(2, 99),
        **{name: chance.choice(words) for name, words in FILLING.items()},
    )
