"""docs/recipes.md is true: its programs run as they stand, and their calls are metered.

Owns one run of each program by itself, where its packages are installed. Must never
take a framework's word for what was sent: the server counts.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratelimit import RateLimiter
from ratelimit.testing import FakeOpenAI
from tests.vendor_server import serving

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
TEXT = PAGE.read_text("utf-8")
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
PACKAGES = {
    "ask_langchain.py": "langchain_openai",
    "ask_llama_index.py": "llama_index.llms.openai",
    "ask_instructor.py": "instructor",
    "ask_agents.py": "agents",
    "ask_pydantic_ai.py": "pydantic_ai",
    "ask_haystack.py": "haystack",
    "ask_autogen.py": "autogen_ext",
    "ask_smolagents.py": "smolagents",
    "ask_litellm.py": "litellm",
    "ask_dspy.py": "dspy",
    "ask_crewai.py": "crewai",
    "ask_magentic.py": "magentic",
    "ask_ragas.py": "ragas",
    "ask_deepeval.py": "deepeval",
    "hook_langchain.py": "langchain_openai",
    "hook_llama_index.py": "llama_index.llms.openai",
    "hook_pydantic_ai.py": "pydantic_ai",
}
"""What each program that asks OpenAI needs to be installed."""
VENDORS = {
    "ask_anthropic.py": "anthropic",
    "ask_groq.py": "groq",
    "ask_gemini.py": "google.genai",
    "ask_mistral.py": "mistralai",
}
"""Likewise, of the programs that ask another vendor."""
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OTEL_SDK_DISABLED": "true",
    "RAGAS_DO_NOT_TRACK": "true",
}
"""Settings by which frameworks ask for nothing but the model."""
COUNT = """
admitted = sum(family.admitted for family in limiter.statistics().families.values())
in_flight = sum(family.in_flight for family in limiter.statistics().families.values())
print(f"{admitted = }, {in_flight = }")
"""


def installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it all."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # what holds it is not there
        return False


def ran(name: str, package: str, folder: Path, **home: str) -> str:
    """Run a program of the page by itself; return what it and the count print."""
    if not installed(package):
        pytest.skip(f"{package} is not installed: the extra dev has light packages only")

    program = folder / name
    program.write_text(PROGRAMS[name] + COUNT, "utf-8")
    path = os.pathsep.join([str(PAGE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={**os.environ, **QUIET, **home, "HOME": str(folder), "PYTHONPATH": path},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_program_of_the_page_is_run_here() -> None:
    """A program that is added to the page is added to these tests."""
    assert set(PROGRAMS) == set(PACKAGES) | set(VENDORS)
    assert TEXT.count("```python\n# ") == len(PROGRAMS)


@pytest.mark.parametrize("name", PACKAGES)
def test_each_program_is_metered(name: str, tmp_path: Path) -> None:
    """The server sees as many calls as the limiter admits, and at least one."""
    server = FakeOpenAI(rpm=500, tpm=30_000, latency=0.01)
    with server.serve() as url:
        home = {"OPENAI_BASE_URL": url, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "any"}
        printed = ran(name, PACKAGES[name], tmp_path, **home)

    assert len(server.ledger) > 0
    assert f"admitted = {len(server.ledger)}, in_flight = 0" in printed


@pytest.mark.parametrize("name", VENDORS)
def test_each_vendors_program_is_metered(name: str, tmp_path: Path) -> None:
    """Calls of each vendor's SDK pass the limiter, streamed ones and others."""
    with serving() as (url, asked):
        home = {
            "ANTHROPIC_API_KEY": "any",
            "ANTHROPIC_BASE_URL": url,
            "GOOGLE_API_KEY": "any",
            "GOOGLE_GEMINI_BASE_URL": url,
            "GROQ_API_KEY": "any",
            "GROQ_BASE_URL": url,
            "MISTRAL_API_KEY": "any",
            "MISTRAL_SERVER_URL": url,
        }
        printed = ran(name, VENDORS[name], tmp_path, **home)

    assert len(asked) > 1
    assert f"admitted = {len(asked)}, in_flight = 0" in printed


def test_the_page_shows_in_one_line_how_to_check() -> None:
    """The line prints what the page says that it prints, before a call and after it."""
    (line,) = re.findall(r"```python\nprint\((.*?)\)  .*\n```", TEXT)
    limiter = RateLimiter(rpm=500)
    before = str(eval(line, {"limiter": limiter}))  # noqa: S307  # the page is ours
    limiter.acquire_sync().close()
    after = str(eval(line, {"limiter": limiter}))  # noqa: S307

    assert re.findall(r'"(\d admitted)"', TEXT) == ["1 admitted", "0 admitted"]
    assert ("0 admitted" in before, "1 admitted" in after) == (True, True)
