"""The JSON schema: current, complete, named by every option file, and of one opinion with the checks of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from mambair.options import schema
from mambair.options.base_file import read_option_file
from mambair.options.json_schema import described_arguments, of_annotation
from mambair.options.yaml_reader import read_yaml_file
from mambair.registry import DATASET_REGISTRY

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = sorted(path.relative_to(OPTIONS).as_posix() for path in OPTIONS.rglob("*.yml"))


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return json.loads((OPTIONS / "schema.json").read_text(encoding="utf-8"))


IN_A_FRESH_PROCESS = """
import json
from mambair.options.json_schema import option_file_schema
from mambair.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
registries = {"arch": ARCH_REGISTRY, "dataset": DATASET_REGISTRY, "loss": LOSS_REGISTRY, "metric": METRIC_REGISTRY}
print(json.dumps({"schema": option_file_schema(), "names": {key: each.keys() for key, each in registries.items()}}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What a process has that no other test has registered classes in."""
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=OPTIONS.parent)
    return json.loads(done.stdout)


def branches(section: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {branch["if"]["properties"]["type"]["const"]: branch["then"] for branch in section["allOf"]}


def test_it_is_current(shipped: dict[str, Any], fresh: dict[str, Any]) -> None:
    assert fresh["schema"] == shipped, "run python scripts/generate_options_docs.py"


@pytest.mark.parametrize("name", FILES)
def test_every_option_file_names_it(name: str) -> None:
    first = (OPTIONS / name).read_text(encoding="utf-8").splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert ((OPTIONS / name).parent / first.removeprefix(prefix)).resolve() == OPTIONS / "schema.json"


def test_every_key_and_every_class_is_in_it(shipped: dict[str, Any], fresh: dict[str, Any]) -> None:
    top, names = shipped["properties"], fresh["names"]
    assert schema.Options.model_fields.keys() <= top.keys()
    assert schema.TrainOptions.model_fields.keys() <= top["train"]["properties"].keys()
    assert schema.ValOptions.model_fields.keys() <= top["val"]["properties"].keys()
    (phases,) = top["datasets"]["patternProperties"].values()
    found = branches(phases)
    assert sorted(found) == names["dataset"]
    for name in names["dataset"]:
        dataset = DATASET_REGISTRY.get(name)
        assert dataset.Options.model_fields.keys() <= found[name]["properties"].keys()
        assert schema.LoaderOptions.model_fields.keys() <= found[name]["properties"].keys()
        assert found[name]["additionalProperties"] is False
    assert sorted(branches(top["network_g"])) == names["arch"]
    assert sorted(branches(top["train"]["properties"]["pixel_opt"]["anyOf"][0])) == names["loss"]
    assert sorted(branches(top["val"]["properties"]["metrics"]["additionalProperties"])) == names["metric"]
    assert sorted(branches(top["train"]["properties"]["scheduler"])) == sorted(schema.SCHEDULES)


def test_keys_are_described_where_an_editor_shows_them(shipped: dict[str, Any]) -> None:
    sections = [
        shipped["properties"],
        *(shipped["properties"][key]["properties"] for key in ("train", "val", "logger")),
    ]
    for properties in sections:
        for key, value in properties.items():
            assert value.get("description"), key


class Inner(BaseModel):
    number: int = Field(ge=1, description="A number.")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (int | None, {"type": ["integer", "null"]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (list[float], {"type": "array", "items": {"type": "number"}}),
        (tuple[int, int], {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
        (dict[str, int], {"type": "object"}),
        (schema.Count, {"type": "integer", "minimum": 1}),
        (schema.Count | None, {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}),
        (Any, {}),
        (int | Any, {}),
        (
            Inner,
            {
                "type": "object",
                "properties": {"number": {"type": "integer", "minimum": 1, "description": "A number."}},
                "additionalProperties": False,
                "required": ["number"],
            },
        ),
    ],
    ids=str,
)
def test_types(annotation: Any, expected: dict[str, Any]) -> None:
    assert of_annotation(annotation) == expected


def test_descriptions_come_from_the_docstring() -> None:
    def call(first: int, second: int, third: int) -> None:
        """Do something.

        Args:
            first, second: two numbers,
                of which much could be said.
            third: another one.

        Raises:
            ValueError: never.
        """

    both = "two numbers, of which much could be said."
    assert described_arguments(call) == {"first": both, "second": both, "third": "another one."}


@pytest.mark.parametrize("name", FILES)
def test_every_option_file_conforms(name: str, shipped: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for read in (read_yaml_file, read_option_file):
        faults = jsonschema.Draft7Validator(shipped).iter_errors(read(OPTIONS / name).data)
        assert [f"{list(fault.absolute_path)}: {fault.message}" for fault in faults] == []


REQUIRED = [("name",), ("train", "total_iter"), ("train", "optim_g", "lr"), ("datasets", "train", "dataroot_gt")]


@pytest.mark.parametrize("keys", [*REQUIRED, ("network_g", "type"), ("train", "scheduler", "milestones")], ids=".".join)
def test_only_a_file_with_a_base_may_leave_out_a_required_key(keys: tuple[str, ...], shipped: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    data = read_option_file(OPTIONS / "train" / "train_MambaIR_SR_x2.yml").data
    section = data
    for key in keys[:-1]:
        section = section[key]
    del section[keys[-1]]
    (fault,) = jsonschema.Draft7Validator(shipped).iter_errors(data)
    assert fault.message == f"'{keys[-1]}' is a required property"
    assert not list(jsonschema.Draft7Validator(shipped).iter_errors({"base": "other.yml", **data}))


FAULTS: dict[str, tuple[tuple[str, ...], Any]] = {
    "unknown key": (("manual_sed",), 1),
    "wrong type": (("train", "total_iter"), "ten"),
    "too small": (("train", "total_iter"), 0),
    "key of a data set": (("datasets", "train", "gt_sise"), 48),
    "key of another data set": (("datasets", "train", "sigma"), 25),
    "phase": (("datasets", "training"), {"type": "BicubicDataset"}),
    "argument of a network": (("network_g", "embed_dims"), 8),
    "type of an argument": (("network_g", "depths"), 6),
    "argument of a loss": (("train", "pixel_opt", "los_weight"), 1),
    "argument of a schedule": (("train", "scheduler", "milestone"), [5]),
    "optimiser": (("train", "optim_g", "type"), "Lookahead"),
    "precision": (("train", "amp"), "fp8"),
    "metric": (("val", "metrics", "psnr", "crop_boarder"), 4),
    "better": (("val", "metrics", "psnr", "better"), "more"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found(name: str, shipped: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    data = read_option_file(OPTIONS / "train_SR_x4.yml").data
    keys, value = FAULTS[name]
    section = data
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    assert list(jsonschema.Draft7Validator(shipped).iter_errors(data))
