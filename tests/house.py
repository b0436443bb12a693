"""The house: which room may import which, read off the code.

Owns the table of rooms and what is measured of them; `python -m tests.house` prints it.
Must never run what it measures: it reads imports as text, those for types included.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent / "ratelimit"

GROUND: Final = (
    "errors",
    "weights",
    "limits",
    "families",
    "locks",
    "arguments",
    "budget",
    "installation",
)
BELOW_LEASE: Final = (*GROUND, "estimate", "feedback", "events", "stores", "admission", "control")
BELOW_FACE: Final = (*BELOW_LEASE, "lease", "reservation", "statistics", "integrations")

FACE: Final = ("limiter", "pool", "batch", "")
"""What stands for the public face: three rooms, and ``ratelimit`` itself."""

ROOMS: Final[Mapping[str, tuple[str, ...]]] = {
    "errors": (),
    "_clash": ("errors",),
    "locks": ("errors",),
    "weights": ("errors",),
    "limits": ("errors", "weights"),
    "events": ("feedback", "errors", "limits", "locks"),  # records: any room above may report
    "families": (),
    "installation": (),
    "arguments": ("errors", "limits"),
    "budget": ("errors", "limits", "families", "locks"),
    "estimate": ("errors", "limits", "families", "locks", "installation"),
    "feedback": ("errors", "limits"),
    "stores": ("errors", "limits", "locks", "installation"),
    "admission": ("stores", "events", "errors", "limits", "locks"),
    "control": ("admission", "stores", "events", "feedback", "estimate", *GROUND),
    "lease": BELOW_LEASE,
    "reservation": ("lease", *BELOW_LEASE),
    "statistics": BELOW_LEASE,
    "integrations": ("lease", "reservation", *BELOW_LEASE),
    "limiter": BELOW_FACE,
    "pool": ("limiter", *BELOW_FACE),
    "batch": ("limiter", "pool", *BELOW_FACE),
    "telemetry": ("limiter", "events", "statistics", *GROUND),  # looks from outside
    "adapters": ("limiter", "lease", *GROUND),  # called by frameworks, from outside
    "": ("_clash", "limiter", "pool", "batch", "telemetry", *BELOW_FACE),
    "testing": ("admission.clock", "estimate", "errors", "limits", "installation"),
    "commands": ("", "limiter", "pool", "batch", "telemetry", "testing", *BELOW_FACE),
    "cli": ("_clash", "commands", "", *GROUND),
    "__main__": ("cli",),
}
"""What each room may import of the package; "" is ``ratelimit`` itself, the face."""


@dataclass(frozen=True)
class House:
    """What the code shows of its rooms."""

    lines: Mapping[str, int]
    """Lines of each file, by module name without ``ratelimit.``."""
    imports: Mapping[str, frozenset[str]]
    """The modules that each file imports, for types too."""

    def room(self, module: str) -> str:
        """Return the room that a module is in."""
        return module.split(".", maxsplit=1)[0]

    def arrows(self) -> set[tuple[str, str]]:
        """Return which room imports which other."""
        return {
            (self.room(module), self.room(target))
            for module, targets in self.imports.items()
            for target in targets
            if self.room(module) != self.room(target)
        }

    def forbidden(self) -> list[str]:
        """Return the imports that the table does not allow."""
        return [
            f"{module} imports {target or 'ratelimit'}"
            for module, targets in self.imports.items()
            for target in sorted(targets)
            if self.room(target) != self.room(module)
            and not _allowed(target, ROOMS.get(self.room(module), ()))
        ]

    def circle(self) -> list[str]:
        """Return modules that import each other in a circle, or an empty list."""
        done: set[str] = set()

        def visit(module: str, trail: tuple[str, ...]) -> list[str]:
            if module in trail:
                return [*trail[trail.index(module) :], module]
            if module not in done:
                for target in sorted(self.imports.get(module, ())):
                    found = visit(target, (*trail, module))
                    if found:
                        return found
                done.add(module)
            return []

        for module in sorted(self.imports):
            found = visit(module, ())
            if found:
                return found
        return []

    def folders(self) -> dict[str, int]:
        """Return how many files each folder holds besides its `__init__`; "" is the
        root.
        """
        found: dict[str, int] = {}
        for module in self.lines:
            if not (ROOT / module.replace(".", "/")).is_dir():
                folder = module.rpartition(".")[0]
                found[folder] = found.get(folder, 0) + 1
        return found


def _allowed(target: str, rooms: tuple[str, ...]) -> bool:
    if target == "":
        return "" in rooms
    return any(room and (target == room or target.startswith(room + ".")) for room in rooms)


def name_of(path: Path, root: Path = ROOT) -> str:
    """Return a file's module name without ``ratelimit.``; "" for the face."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").removesuffix(".")


@cache
def read(root: Path = ROOT) -> House:
    """Read the house off the code under ``root``."""
    paths = {name_of(path, root): path for path in sorted(root.rglob("*.py"))}
    texts = {module: path.read_text(encoding="utf-8") for module, path in paths.items()}
    return House(
        lines={module: text.count("\n") for module, text in texts.items()},
        imports={module: _imports(text, set(texts)) - {module} for module, text in texts.items()},
    )


def _imports(text: str, modules: set[str]) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            package = node.module or ""
            names = [package]
            inner = [f"{package}.{alias.name}" for alias in node.names]
            inside = [name for name in inner if name.removeprefix("ratelimit.") in modules]
            if inside:
                names = inside + ([package] if len(inside) < len(inner) else [])
        else:
            continue
        for name in names:
            if name == "ratelimit" or name.startswith("ratelimit."):
                found.add(name.removeprefix("ratelimit").removeprefix("."))
    return frozenset(found)


def main() -> None:
    """Print the rooms, their lines and arrows."""
    house = read()
    arrows = house.arrows()
    print(f"{'room':14}{'files':>6}{'lines':>7}  imports")
    for room in ROOMS:
        files = [module for module in house.lines if house.room(module) == room]
        if not files:
            continue
        targets = sorted(target or "(face)" for source, target in arrows if source == room)
        lines = sum(house.lines[module] for module in files)
        print(f"{room or '(face)':14}{len(files):6}{lines:7}  {', '.join(targets) or '-'}")
    up = house.forbidden()
    circle = house.circle()
    print(f"\n{len(arrows)} arrows, {len(up)} upward, {1 if circle else 0} circles")
    for line in up:
        print(f"  upward: {line}")
    if circle:
        print(f"  circle: {' -> '.join(circle)}")
    crowded = {folder: number for folder, number in house.folders().items() if number > 12}
    long = {module: lines for module, lines in house.lines.items() if lines > 300}
    print(f"folders of more than a dozen files: {crowded or 'none'}")
    print(f"files of more than 300 lines: {long or 'none'}")


if __name__ == "__main__":
    main()
