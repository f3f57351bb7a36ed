"""The Triton kernels compile for GPUs that are not here, and no numbers pass between the threads of their scans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from mambair.ops.triton_kernels import launch

FORWARD = {"GIVEN": False, "BIASED": True, "SOFTPLUS": True, "INDEXED": False, "NARROW": False, "FLAT": True,
           "TOKENS": launch.TOKENS, "CHANNELS": launch.CHANNELS}  # fmt: skip
GIVEN = FORWARD | {"GIVEN": True, "INDEXED": True}
MORE = {"GATED": False, "SKIP": True, "CHUNK_TILES": launch.CHUNK_TILES}
PACKING = {"INDEXED": False, "NARROW": False, "FLAT": True, "TOKENS": launch.TOKENS, "BLOCK": launch.PACK_ROWS}
CARRY = {"BACKWARDS": True, "STEPS": launch.CARRY_STEPS, "CHANNELS": launch.CHANNELS}

# kernel, constants
CASES = {
    "ends": ("forward.segment_ends", FORWARD),
    "outputs": ("forward.outputs", FORWARD | MORE | {"SAVE": True}),
    "outputs-of-sequences": ("forward.outputs", GIVEN | MORE | {"GATED": True, "SAVE": False}),
    "starts": ("backward.segment_starts", FORWARD | {"GATED": False}),
    "gradients": ("backward.gradients", FORWARD | MORE),
    "gradients-of-sequences": ("backward.gradients", GIVEN | MORE | {"GATED": True}),
    "pack": ("packing.pack", PACKING),
    "unpack": ("packing.unpack", PACKING),
    "carry": ("segment_scan.carry", CARRY),
    "add": ("packing.add_directions", {"BLOCK": launch.ADD_BLOCK}),
}
QUICK = ("outputs", "carry")

COMPILE = """
import importlib, json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernel, constants, half, target = json.loads(sys.argv[1])
module, name = kernel.split(".")
function = getattr(importlib.import_module("mambair.ops.triton_kernels." + module), name)
number = "*bf16" if half else "*fp32"
pointers = "x delta gate packed rates weight bias skip slots totals y states grad scratch dx ddelta dgate dpacked"
pointers = dict.fromkeys([*pointers.split(), "dparameters", "source", "target"], "*fp32")
pointers |= dict.fromkeys(["x", "delta", "gate", "y", "grad", "source"], number) | {"index": "*i64"}
pointers |= {"parts": "*fp32", "total": "*fp32"} if name == "add_directions" else {}
whole = {"directions": "i64"}
signature = {
    p.name: "constexpr" if p.name in constants else pointers.get(p.name) or whole.get(p.name, "i32")
    for p in function.params
}
aligned = {(p.num,): [["tt.divisibility", 16]] for p in function.params if signature[p.name].startswith("*")}
compiled = triton.compile(
    ASTSource(function, signature, constants, aligned),
    target=GPUTarget("cuda", target, 32),
    options={"num_warps": 4 if name == "add_directions" else 1, "enable_fp_fusion": True},
)
ptx, code = compiled.asm["ptx"], compiled.asm["cubin"]
print(json.dumps({"size": len(code), "shuffles": ptx.count("shfl."), "shared": ptx.count("ld.shared")}))
"""


def compiled(case: str, target: int, repository, tmp_path, half: bool = False) -> dict[str, int]:
    """Sizes of the machine code; in a process of its own, with a cache of its own."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(repository)}
    request = json.dumps([*CASES[case], half, target])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE, request],
        env=environment, cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptxas" in done.stderr and "not found" in done.stderr:
        pytest.skip("this Triton has no assembler")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def params(cases, targets):
    return [
        pytest.param(case, target, id=f"{case}-sm{target}", marks=() if quick else pytest.mark.slow)
        for case in cases
        for target in targets
        for quick in [case in QUICK and target == 90]
    ]


@pytest.mark.parametrize(("case", "target"), params(CASES, (80, 90, 100)))
def test_compiles(case, target, repository, tmp_path) -> None:
    found = compiled(case, target, repository, tmp_path)
    assert found["size"] > 0
    if "gradients" not in case and case not in ("pack", "unpack"):
        # Every thread has its channel to itself: what passes between threads would be a layout gone wrong.
        assert (found["shuffles"], found["shared"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_compiles_for_half_precision(case, repository, tmp_path) -> None:
    assert compiled(case, 90, repository, tmp_path, half=True)["size"] > 0
