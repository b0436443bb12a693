"""The page and the document that `benchmarks/tune.py` writes are whole.

Owns one small run, and a real browser where one is installed. Must never need the
network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import tune
from benchmarks.tuning import plots

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with out.json and report/index.html of a small run."""
    folder = tmp_path_factory.mktemp("tune")
    texts = ["My secret is xyzzy. " * number for number in range(10, 40, 3)]
    lines = [
        json.dumps(
            {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "max_tokens": 200}
        )
        for text in texts
    ]
    calls = folder / "calls.jsonl"
    calls.write_text("\n".join(lines), encoding="utf-8")
    given = ["--calls", str(calls), "--rpm", "500", "--tpm", "1000"]
    status = tune.main(
        [*given, "--json", str(folder / "out.json"), "--report", str(folder / "report")]
    )

    assert status == 0
    return folder


def console(page: Path) -> list[str]:
    """What a real browser says on its console when it opens the page."""
    profile = page.parent / "profile"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    done = subprocess.run(
        [*command, *quiet, page.as_uri()], capture_output=True, text=True, timeout=60, check=False
    )

    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_document_holds_what_programs_ask_for(written: Path) -> None:
    """The names that others build on, with figures that can be."""
    shown = json.loads((written / "out.json").read_text(encoding="utf-8"))

    assert {
        "recommended",
        "makespan",
        "lower_bound",
        "binding_limit",
        "validated_rejected",
        "sensitivity",
        "tiers",
        "rehearsal",
    } <= shown.keys()
    assert shown["validated_rejected"] == 0
    assert shown["makespan"] >= shown["lower_bound"] * 0.999
    assert shown["recommended"]["arguments"]["tpm"] == 1_000


def test_nothing_holds_the_text_of_a_call(written: Path) -> None:
    """Sizes are enough for a rehearsal: what people asked stays where it was."""
    for made in (written / "out.json", written / "report" / "index.html"):
        assert "xyzzy" not in made.read_text(encoding="utf-8")


def test_page_refers_to_nothing_outside(written: Path) -> None:
    """No script, and no address but those that name an XML dialect."""
    page = (written / "report" / "index.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))

    assert "<script" not in page
    assert all(
        re.match(r"http://(www\.w3\.org|purl\.org|creativecommons\.org)/", address)
        for address in addresses
    )
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert page.count("<svg") >= 6


@pytest.mark.skipif(not BROWSER, reason="no chromium is installed")
def test_browser_has_nothing_to_complain_of(written: Path) -> None:
    """The page opens in a real browser without a word on the console; what it may load
    is forbidden by its own policy.
    """
    page = written / "report" / "index.html"
    spoilt = written / "spoilt.html"
    spoilt.write_text(
        page.read_text(encoding="utf-8").replace(
            "<h1>", '<img src="http://127.0.0.1:9/x.png"><h1>'
        ),
        encoding="utf-8",
    )

    assert console(page) == []
    assert console(spoilt) != []  # the browser would have told


def test_the_legend_covers_no_value() -> None:
    """Whatever is drawn in a plot, the names of its series stand above it."""
    figure, axes = plots._axes(4.5, 3.0)
    axes.plot([0, 1], [0, 1], label="rising")
    axes.plot([0, 1], [1, 1], label="at the top")
    plots.legend(axes)
    figure.canvas.draw()
    legend = axes.get_legend()

    assert legend is not None
    assert legend.get_window_extent().y0 >= axes.get_window_extent().y1
