"""How this package was installed, and so what a user types to add an extra.

Owns the commands that error messages recommend. Must never install anything.

A name such as ``ratelimit-openai[cli]`` means something only where the package came
from an index. `direct_url.json`, which installers write otherwise (PEP 610), leads back
to the folder of a clone; what a wheel or an archive lacks is named package by package,
since the file itself may be gone.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION: Final = "ratelimit-openai"
"""The name under which the package is installed."""

_REQUIREMENT: Final = re.compile(
    r"(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<versions>[^;]*?)\s*"
    r"(?:;.*?\bextra\s*==\s*['\"](?P<extra>[\w.-]+)['\"].*)?"
)


def version() -> str:
    """Return the installed version; "unknown" in a bare source tree."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def install_command(extra: str) -> str:
    """Return the shell command that adds an extra to this installation."""
    return " ".join([*_installer(), *map(_quoted, _targets(extra))])


def _targets(extra: str) -> list[str]:
    """Return the arguments of the installer."""
    try:
        found = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return [f"{Path(__file__).parents[1]}[{extra}]"]

    origin = _origin(found)
    if origin is None:
        return [f"{DISTRIBUTION}[{extra}]"]

    folder = _folder(origin)
    if folder is not None:
        editable = ["--editable"] if origin["dir_info"].get("editable") else []
        return [*editable, f"{folder}[{extra}]"]

    return sorted(set(_requirements(found.requires or [], extra)))


def _origin(found: metadata.Distribution) -> dict[str, dict[str, object]] | None:
    """Read where the package came from; None where that was an index."""
    try:
        origin = json.loads(found.read_text("direct_url.json") or "null")
    except ValueError:
        return None

    return origin if isinstance(origin, dict) else None


def _folder(origin: dict[str, dict[str, object]]) -> Path | None:
    """Return the folder that the package was installed from, if it is still there."""
    if not isinstance(origin.get("dir_info"), dict):
        return None

    folder = Path(url2pathname(urlsplit(str(origin.get("url"))).path))
    return folder if (folder / "pyproject.toml").is_file() else None


def _requirements(requires: list[str], extra: str) -> Iterator[str]:
    """Yield what an extra stands for, extras of this package itself resolved."""
    for line in requires:
        found = _REQUIREMENT.fullmatch(line)
        if found is None or found["extra"] != extra:
            continue

        if found["name"].lower().replace("_", "-") == DISTRIBUTION:
            for inner in (found["extras"] or "").split(","):
                yield from _requirements(requires, inner.strip())
        else:
            extras = f"[{found['extras']}]" if found["extras"] else ""
            yield found["name"] + extras + found["versions"]


def _installer() -> list[str]:
    """Return how to call an installer that reaches this interpreter's packages."""
    pip = shutil.which("pip")
    if pip is not None and Path(pip).parent == Path(sys.executable).parent:
        return ["pip", "install"]

    if importlib.util.find_spec("pip") is None and shutil.which("uv") is not None:
        return ["uv", "pip", "install", "--python", _quoted(sys.executable)]

    return [_quoted(sys.executable), "-m", "pip", "install"]


def _quoted(argument: str) -> str:
    if sys.platform == "win32":
        return f'"{argument}"' if re.search(r"[^\w./\\:=-]", argument) else argument

    return shlex.quote(argument)
