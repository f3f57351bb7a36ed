"""Read the import graph of the package from its sources, and print the figures of docs/architecture.md.

    python scripts/import_graph.py                    # this checkout
    python scripts/import_graph.py --package OTHER/mambair

``ROOMS`` is the table of the layers; ``tests/test_layers_of_the_house.py`` fails where an import goes upward.
Imports are read from the source (``ast``), so those inside functions count, too. Imports under ``TYPE_CHECKING`` may
close a circle, as they never run, but may not point upward. The registry fills itself from names of modules given as
text; that is its purpose and the one upward reference there is.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = "__init__"  # the package's own __init__, which looks public names up when they are first used
# One folder, one layer: the first name below the package decides. Files stand only where they are named here.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("ops", "system"),
    ("layers",),
    ("archs", "backbones"),
    ("weights", "losses", "metrics", "images", "options"),
    ("inference", "data", "data_tools"),
    ("models", "training", "evaluation", "folders", "profiling"),
    ("commands",),
)
FILES = {"registry": 0, ROOT: 5, "__main__": 6, "cli": 6, "train": 6, "test": 6}
LAYERS: dict[str, int] = FILES | {room: layer for layer, rooms in enumerate(ROOMS) for room in rooms}
SHELLS = ("inference", "scripts", "benchmarks")  # layer 7, folders of the repository
OUTSIDE = (*SHELLS, "tests")  # what the package itself may never import
FREE_NAMES = ("__version__",)  # of the package's __init__: a constant, no module behind it


@dataclass(frozen=True)
class Import:
    """One import statement's target, as written, and where it stands."""

    module: str
    name: str | None
    line: int
    never_runs: bool  # under TYPE_CHECKING


@dataclass(frozen=True)
class Edge:
    importer: str
    imported: str
    line: int
    never_runs: bool


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import statement of a module, wherever it stands; relative ones as absolute names."""
    tree = ast.parse(source)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, node.lineno, id(node) in guarded)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(base, alias.name, node.lineno, id(node) in guarded)


class ImportGraph:
    """Modules of one package and their imports of each other."""

    def __init__(self, folder: Path, package: str) -> None:
        self.package = package
        self.sources: dict[str, str] = {}
        self.packages: set[str] = set()
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join([package, *(parts[:-1] if is_package else parts)])
            self.sources[name] = path.read_text(encoding="utf-8")
            if is_package:
                self.packages.add(name)
        self.imports = {
            name: list(imports_of(source, name, is_package=name in self.packages))
            for name, source in self.sources.items()
        }
        self.edges = [edge for name in self.sources for edge in self._edges_of(name)]

    def _edges_of(self, importer: str) -> Iterator[Edge]:
        for found in self.imports[importer]:
            if found.module.split(".")[0] == self.package:
                target = self._target(found)
                if target is not None and target != importer:
                    yield Edge(importer, target, found.line, found.never_runs)

    def _target(self, found: Import) -> str | None:
        """The module an import statement means: the submodule, unless the package's __init__ binds that name itself."""
        if found.module == self.package and found.name in FREE_NAMES:
            return None
        below = f"{found.module}.{found.name}"
        if found.name is not None and below in self.sources and found.name not in self._bound_in(found.module):
            return below
        return found.module

    def _bound_in(self, package: str) -> set[str]:
        tree = ast.parse(self.sources.get(package, ""))
        imported = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
        return {alias.asname or alias.name for alias in imported}

    def layer(self, module: str) -> int | None:
        """The layer of a module, None where the table above does not know it."""
        parts = module.split(".")
        return LAYERS.get(parts[1] if len(parts) > 1 else ROOT)

    def unplaced(self) -> list[str]:
        return [
            f"{module} is in no layer: place {module.split('.')[1]!r} in LAYERS and in docs/architecture.md"
            for module in self.sources
            if self.layer(module) is None
        ]

    def upward(self) -> list[str]:
        breaches = []
        for edge in self.edges:
            above, below = self.layer(edge.imported), self.layer(edge.importer)
            if above is not None and below is not None and above > below:
                breaches.append(
                    f"{edge.importer} (layer {below}) -> {edge.imported} (layer {above}), line {edge.line}: "
                    "imports go downward only"
                )
        return breaches

    def to_arch_files(self) -> list[str]:
        return [
            f"{edge.importer} -> {edge.imported}, line {edge.line}: take it from the registry, never from one arch file"
            for edge in self.edges
            if edge.imported.endswith("_arch") and (self.layer(edge.importer) or 0) >= 3
        ]

    def leaving(self) -> list[str]:
        return [
            f"{module} -> {found.module}, line {found.line}: the package may not import the shells around it"
            for module, imports in self.imports.items()
            for found in imports
            if found.module.split(".")[0] in OUTSIDE
        ]

    def circle(self) -> str | None:
        """The first circle of imports that run, as a chain."""
        following: dict[str, list[str]] = {}
        for edge in self.edges:
            if not edge.never_runs:
                following.setdefault(edge.importer, []).append(edge.imported)
        done: set[str] = set()
        for start in self.sources:
            chain = _find_circle(start, following, [], done)
            if chain:
                return " -> ".join(chain)
        return None


def _find_circle(module: str, following: Mapping[str, list[str]], chain: list[str], done: set[str]) -> list[str]:
    if module in chain:
        return [*chain[chain.index(module) :], module]
    if module in done:
        return []
    for imported in following.get(module, []):
        found = _find_circle(imported, following, [*chain, module], done)
        if found:
            return found
    done.add(module)
    return []


def figures(graph: ImportGraph) -> dict[str, int]:
    """What docs/architecture.md states of a package: its size, rooms, and the imports between rooms."""
    depth = graph.package.count(".") + 1

    def room(module: str) -> str:
        parts = module.split(".")
        return parts[depth] if len(parts) > depth else ROOT

    following: dict[str, set[str]] = {}
    for edge in graph.edges:
        if room(edge.importer) != room(edge.imported):
            following.setdefault(room(edge.importer), set()).add(room(edge.imported))
    return {
        "lines": sum(source.count("\n") for source in graph.sources.values()),
        "modules": len(graph.sources),
        "names at the top": len({room(module) for module in graph.sources}),
        "arrows between them": sum(map(len, following.values())),
        "of these in a circle": sum(
            name in _reachable(target, following) for name in following for target in following[name]
        ),
    }


def _reachable(start: str, following: Mapping[str, set[str]]) -> set[str]:
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += following.get(name, ())
    return seen


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print size and imports of the package, room by room.")
    package = Path(__file__).resolve().parents[1] / "mambair"
    parser.add_argument("--package", type=Path, default=package, metavar="FOLDER", help="default: this checkout's")
    arguments = parser.parse_args(argv)
    graph = ImportGraph(arguments.package, arguments.package.name)
    for name, value in figures(graph).items():
        print(f"{name:22} {value:,}")
    print(f"{'arrows upward':22} {len(graph.upward())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
