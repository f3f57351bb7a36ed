"""The import graph: layers import downward only, no circle, and the shells use public names only."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest


def load_import_graph() -> ModuleType:
    """``scripts/import_graph.py``: it reads the graph and holds the table of the layers."""
    path = Path(__file__).resolve().parents[1] / "scripts" / "import_graph.py"
    spec = importlib.util.spec_from_file_location("import_graph", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["import_graph"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


script = load_import_graph()
ImportGraph = script.ImportGraph


def private_names(source: str, package: str) -> list[str]:
    """Names with a leading underscore that a shell takes from the package, by import or by attribute."""
    found = []
    bound: set[str] = set()
    for each in script.imports_of(source, "script", is_package=False):
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
        for shell in script.SHELLS
        for path in sorted((repository / shell).rglob("*.py"))
        for breach in private_names(path.read_text(encoding="utf-8"), "mambair")
    ]
    assert not breaches, "\n".join(breaches)


SOUND = {
    "house/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    from house.weights.loading import load\n",
    "house/registry.py": "import importlib\nimportlib.import_module('house.models')\n",
    "house/ops/__init__.py": "from house.ops.scan import scan\n",
    "house/ops/scan.py": "from house.ops import checks\ndef scan(): pass\n",
    "house/ops/checks.py": "import torch\n",
    "house/layers/__init__.py": "from house.ops import scan\nfrom house import __version__\n",
    "house/weights/loading.py": "def load():\n    from house.archs import detectors\n",
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
        {"house/ops/x.py": "import typing\nif typing.TYPE_CHECKING:\n    from house.weights.loading import load\n"},
        "house.ops.x (layer 0) -> house.weights.loading (layer 3), line 3",
    ),
    "upward-relative": (
        {"house/inference/tiling.py": "from ..models import y\n", "house/models/__init__.py": ""},
        "house.models",
    ),
    "upward-to-the-root": (
        {"house/ops/x.py": "import house\nhouse.load()\n"},
        "house.ops.x (layer 0) -> house (layer 5), line 1",
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
        {"house/weights/x.py": "from house.archs.net_arch import Net\n", "house/archs/net_arch.py": ""},
        "house.weights.x -> house.archs.net_arch, line 1: take it from the registry",
    ),
    "shell": (
        {"house/weights/loading.py": "import scripts.convert\n"},
        "house.weights.loading -> scripts.convert, line 1",
    ),
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
        ("from mambair.inference.restorer import Restorer\nimport argparse\nargparse._SubParsersAction\n", []),
        ("from mambair.inference.restorer import _split\n", ["line 1: mambair.inference.restorer._split"]),
        ("import mambair._kernels\n", ["line 1: mambair._kernels"]),
        ("def f():\n    from mambair.inference import tiling\n    tiling._strips()\n", ["line 3: tiling._strips"]),
    ],
    ids=["public", "others", "name", "module", "attribute"],
)
def test_private_names_are_found(source: str, breaches: list[str]) -> None:
    assert private_names(source, "mambair") == breaches


def test_the_table_places_folders_and_the_few_files_at_the_top(repository: Path) -> None:
    at_the_top = {path.stem for path in (repository / "mambair").glob("*.py")}
    assert at_the_top == set(script.FILES) == {"__init__", "__main__", "cli", "registry", "train", "test"}
    rooms = {path.parent.name for path in (repository / "mambair").glob("*/__init__.py")}
    assert rooms == {room for rooms in script.ROOMS for room in rooms}


def test_figures_count_rooms_and_circles(tmp_path: Path) -> None:
    files = {"house/a/x.py": "import house.b.y\n", "house/b/y.py": "import house.c.z\n", "house/c/z.py": ""}
    assert script.figures(graph_of(tmp_path, files)) == {
        "lines": 2, "modules": 3, "names at the top": 3, "arrows between them": 2, "of these in a circle": 0,
    }  # fmt: skip
    files["house/c/z.py"] = "import house.b.w\n"
    found = script.figures(graph_of(tmp_path, files | {"house/b/w.py": ""}))
    assert (found["arrows between them"], found["of these in a circle"]) == (3, 2)
