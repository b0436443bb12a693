"""How much work an estimate will be, and whether it had better leave the event loop for
a thread.

Owns the threshold. Must never count a token: it adds up lengths and asks the tokenizer
what it knows already.
"""

from __future__ import annotations

from ratelimit.estimate.models import family
from ratelimit.estimate.tokenizer import counted, ready
from ratelimit.estimate.untrusted import obj, text

HEAVY = 50_000  # characters of uncounted text; some 10 ms of counting
UNREAD = ("data:image/", "data:audio/", "data:application/pdf")
MOST_PARTS = 10_000  # values looked at before a request is called heavy for their number alone


def heavy(request: object) -> bool:
    """Tell whether `request` holds more than HEAVY characters nobody has counted yet,
    or the vocabulary is still to be loaded.
    """
    body = obj(request)
    encoding = family(text(body.get("model"))).encoding
    if not ready(encoding):
        return True
    texts = _texts(body)
    if texts is None:
        return True
    if sum(map(len, texts)) <= HEAVY:
        return False
    return sum(len(value) for value in texts if not counted(value, encoding)) > HEAVY


def _texts(body: object) -> list[str] | None:
    """Collect the texts of a request, without recursion; objects of the SDK show their
    content. None: too many values to look at.
    """
    texts: list[str] = []
    waiting = [body]
    looked = 0
    while waiting:
        value = waiting.pop()
        looked += 1
        if looked + len(waiting) > MOST_PARTS:
            return None
        if isinstance(value, str):
            if not value.startswith(UNREAD):
                texts.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        else:
            content = getattr(value, "content", None)
            if isinstance(content, (str, list)):
                waiting.append(content)
    return texts
