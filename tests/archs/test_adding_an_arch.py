"""The example of docs/adding_an_arch.md is registered, recognised and loaded as the page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import mambair
from mambair.weights.checkpoint import write_checkpoint
from mambair.registry import ARCH_REGISTRY
import tiny_sr_arch

net = ARCH_REGISTRY.get("TinySR")(upscale=3, embed_dim=5)
write_checkpoint(sys.argv[1] + "/weights.safetensors", net.state_dict())
loaded = mambair.load(sys.argv[1] + "/weights.safetensors")
print(type(loaded).__name__, tuple(loaded(torch.rand(1, 3, 4, 5)).shape))
"""


def test_the_example(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "adding_an_arch.md").read_text(encoding="utf-8")
    (tmp_path / "tiny_sr_arch.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    command = [sys.executable, "-c", USE, str(tmp_path)]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert result.stdout.split("\n")[0] == "TinySR (1, 3, 12, 15)", result.stderr
