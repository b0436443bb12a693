"""The older distribution `ratelimit` of PyPI, which installs the same import package.

Owns the look for its files beside ours, and the sentence about them. Must never cost
more than one stat where there is no clash.

Two distributions in one folder overwrite each other's ``__init__.py``. What was
installed last works, the other one fails with an ImportError, and uninstalling either
takes files from both. Where ours came last, ``import ratelimit`` warns; where theirs
came last, only the command `ratelimit` still runs our code, so it warns as well.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Final

from ratelimit.errors import caution

FOREIGN: Final = Path(__file__).with_name("exception.py")
"""A file of the other distribution (2.2.1), and never one of ours."""


@functools.cache
def warn_of_clash() -> None:
    """Warn once, with the remedy, if the other distribution lies in this folder."""
    if FOREIGN.exists():
        caution(
            "the distributions ratelimit and ratelimit-openai are installed into one folder "
            "and have overwritten each other's files: keep one of them; to keep this one run "
            f"`{sys.executable} -m pip uninstall -y ratelimit` and then "
            f"`{sys.executable} -m pip install --force-reinstall --no-deps '{_source()}'`",
            stacklevel=3,
        )


def _source() -> str:
    """Return what pip has to be given to install this distribution again."""
    from importlib import metadata  # noqa: PLC0415  # 20 ms that only a clash costs

    try:
        origin = metadata.distribution("ratelimit-openai").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    if origin is None:
        return "ratelimit-openai"
    direct = json.loads(origin)
    if vcs := direct.get("vcs_info"):
        return f"{vcs['vcs']}+{direct['url']}@{vcs['commit_id']}"
    return str(direct["url"])
