"""The house: arrows point down, rooms and files stay small, and importing costs
little.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import house
from tests.house import ROOMS, ROOT, House, read

WAITING = {"anyio", "trio", "asyncio", "sniffio", "time", "sched"}
HTTP = {
    "openai",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "aiohttp",
    "requests",
    "urllib3",
    "urllib.request",
    "http.client",
    "socket",
}
SILENT = (
    "errors",
    "limits",
    "families",
    "locks",
    "arguments",
    "budget",
    "estimate",
    "feedback",
    "stores",
)
LONGEST_FILE = 365
"""Lines; about 300 are a file."""
MOST_FILES = 12
"""Files of one folder besides its `__init__`, but in the two rooms of many small ones.
"""


def foreign(module: str) -> set[str]:
    """Return what a file imports from outside the package."""
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / module.replace(".", "/") / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def uses(module: str, names: set[str]) -> set[str]:
    """Return which of these outside modules a file imports."""
    return {
        name
        for name in foreign(module)
        if any(name == one or name.startswith(one + ".") for one in names)
    }


def test_every_room_imports_only_what_the_table_allows() -> None:
    """Arrows point down, and imports for types are arrows too."""
    assert read().forbidden() == []


def test_no_room_is_missing_from_the_table() -> None:
    """A new file or folder is given its place before it is used."""
    assert {read().room(module) for module in read().lines} <= set(ROOMS)


def test_no_file_leads_back_to_itself() -> None:
    """There is no circle of imports, those for types included."""
    assert read().circle() == []


def test_the_table_itself_has_no_circle() -> None:
    """What the table allows could never become a circle of rooms."""
    names = {room: {other.split(".")[0] for other in ROOMS[room]} for room in ROOMS}
    table = House({}, {room: frozenset(others - {room}) for room, others in names.items()})

    assert table.circle() == []


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ("stores/bucket.py:from ratelimit.control.engine import Engine", "forbidden"),
        ("feedback/counts.py:import ratelimit.lease", "forbidden"),
        ("stores/bucket.py:from ratelimit.stores.memory import MemoryStore", "circle"),
        (
            "stores/bucket.py:if TYPE_CHECKING:\n    from ratelimit.stores.memory import X",
            "circle",
        ),
    ],
)
def test_a_wrong_import_is_found(added: str, complaint: str, tmp_path: Path) -> None:
    """An upward import, a circle and a circle for types alone are each noticed."""
    file, line = added.split(":", 1)
    for path in ROOT.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        copy.write_text(text + ("\n" + line + "\n" if path == ROOT / file else ""))

    changed = house.read(tmp_path)

    assert (changed.forbidden() if complaint == "forbidden" else changed.circle()) != []


def test_folders_stay_small() -> None:
    """No folder holds more than a dozen files, but estimate/ and testing/."""
    crowded = {folder for folder, files in read().folders().items() if files > MOST_FILES}

    assert crowded <= {"estimate", "testing"}


def test_files_stay_short() -> None:
    """About 300 lines are a file."""
    assert {module: lines for module, lines in read().lines.items() if lines > LONGEST_FILE} == {}


def test_every_file_opens_with_its_contract() -> None:
    """What a file owns, and what must never come in, stands before its first import."""
    without = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert without == []


def test_nothing_below_the_drivers_waits_reads_a_clock_or_talks() -> None:
    """Time is an argument, and I/O belongs to other rooms: also inside functions.

    A quota file waits for its lock, and remembers the calendar; a courier sleeps until
    the next step.
    """
    found = {
        module: uses(module, WAITING | HTTP)
        for module in read().lines
        if read().room(module) in SILENT or module in {"admission.queue", "admission.flow"}
    }

    assert {module: names for module, names in found.items() if names} == {
        "stores.folder.making": {"time"},
        "stores.folder.quota_file": {"time"},
        "stores.redis.courier": {"time"},
    }


def test_only_a_few_rooms_import_an_async_library() -> None:
    """The drivers wait, and a reservation off-loads its counting; asyncio and trio
    never.
    """
    inner = [
        module
        for module in read().lines
        if read().room(module) not in {"testing", "commands", "cli", "batch"}
    ]

    assert {module for module in inner if uses(module, {"anyio"})} == {
        "admission.drivers",
        "reservation.waiting",
    }
    assert [module for module in inner if uses(module, {"asyncio", "trio"})] == []


def test_the_integrations_import_no_http_library() -> None:
    """Any transport of the right shape is wrapped by its names."""
    inside = [module for module in read().lines if read().room(module) == "integrations"]

    assert [module for module in inside if uses(module, HTTP)] == []


def test_the_fake_server_shares_no_arithmetic_with_the_limiter() -> None:
    """A judge must not calculate with the same code."""
    shared = {
        target
        for module, targets in read().imports.items()
        if read().room(module) == "testing"
        for target in targets
        if read().room(target) in {"stores", "admission", "control", "lease", "limiter"}
    }

    assert shared == {"admission.clock"}


ALONE = """
    import sys

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {extras}:
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Absent())
    import ratelimit
    limiter = ratelimit.RateLimiter(rpm=5)
    limiter.acquire_sync(tokens=1).close()
    with limiter.reserve(tokens=3):
        pass
    import tiktoken
    assert not tiktoken.registry.ENCODINGS, "a vocabulary is some megabytes and half a second"
    names = ("openai", "trio", "httpx2", "quicktok", "starlette", "uvicorn", "rich")
    loaded = [name for name in names if name in sys.modules]
    assert not loaded, loaded
"""
EXTRAS = {
    "rich",
    "matplotlib",
    "starlette",
    "uvicorn",
    "imagesize",
    "opentelemetry",
    "quicktok",
    "tenacity",
    "filelock",
    "trio",
    "aiohttp",
    "hypothesis",
    "pytest",
}


def test_importing_needs_no_extra_and_loads_no_vocabulary() -> None:
    """`import ratelimit` works with the core dependencies alone and stays light.

    Calls with a cost by hand load neither a vocabulary nor the SDK.
    """
    script = textwrap.dedent(ALONE).replace("{extras}", repr(EXTRAS))

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
