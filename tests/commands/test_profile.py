"""``mambair profile`` as a command: output, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mambair.commands import profile

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


def test_a_pass_that_fails_leaves_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main([*SMALL, "--size", "40x24", "--device", "cuda:77"]) == 1
    shown = capsys.readouterr()
    assert "parameters" in shown.out and "latency and memory were not measured" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no such file"),
        (["MambaIR", "--size", "12by4"], "must be WIDTHxHEIGHT in pixels, such as 1280x720; found '12by4'"),
        (["MambaIR", "--size", "0x4"], "must be WIDTHxHEIGHT"),
        (["MambaIR", "--kwargs", "{"], "--kwargs is not JSON"),
        (["MambaIR", "--kwargs", "3"], "must be a JSON object"),
        (["MambaIR", "--repeats", "0"], "must be a whole number from 1, found '0'"),
        (["MambaIR", "--kwargs", '{"dim": 3}'], "cannot be built"),
    ],
    ids=["nothing", "size", "no-size", "json", "no-object", "repeats", "arguments"],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        profile.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
