"""docs/api.md: every public name is where the page says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
ROWS = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)


def test_the_page_has_rows() -> None:
    assert len(ROWS) >= 9


@pytest.mark.parametrize(("module", "text"), ROWS, ids=[module for module, _ in ROWS])
def test_names_are_where_the_page_says(module: str, text: str) -> None:
    if module == "mambair.weights.spandrel":
        pytest.importorskip("spandrel")
    names = re.findall(r"`([\w.]+)", text)
    assert names
    for name in names:
        if name.startswith("mambair."):
            target, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(target), attribute), name
        else:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_example_of_the_page(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    monkeypatch.chdir(repository)
    found: dict[str, Any] = {}
    exec(example, found)  # noqa: S102 - our own page
    assert found["small"].conv_first.out_channels == 12
    assert found["net"].upscale == 4 and not found["net"].training
