"""docs/coming-from.md is true: our programs run, and theirs where installed."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from ratelimit.batch.requests import read_request
from ratelimit.testing import FakeOpenAI
from tests.page_programs import ROOT, programs_of, run_commands, run_programs

PAGE = ROOT / "docs" / "coming-from.md"
PROGRAMS = programs_of(PAGE)
PEERS = {
    "litellm_before.py": "litellm",
    "litellm_after.py": "litellm",
    "token_throttle_before.py": "token_throttle",
}
"""Programs that need what the extra `dev` does not bring."""
ASKED = {
    "tenacity_before.py": 5,
    "tenacity_after.py": 5,
    "tenacity_both.py": 1,
    "aiolimiter_before.py": 5,
    "aiolimiter_after.py": 5,
    "token_throttle_after.py": 5,
}
"""How many calls each of the others makes."""
LINE = {"model": "text-embedding-3-small", "input": "embed me", "metadata": {"row_id": 7}}


def check(names: list[str], folder: Path, **more: str) -> dict[str, int]:
    """Run programs, see that they print answers and nothing else; count their calls."""
    servers = {name: FakeOpenAI(latency=0.01) for name in names}
    ran = run_programs({name: PROGRAMS[name] for name in names}, servers, folder, **more)

    assert {name: one.stderr for name, one in ran.items() if one.stderr} == {}
    assert [name for name, one in ran.items() if not one.stdout] == []
    assert [name for name, server in servers.items() if server.ledger.refused] == []
    return {name: len(server.ledger.admitted) for name, server in servers.items()}


def test_the_programs_run(tmp_path: Path) -> None:
    """Each, before and after, is answered as often as it asks."""
    assert check(list(ASKED), tmp_path) == ASKED
    assert set(PROGRAMS) == {*ASKED, *PEERS, "with_ids.py"}


@pytest.mark.parametrize("name", PEERS)
def test_a_peers_program_runs(name: str, tmp_path: Path) -> None:
    """What is shown of another package works as it is shown."""
    if importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed: pip install -e '.[peers]'")

    assert check([name], tmp_path, LITELLM_LOCAL_MODEL_COST_MAP="True") == {name: 5}


def test_a_file_for_the_cookbooks_script_is_asked(tmp_path: Path) -> None:
    """The command of the page takes it as it is; converted, each line has its name."""
    (tmp_path / "requests.jsonl").write_text(json.dumps(LINE) + "\n", "utf-8")
    (command,) = re.findall(r"```sh\n(ratelimit run .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "with_ids.py").write_text(PROGRAMS["with_ids.py"], "utf-8")
    server = FakeOpenAI(latency=0.01)
    run_commands(f"{command}\npython with_ids.py", tmp_path, server)
    named = read_request(json.loads((tmp_path / "with_ids.jsonl").read_text("utf-8")), 1)

    assert json.loads((tmp_path / "answers.jsonl").read_text("utf-8"))["error"] is None
    assert [call.endpoint for call in server.ledger.admitted] == ["embeddings"]
    assert (named.custom_id, named.endpoint, len(named.body)) == ("7", "embeddings", 2)
