"""``mambair profile`` as a command: output, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mambair.commands import profile
from mambair.profiling import forward_pass
from mambair.profiling.forward_pass import ForwardPass, ForwardPassError, Settings
from mambair.profiling.target import Target

SMALL = ["MambaIR", "--kwargs", '{"embed_dim": 12, "depths": [1]}', "--threads", "1", "--repeats", "1"]


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "profile.json"
    assert profile.main([*SMALL, "--size", "40x24", "--depth", "2", "--json", str(path)]) == 0
    text = capsys.readouterr().out
    assert "input 40x24 -> output 40x24" in text
    assert "layers.0" in text and "latency" in text and "NOT" not in text
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["forward_pass"]["input_size"] == [40, 24]
    assert f"{content['parameters']:,}" in text


def test_counting_alone_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["MambaIR-light-x4", "--size", "16000x9000", "--no-latency"]) == 0
    text = capsys.readouterr().out
    assert "924,492" in text and "latency" not in text


def test_a_pass_that_fails_leaves_the_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(target: Target, settings: Settings) -> ForwardPass:
        assert (settings.dtype, settings.device) == ("bfloat16", "cpu")
        raise ForwardPassError("the network failed: out of patience")

    monkeypatch.setattr(forward_pass, "measure_forward_pass", fail)
    assert profile.main([*SMALL, "--size", "40x24", "--dtype", "bf16", "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert "parameters" in shown.out
    assert "latency and memory were not measured: the network failed: out of patience" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no such file"),
        (["MambaIR", "--size", "12by4"], "must be WIDTHxHEIGHT in pixels, such as 1280x720; got '12by4'"),
        (["MambaIR", "--size", "0x4"], "must be WIDTHxHEIGHT"),
        (["MambaIR", "--kwargs", "{"], "--kwargs must be a JSON object of arguments (Expecting"),
        (["MambaIR", "--kwargs", "3"], "must be a JSON object"),
        (["MambaIR", "--repeats", "0"], "--repeats: must be an integer from 1, got '0'"),
        (["MambaIR", "--kwargs", '{"dim": 3}'], "cannot be built"),
        (["MambaIR", "--device", "cuda:77"], "device: cuda:77 is not available; this machine has cpu"),
    ],
    ids=["nothing", "size", "no-size", "json", "no-object", "repeats", "arguments", "device"],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        profile.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
