"""What a chat.completions prompt costs.

Owns the messages: their texts, names, calls and results. Must never know a limiter, a charge, or an answer's length.
Source of every figure: recorded chat calls with their usage.
"""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit.estimate.plain import items, obj, text
from ratelimit.estimate.tally import Tally

PER_MESSAGE = 3  # <|im_start|>, the separator, <|im_end|>
ANSWER = 3  # <|im_start|>assistant<|im_sep|>
ANSWER_REASONING = 2


def count_chat(body: Mapping[str, object], tally: Tally) -> None:
    """Add the prompt of a chat body to `tally`."""
    messages = items(body.get("messages"))
    for message in messages:
        _message(obj(message), tally)
    tally.messages += len(messages)
    if messages:
        tally.tokens += ANSWER_REASONING if tally.family.reasoning else ANSWER


def _message(message: Mapping[str, object], tally: Tally) -> None:
    role = text(message.get("role"))
    tally.tokens += PER_MESSAGE + tally.tok(role)
    if tally.family.gpt5 and role == "assistant":
        tally.tokens += 2
    name = text(message.get("name"))
    if name:
        tally.tokens += 1 + tally.tok(name)
    _content(message.get("content"), tally)


def _content(content: object, tally: Tally) -> None:
    if isinstance(content, str):
        tally.content(content)
        return
    for part in items(content):
        if isinstance(part, str):
            tally.content(part)
            continue
        read = obj(part)
        kind = text(read.get("type"))
        if kind == "image_url":
            tally.images += 1
            tally.kinds.add("images")
            tally.doubt("guess")
        elif kind in {"file", "input_audio"}:
            tally.files += kind == "file"
            tally.kinds.add("files")
            tally.doubt("guess")
        else:
            tally.content(text(read.get("text")) or text(read.get("refusal")))
