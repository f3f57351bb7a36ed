"""The import graph: layers import downward only, no circle, and the shells use public names only.

Imports are read from the source (``ast``), so those inside functions count, too. Imports under ``TYPE_CHECKING`` may
close a circle, as they never run, but may not point upward. The registry fills itself from names of modules given as
text; that is its purpose and the one upward reference there is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

# The first name below the package decides the layer; ROOT is the package's own __init__, which looks names up lazily.
ROOT = "__init__"
LAYERS: dict[str, int] = {
    **dict.fromkeys(("ops", "registry", "atomic_file", "machine", "process_memory"), 0),
    **dict.fromkeys(("layers",), 1),
    **dict.fromkeys(("archs", "backbones"), 2),
    **dict.fromkeys(("data", "losses", "metrics", "checkpoint", "tiling", "options", "weights"), 3),
    **dict.fromkeys(("published", "tables"), 3),
    **dict.fromkeys(("models", "engine", "evaluation", "benchmark", "loading", "restorer", "restoring", ROOT), 4),
    **dict.fromkeys(("spandrel", "profiling", "measuring"), 4),
    **dict.fromkeys(("train", "test", "cli", "commands", "__main__"), 5),
}
SHELLS = ("inference", "scripts", "benchmarks")  # layer 6
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


def private_names(source: str, package: str) -> list[str]:
    """Names with a leading underscore that a shell takes from the package, by import or by attribute."""
    found = []
    bound: set[str] = set()
    for each in imports_of(source, "script", is_package=False):
        if each.module.split(".")[0] != package:
            continue
        parts = [*each.module.split("."), *([each.name] if each.name else [])]
        found += [f"line {each.line}: {'.'.join(parts)}" for part in parts if _is_private(part)]
        bound.add(each.name or package)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            written = ast.unparse(node)
            if written.split(".")[0] in bound:
                found.append(f"line {node.lineno}: {written}")
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@pytest.fixture(scope="module")
def house(repository: Path) -> ImportGraph:
    return ImportGraph(repository / "mambair", "mambair")


def test_every_module_has_its_layer(house: ImportGraph) -> None:
    assert len(house.sources) > 20, "the package was not found"
    assert not house.unplaced(), "\n".join(house.unplaced())


def test_imports_go_downward_only(house: ImportGraph) -> None:
    assert not house.upward(), "\n".join(house.upward())


def test_no_circle(house: ImportGraph) -> None:
    assert house.circle() is None, f"a circle of imports: {house.circle()}"


def test_arch_files_are_reached_through_the_registry(house: ImportGraph) -> None:
    assert not house.to_arch_files(), "\n".join(house.to_arch_files())


def test_the_package_does_not_import_its_shells(house: ImportGraph) -> None:
    assert not house.leaving(), "\n".join(house.leaving())


def test_shells_use_public_names_only(repository: Path) -> None:
    breaches = [
        f"{path.relative_to(repository)}, {breach} is private to the package"
        for shell in SHELLS
        for path in sorted((repository / shell).rglob("*.py"))
        for breach in private_names(path.read_text(encoding="utf-8"), "mambair")
    ]
    assert not breaches, "\n".join(breaches)


SOUND = {
    "house/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.loading import load\n",
    "house/registry.py": "import importlib\nimportlib.import_module('house.models')\n",
    "house/ops/__init__.py": "from house.ops.scan import scan\n",
    "house/ops/scan.py": "from house.ops import checks\ndef scan(): pass\n",
    "house/ops/checks.py": "import torch\n",
    "house/layers/__init__.py": "from house.ops import scan\nfrom house import __version__\n",
    "house/loading.py": "def load():\n    from house.archs import detectors\n",
    "house/archs/detectors.py": "",
}


def graph_of(tmp_path: Path, files: Mapping[str, str]) -> ImportGraph:
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return ImportGraph(tmp_path / "house", "house")


def test_a_sound_house_passes(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, SOUND)
    assert graph.circle() is None
    assert [*graph.unplaced(), *graph.upward(), *graph.to_arch_files(), *graph.leaving()] == []


BREACHES = {
    "upward": (
        {"house/layers/x.py": "import house.archs.detectors\n"},
        "house.layers.x (layer 1) -> house.archs.detectors (layer 2), line 1",
    ),
    "upward-in-a-function": (
        {"house/ops/x.py": "def f():\n    from house.layers import y\n"},
        "house.ops.x (layer 0) -> house.layers (layer 1), line 2",
    ),
    "upward-for-types": (
        {"house/ops/x.py": "import typing\nif typing.TYPE_CHECKING:\n    from house.loading import load\n"},
        "house.ops.x (layer 0) -> house.loading (layer 4), line 3",
    ),
    "upward-relative": ({"house/tiling.py": "from .models import y\n", "house/models/__init__.py": ""}, "house.models"),
    "upward-to-the-root": (
        {"house/ops/x.py": "import house\nhouse.load()\n"},
        "house.ops.x (layer 0) -> house (layer 4), line 1",
    ),
    "circle": (
        {
            "house/ops/a.py": "from house.ops.b import f\n",
            "house/ops/b.py": "def f():\n    from house.ops import c\n",
            "house/ops/c.py": "import house.ops.a\n",
        },
        "house.ops.a -> house.ops.b -> house.ops.c -> house.ops.a",
    ),
    "circle-through-init": (
        {"house/ops/checks.py": "from house.ops import scan\n"},
        "house.ops -> house.ops.scan -> house.ops.checks -> house.ops",
    ),
    "unplaced": ({"house/newcomer.py": ""}, "place 'newcomer' in LAYERS"),
    "arch-file": (
        {"house/loading.py": "from house.archs.net_arch import Net\n", "house/archs/net_arch.py": ""},
        "house.loading -> house.archs.net_arch, line 1: take it from the registry",
    ),
    "shell": ({"house/loading.py": "import scripts.convert\n"}, "house.loading -> scripts.convert, line 1"),
}


@pytest.mark.parametrize(("files", "text"), BREACHES.values(), ids=BREACHES.keys())
def test_breaches_are_found_and_named(tmp_path: Path, files: dict[str, str], text: str) -> None:
    graph = graph_of(tmp_path, SOUND | files)
    found = [*graph.unplaced(), *graph.upward(), *graph.to_arch_files(), *graph.leaving(), graph.circle() or ""]
    assert text in "\n".join(found)


@pytest.mark.parametrize(
    ("source", "breaches"),
    [
        ("import mambair\nmambair.load('x').eval()\nmambair.__version__\n", []),
        ("from mambair.restorer import Restorer\nimport argparse\nargparse._SubParsersAction\n", []),
        ("from mambair.restorer import _split\n", ["line 1: mambair.restorer._split"]),
        ("import mambair._kernels\n", ["line 1: mambair._kernels"]),
        ("def f():\n    from mambair import tiling\n    tiling._strips()\n", ["line 3: tiling._strips"]),
    ],
    ids=["public", "others", "name", "module", "attribute"],
)
def test_private_names_are_found(source: str, breaches: list[str]) -> None:
    assert private_names(source, "mambair") == breaches
