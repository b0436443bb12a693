"""Files are counted by their text, their pages or their size, the whole of them."""

from __future__ import annotations

import base64
import zlib

import pytest

from ratelimit.estimate import Estimator
from ratelimit.estimate import pdf as pdfs
from ratelimit.estimate.pdf import BYTES_PER_PAGE, READ
from ratelimit.estimate.untrusted import decode_base64
from tests.prompts import responses, tok

PROSE = "The river rose by two metres overnight, and the bridge at Ulm was closed."


def pdf(body: bytes) -> str:
    """A PDF with this body in base64."""
    return base64.b64encode(b"%PDF-1.7\n" + body).decode()


def pages(data: str) -> int:
    """The pages of a PDF in base64."""
    return pdfs.pages(decode_base64(data, READ), data)


def test_pages_are_found_where_a_pdf_has_them() -> None:
    """By their marks, also packed ones; in a long file by its own count or by the share
    that was read; and without any mark by the size.
    """
    page, far = b"<</Type /Page>>\n", b"\x80" * 2 * READ
    packed = b"<</Type /ObjStm /Filter /FlateDecode>>\nstream\n" + zlib.compress(page * 7)

    assert pages(pdf(page * 3)) == 3
    assert pages(pdf(packed + b"\nendstream")) == 7
    assert pages(pdf(b"/ObjStm>>\nstream\nencrypted" + page)) == 1
    assert pages(pdf(page + far + b"<</Type /Pages /Kids [] /Count 250>>")) == 250
    assert pages(pdf(page * 4 + far)) == 6
    assert pages(pdf(b"\x80" * 10 * BYTES_PER_PAGE)) == 11
    assert pages("") == 1


@pytest.mark.parametrize(
    "tree",
    [
        b"<</Type /Pages /Count 12 /Kids [1 0 R] /Resources <</Font <</F1 2 0 R>>>>>>\n",
        b"<</Kids [1 0 R] /Resources <</Count 9>> /Count 12 /Type/Pages>>\n",
        b"<</Type /Pages /Count 4>> <</Type /Pages\n/Count\n12>> <</Type /Pages /Count 8>>\n",
    ],
)
@pytest.mark.parametrize(
    "outlines",
    [
        b"<</Type /Outlines /First 5 0 R /Last 9 0 R /Count 4000>>\n",
        b"<</Title (Chapter) /Parent 4 0 R /Count 700>>\n",
        b"<</Title (odd >> << title) /Count 700>>\n",
        b"\x80<<\x80>>\x80<<\x80",
    ],
)
def test_the_entries_of_an_outline_are_no_pages(tree: bytes, outlines: bytes) -> None:
    """A long file's own count of its pages stands in the tree of pages, and nowhere
    else.
    """
    page, far = b"<</Type /Page>>\n", b"\x80" * 2 * READ

    assert pages(pdf(page + outlines + far + outlines + tree + outlines)) == 12
    assert pages(pdf(page + tree + outlines + far + outlines)) == 12


def file_tokens(data: str) -> int:
    """What a file part of Responses adds to the prompt."""
    part = {"type": "input_file", "file_data": data}
    empty = {"role": "user", "content": ""}
    return responses([{**empty, "content": [part]}]) - responses([empty])


def test_a_file_costs_by_the_whole_of_it() -> None:
    """What is behind its first megabyte counts as what is before."""
    line = b"The river rose by two metres overnight.\n"
    text = base64.b64encode(line * 60_000).decode()
    archive = base64.b64encode(b"PK\x03\x04" + b"\xff\x00" * 400_000).decode()

    assert file_tokens("data:text/plain;base64," + text) >= 0.98 * 60_000 * tok(line.decode())
    assert file_tokens("data:application/zip;base64," + archive) >= 100 * 400
    assert file_tokens(pdf(b"\x80" * 800_000)) >= 100 * 400


@pytest.mark.parametrize("kind", ["text/csv", "application/xml", "application/x-yaml", ""])
def test_a_text_file_is_counted_whatever_it_is_called(kind: str) -> None:
    """A file that holds a text is that text, with and without its media type."""
    data = base64.b64encode((PROSE * 3 + "é").encode()).decode()

    assert file_tokens(f"data:{kind};base64,{data}" if kind else data) == tok(PROSE * 3 + "é")


def test_a_long_file_is_left_to_a_thread() -> None:
    """Pages are searched and unpacked, which would hold up an event loop."""
    part = {"type": "input_file", "file_data": "data:application/pdf;base64," + pdf(b"x" * 90_000)}
    estimator = Estimator()
    estimator.count_text("Load the vocabulary.", "gpt-4o")

    assert estimator.needs_thread({"input": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize(
    "hostile",
    [
        b"/ObjStm>>stream\n" * 90_000,
        b"/Type /Pages /Count 1 " * 60_000,
        b"/ObjStm" + b" " * 999_999,
        b"<<" * 900_000 + b"/Type /Pages",
        b"/Type /Pages" + b">>" * 900_000,
        b"<</Type /Pages /Count 9" + b"<</Type /Pages>>" * 130_000,
    ],
)
def test_a_hostile_pdf_has_some_pages(hostile: bytes) -> None:
    """What looks like pages, or like packed ones, without end is a number all the
    same.
    """
    assert 1 <= pages(pdf(hostile)) <= 10**6
