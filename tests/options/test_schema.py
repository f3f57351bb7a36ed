"""The schema agrees with the code that reads the options: optimisers, schedules, models."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from mambair.models.optimizers import OPTIMIZERS
from mambair.models.schedules import SCHEDULES as BUILDERS
from mambair.options import components, schema


def test_the_schema_knows_the_optimisers_of_the_engine() -> None:
    assert set(components.OPTIMIZERS) == set(OPTIMIZERS)


def test_the_schema_knows_the_schedules_of_the_engine() -> None:
    assert set(schema.SCHEDULES) == set(BUILDERS)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_schedule_has_the_arguments_of_its_function(name: str) -> None:
    assert set(schema.SCHEDULES[name].model_fields) == set(inspect.signature(BUILDERS[name]).parameters)


def test_every_key_is_described() -> None:
    sections = [
        value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, schema.Section)
    ]
    for section in sections:
        for key, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{key}"


def test_the_document_is_current(repository: Path) -> None:
    script = repository / "scripts" / "generate_options_docs.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
