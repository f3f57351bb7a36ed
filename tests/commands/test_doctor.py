"""``mambair doctor``: what the page holds, what it keeps to itself, and that nothing on a machine can stop it."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from mambair.commands import doctor
from mambair.ops import native
from mambair.ops.report import backend_rows

SECTIONS = {
    "mambair": {"version", "folder", "Python"},
    "machine": {"system", "processor", "cores", "free memory"},
    "torch": {"version", "threads", "instructions", "CUDA"},
    "scans on the CPU": {"native"},
    "scans on a GPU": {"native", "triton", "mamba_ssm", "torch"},
    "libraries": set(doctor.LIBRARIES),
    "image formats": {"JPEG", "WebP", "AVIF"},
    "folders": {"compiled scans", "fetched weights", "temporary files", "current folder"},
    "weights": {"sr 4", "denoise 25", "fetched"},
    "untried here": {"tested on"},
    "environment": {"date"},
}


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert {title: set(SECTIONS[title]) <= set(rows) for title, rows in page.items()} == dict.fromkeys(SECTIONS, True)
    assert not [rows for rows in page.values() if "error" in rows]
    assert all(isinstance(value, str) and value for rows in page.values() for value in rows.values())
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == list(SECTIONS)


def test_names_and_homes_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "people" / "jane.doe"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("LOGNAME", "jane.doe")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("MAMBAIR_HOME", "/data/jane.doe/networks")
    monkeypatch.setenv("HF_ENDPOINT", "https://jane:sec/ret@mirror.example/hub?token=secret")
    monkeypatch.chdir(home / "work")
    assert doctor.main([]) == 0
    shown = capsys.readouterr().out
    assert "jane" not in shown and "secret" not in shown and "sec/ret" not in shown and str(home) not in shown
    assert f"current folder   {Path('~', 'work')}, can be written" in shown
    assert "/data/USER/networks" in shown and "https://mirror.example/hub" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/x and /home/ann", "~/x and ~"),
        ("/home/anna/x", "/home/anna/x"),
        ("/scratch/ann/x:/mnt/annex", "/scratch/USER/x:/mnt/annex"),
        ("ann torch", "ann torch"),
        ("a\x1b[0m", r"a\x1b[0m"),
    ],
)
def test_anonymous(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("LOGNAME", "ann")
    assert doctor.anonymous(text) == expected


def test_without_optional_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", none)
    rows = doctor.examine()["libraries"]
    assert rows["timm"] == "not installed (backbones: pip install 'mambair[backbones]')"
    assert all(value.startswith("not installed") for value in rows.values())


def test_what_cannot_be_found_out_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MAMBAIR_SCAN_BACKEND", "nonsense")
    monkeypatch.setenv("MAMBAIR_HOME", "relative")
    assert doctor.main(["--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert "there is no such backend" in page["scans on the CPU"]["error"]
    assert page["folders"]["error"].endswith("FetchError: MAMBAIR_HOME=relative: expected an absolute path")
    assert "version" in page["torch"]


def test_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "would_compile", lambda: True)
    monkeypatch.setattr(native, "load", lambda: pytest.fail("a compiler would run"))
    rows = doctor.examine()["scans on the CPU"]
    assert rows == {"native": doctor.NOT_COMPILED}


def test_both_commands_show_the_same_backends(capsys: pytest.CaptureFixture[str]) -> None:
    from mambair.ops.__main__ import main

    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name:<10} {verdict}" in shown for name, verdict in backend_rows("cpu").items())
