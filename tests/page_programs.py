"""The programs of a page of docs/, run as they stand, one after the other.

Owns how programs and commands are found on a page, and the process that runs them: one
for all, so that the SDK is imported once. Must never change a program but for the
address that it asks.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ratelimit.testing import FakeOpenAI

ROOT = Path(__file__).parent.parent

RUNNER = """
import ast, asyncio, contextlib, inspect, io, json, linecache, os, sys, traceback
ran = {}
for name, (text, url) in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    os.environ["OPENAI_BASE_URL"] = url
    linecache.cache[name] = len(text), None, text.splitlines(True), name
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, {"__name__": "__main__"})
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except BaseException:
            traceback.print_exc()
    ran[name] = out.getvalue(), err.getvalue()
json.dump(ran, sys.stdout)
"""
"""Each program has names of its own, and may await at its top as in a notebook."""


@dataclass(frozen=True)
class Ran:
    """What one program printed; an exception that left it is in ``stderr``."""

    stdout: str
    stderr: str


def programs_of(page: Path) -> dict[str, str]:
    """Return the programs of a page by the names in their first lines."""
    text = page.read_text("utf-8")
    found = dict(re.findall(r"```python\n# (\w+\.py)\b[^\n]*\n(.*?)```", text, re.DOTALL))
    assert text.count("```python") == len(found), "a program has no name of its own"
    return found


def asking(text: str, url: str) -> str:
    """Put a server's address in the place of those that a program writes down."""
    text = re.sub(r'(?<=\bbase_url=)"https://[^"]*"', repr(url), text)
    azure = repr(url.removesuffix("/v1"))
    return re.sub(r'(?<=\bazure_endpoint=)"https://[^"]*"', azure, text)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the variables of a process in a home of its own, with any key."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"HOME": str(folder), "PYTHONPATH": path, "PATH": commands, "OPENAI_API_KEY": "any"}
    return {**os.environ, **own, **more}


def run_programs(
    programs: Mapping[str, str], servers: Mapping[str, FakeOpenAI], folder: Path, **more: str
) -> dict[str, Ran]:
    """Run programs one after the other, each against the server of its name."""
    assert set(programs) == set(servers), "each program is run against a server"
    with ExitStack() as stack:
        given = {}
        for name, text in programs.items():
            url = stack.enter_context(servers[name].serve())
            given[name] = asking(text, url), url
        done = subprocess.run(
            [sys.executable, "-c", RUNNER],
            input=json.dumps(given),
            cwd=folder,
            env=environment(folder, **more),
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return {name: Ran(*printed) for name, printed in json.loads(done.stdout).items()}


def run_commands(commands: str, folder: Path, server: FakeOpenAI, **more: str) -> str:
    """Run lines of shell as they stand, and return what they print."""
    with server.serve() as url:
        done = subprocess.run(
            ["sh", "-ec", commands],
            cwd=folder,
            env=environment(folder, OPENAI_BASE_URL=url, **more),
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
