"""The house: arrows point down, nothing below `drive.py` waits or talks, and importing
the package costs little and needs no extra.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import ratelimit

ROOT = Path(ratelimit.__file__).parent
FILES = {
    ".".join(("ratelimit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}

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
ANY = {"ratelimit"}

BELOW: dict[str, set[str]] = {
    # room: what of the package it may import
    "ratelimit.errors": set(),
    "ratelimit.limits": {"ratelimit.errors"},
    "ratelimit.stores.bucket": {"ratelimit.limits"},
    "ratelimit.locks": {"ratelimit.errors"},
    "ratelimit.admission.clock": set(),
    "ratelimit.admission.queue": {"ratelimit.errors", "ratelimit.limits", "ratelimit.locks"},
    "ratelimit.admission.flow": {
        "ratelimit.admission.queue",
        "ratelimit.limits",
        "ratelimit.errors",
    },
    "ratelimit.stores": {
        "ratelimit.stores",
        "ratelimit.stores.bucket",
        "ratelimit.limits",
        "ratelimit.errors",
        "ratelimit.locks",
        "ratelimit.admission.queue",
    },
    "ratelimit.admission.drivers": {
        "ratelimit.admission.clock",
        "ratelimit.admission.flow",
        "ratelimit.limits",
        "ratelimit.stores",
    },
    "ratelimit.estimate": {"ratelimit.estimate", "ratelimit.errors", "ratelimit.limits"},
    "ratelimit.feedback": {"ratelimit.feedback", "ratelimit.errors", "ratelimit.limits"},
}
SILENT = [
    "ratelimit.errors",
    "ratelimit.limits",
    "ratelimit.stores.bucket",
    "ratelimit.admission.queue",
    "ratelimit.admission.flow",
    "ratelimit.estimate",
    "ratelimit.feedback",
]


def imports(path: Path, *, run: bool = False) -> set[str]:
    """Every module that a file imports, at its top and inside functions; with ``run``
    only what is imported when it runs, not for types.
    """
    found: set[str] = set()
    typed: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if run and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typed.update(ast.walk(node))
        if node in typed:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert node.level == 0, f"{path.name}: imports are absolute"
            found.update(
                f"{module}.{alias.name}" if f"{module}.{alias.name}" in FILES else module
                for alias in node.names
            )
    return found


def of_room(room: str) -> dict[str, Path]:
    """The files of a room: a module, or a folder and all in it."""
    return {
        module: path
        for module, path in FILES.items()
        if module == room or module.startswith(room + ".")
    }


def falls_under(module: str, names: set[str]) -> bool:
    """Whether a module is one of ``names``, or inside one."""
    return any(module == name or module.startswith(name + ".") for name in names)


@pytest.mark.parametrize("room", BELOW)
def test_arrows_point_down(room: str) -> None:
    """A room imports of the package only the rooms below it, for types either."""
    for module, path in of_room(room).items():
        inside = {name for name in imports(path) if falls_under(name, ANY)}
        assert {name for name in inside if not falls_under(name, BELOW[room])} == set(), module


def test_no_inner_file_imports_the_face() -> None:
    """`from ratelimit import name` inside the package ties files into a circle; only
    the command line may show the face.
    """
    offenders = [
        module
        for module, path in FILES.items()
        if "ratelimit" in imports(path)
        and not module.startswith(("ratelimit.commands", "ratelimit.cli", "ratelimit.testing"))
    ]
    assert offenders == []


@pytest.mark.parametrize("room", SILENT)
def test_nothing_below_the_drivers_waits_reads_a_clock_or_talks(room: str) -> None:
    """Time is an argument, and I/O is somebody else's: also inside functions."""
    for module, path in of_room(room).items():
        used = {name for name in imports(path) if falls_under(name, WAITING | HTTP)}
        assert used <= ALLOWED.get(module, set()), module


ALLOWED: dict[str, set[str]] = {
    "ratelimit.estimate.vocabulary": {"time"}
}  # it must not hang a call: it measures its own patience with a download


def test_only_the_outer_rooms_import_an_async_library() -> None:
    """Anyio is at home in `drive.py`; the limiter's own files use it for off-loading at
    most.
    """
    users = {
        module
        for module, path in FILES.items()
        if any(falls_under(name, {"anyio", "trio", "asyncio"}) for name in imports(path))
    }
    inner = {
        module
        for module in users
        if not module.startswith(
            ("ratelimit.testing", "ratelimit.commands", "ratelimit.cli", "ratelimit.batch")
        )
    }
    assert inner <= {
        "ratelimit.admission.drivers",
        "ratelimit.reservation",
        "ratelimit.integrations.transport",
        "ratelimit.integrations.metering",
    }
    assert not any(
        "asyncio" in imports(FILES[module]) or "trio" in imports(FILES[module]) for module in inner
    )


@pytest.mark.parametrize(
    "module", ["ratelimit.integrations.transport", "ratelimit.integrations.metering"]
)
def test_the_transport_imports_no_http_library(module: str) -> None:
    """Any transport of the right shape is wrapped by its names."""
    assert not any(falls_under(name, HTTP) for name in imports(FILES[module]))


def test_the_fake_server_shares_no_arithmetic_with_the_limiter() -> None:
    """Who judges must not calculate with the same code."""
    for module, path in of_room("ratelimit.testing").items():
        used = {
            name
            for name in imports(path)
            if falls_under(
                name, {f"ratelimit.{room}" for room in ("stores", "admission", "control")}
            )
        }
        assert used <= {"ratelimit.admission.clock"}, module


def test_no_circle_of_files() -> None:
    """What is imported when a file is loaded never leads back to it."""
    arrows = {
        module: imports(path, run=True) & set(FILES) - {module} for module, path in FILES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for below in arrows[module]:
                visit(below, (*trail, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


def test_every_file_opens_with_its_contract_and_stays_short() -> None:
    """What it owns is said before the first import; about 300 lines are a file."""
    for module, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), module
        assert text.count("\n") <= 460, module


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
    loaded = [name for name in ("openai", "trio", "httpx2", "quicktok", "starlette", "uvicorn", "rich") if name in sys.modules]
    assert not loaded, loaded
"""
EXTRAS = {
    "rich",
    "matplotlib",
    "starlette",
    "uvicorn",
    "imagesize",
    "quicktok",
    "tenacity",
    "trio",
    "aiohttp",
    "hypothesis",
    "pytest",
}


def test_importing_needs_no_extra_and_loads_no_vocabulary() -> None:
    """`import ratelimit` and calls with a cost by hand work with the core dependencies
    alone, and load neither a vocabulary nor the SDK.
    """
    script = textwrap.dedent(ALONE).replace("{extras}", repr(EXTRAS))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # our own text
    assert done.returncode == 0, done.stderr
