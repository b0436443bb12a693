"""The documentation is a site: it is built without a warning, each link of it leads
somewhere, and nothing of it is fetched from elsewhere.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent
PUBLIC = ("ratelimit", "ratelimit.events", "ratelimit.testing")
"""Modules with names that users import."""
LOADING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
"""What a browser fetches by itself, by the tag and its attribute."""


class Page(HTMLParser):
    """What one page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        self.links.add((tag == "a" and found.get("href")) or "")
        self.loads.add(found.get(LOADING.get(tag, "")) or "")


Site = dict[Path, Page]


def build(folder: Path) -> None:
    """Build the site, as `make docs` does."""
    (command,) = re.findall(
        r"^\t\$\(BIN\)/(sphinx-build .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    *options, source, _ = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, source, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=200,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The pages of the site, which the first of all test processes builds."""
    for package in ("sphinx", "furo", "myst_parser"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[docs]'")

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = shared / "site", shared / "site.built"
    with FileLock(shared / "site.lock"):
        if not done.exists():
            build(folder)
            done.touch()
    return {path: Page(path) for path in folder.rglob("*.html")}


def broken(site: Site) -> Iterator[str]:
    """Yield each link inside the site that leads nowhere."""
    for path, page in site.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = site[target].anchors if target in site else {""}
            if not target.exists() or unquote(parts.fragment) not in {"", *known}:
                yield f"{path.name}: {link}"


def test_no_link_of_the_site_is_broken(site: Site) -> None:
    """Pages, headings, names of the API, pictures and files are where links say."""
    assert list(broken(site)) == []
    assert len(site) > 12


def test_a_broken_link_would_be_found(site: Site) -> None:
    """A page that is gone and a heading that is gone are both noticed."""
    path = next(path for path in site if path.name == "index.html")
    page = Page(path)
    page.links |= {"gone.html", "limits.html#gone", "#gone"}

    assert len(list(broken({**site, path: page}))) == 3


def test_the_site_fetches_nothing_from_elsewhere(site: Site) -> None:
    """No font, script, style or picture of another host: it can be read offline."""
    loads = {link for page in site.values() for link in page.loads}
    styles = "".join(path.read_text("utf-8") for path in _folder(site).rglob("*.css"))

    assert [link for link in loads if urlsplit(link).netloc] == []
    assert re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", styles) == []


def _folder(site: Site) -> Path:
    return next(path.parent for path in site if path.name == "index.html")


def test_every_public_name_is_in_the_reference(site: Site) -> None:
    """What users import has its docstring on the page."""
    anchors = site[_folder(site) / "reference.html"].anchors
    missing = {
        f"{module}.{name}"
        for module in PUBLIC
        for name in import_module(module).__all__
        if not {f"{module}.{name}", f"ratelimit.{name}"} & anchors
    }

    assert missing == set()


def test_every_page_is_reached_from_the_first(site: Site) -> None:
    """The navigation of the first page names all of them."""
    first = site[_folder(site) / "index.html"]
    pages = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}

    assert pages - {"index.html"} <= first.links
