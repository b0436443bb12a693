"""The first pass over a file of requests: is it usable, how much is left to do, and for
which models.

Owns what is found out before anything is sent or paid. Must never come in: sending;
more memory than the names that have to be unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ratelimit.batch.journal import Done
from ratelimit.batch.lines import parse_line, read_lines
from ratelimit.batch.requests import Request, key_of, read_request
from ratelimit.errors import InvalidArgument

SHOWN: Final = 5
"""Problems that are told in full; the rest is counted."""


@dataclass(slots=True)
class Survey:
    """What a file holds: `total` requests, `left` of them to be sent, by model;
    `problems` in words, `broken` lines in all.
    """

    total: int = 0
    left: int = 0
    models: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    broken: int = 0

    def complain(self, problem: str) -> None:
        """Note one more broken line."""
        self.broken += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)


class Source:
    """A file of requests, and which of them are to be sent.

    :param model: sent in place of the model each request names.
    :param done: what the file of results holds already.
    :param retry: send what failed, and only that; else what has no result yet.
    """

    def __init__(
        self, path: Path, done: Done, *, model: str | None = None, retry: bool = False
    ) -> None:
        self.path = path
        self._done = done
        self._model = model
        self._retry = retry

    def survey(self) -> Survey:
        """Read the whole file once. Two requests of one name are a problem: there would
        be no telling whose result is whose.
        """
        found = Survey()
        names: set[bytes] = set()
        for number, raw in read_lines(self.path):
            try:
                request = self._request(number, raw)
            except InvalidArgument as error:
                found.complain(str(error))
                continue
            found.total += 1
            # the names that we give differ by their number
            if request.given.get("custom_id") is not None:
                key = key_of(request.custom_id)
                if key in names:
                    found.complain(
                        f"{self._where(number)} has the custom_id {request.custom_id[:100]!r} of an earlier line"
                    )
                names.add(key)
            if self._wanted(request):
                found.left += 1
                found.models[request.model] += 1
        return found

    def __iter__(self) -> Iterator[Request]:
        for number, raw in read_lines(self.path):
            request = self._request(number, raw)
            if self._wanted(request):
                yield request

    def _where(self, number: int) -> str:
        return f"line {number} of {self.path}"

    def _request(self, number: int, raw: bytes) -> Request:
        where = self._where(number)
        return read_request(parse_line(raw, where), number, where=where, model=self._model)

    def _wanted(self, request: Request) -> bool:
        if not (self._done.failed or self._done.answered):
            return not self._retry
        key = key_of(request.custom_id)
        return (
            key in self._done.failed
            if self._retry
            else not (key in self._done.answered or key in self._done.failed)
        )
