"""How much work an estimate will be: whether a worker thread should do it.

Owns the thresholds. Must never count a token: it adds up lengths and asks the tokenizer
what it has counted already.
"""

from __future__ import annotations

from typing import Final

from ratelimit.estimate.models import traits_of
from ratelimit.estimate.tokenizer import is_counted, is_ready
from ratelimit.estimate.untrusted import as_mapping, as_str, sent_body, texts_in

MOST_TEXT: Final = 50_000
"""Characters of uncounted text; they take some 10 ms."""

MOST_VALUES: Final = 10_000
"""Values looked at before a request is left to a thread for their number alone."""

_UNREAD: Final = ("data:image/", "data:audio/")
"""How texts begin of which no formula reads more than the start."""


def needs_thread(request: object) -> bool:
    """Whether an estimate of `request` would hold up an event loop.

    It would with more than `MOST_TEXT` characters that are not counted yet, and
    while the vocabulary is still to be loaded.
    """
    body = sent_body(as_mapping(request))
    encoding = traits_of(as_str(body.get("model"))).encoding
    if not is_ready(encoding):
        return True

    try:
        found = texts_in(body, MOST_VALUES)
    except ValueError:
        return True

    texts = [text for text in found if not text.startswith(_UNREAD)]
    if sum(map(len, texts)) <= MOST_TEXT:
        return False

    return sum(len(text) for text in texts if not is_counted(text, encoding)) > MOST_TEXT
