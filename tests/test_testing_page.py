"""docs/testing.md is true: its tests pass as they stand, in a project of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "testing.md"
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """With the fixture and the clock that the page names, and nothing else set up."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=100,
    )

    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert set(FILES) == {"conftest.py", "test_my_app.py", "test_waits.py"}
