"""JSON that is written has no NaN and no Infinity, which other programs cannot read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

# calls whose text stays within one run, or is hashed
WITHIN = {
    "mambair/evaluation/score_cache.py",
    "mambair/folders/resume.py",
    "mambair/system/distributed.py",
    "scripts/convert_checkpoint.py",
    "scripts/generate_options_docs.py",
    "scripts/package_weights.py",
}


def calls(path: Path) -> Iterator[ast.Call]:
    """Each call of ``json.dump`` or ``json.dumps`` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
            yield node


def test_every_writer_refuses_nan(repository: Path) -> None:
    found = {}
    for folder in ("mambair", "scripts", "benchmarks", "inference"):
        for path in sorted((repository / folder).rglob("*.py")):
            name = path.relative_to(repository).as_posix()
            for call in calls(path):
                found[f"{name}:{call.lineno}"] = name in WITHIN or "allow_nan=False" in ast.unparse(call)
    # jsonable() turns them into text
    found = {place: is_strict for place, is_strict in found.items() if not place.startswith("mambair/training/logs.py")}
    assert len(found) > 8
    assert [place for place, is_strict in found.items() if not is_strict] == []
