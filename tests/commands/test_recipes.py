"""Option files by name: ``mambair train -opt train_SR_x4`` anywhere."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from mambair.cli import main
from mambair.commands.recipes import option_file, recipe_folder, recipes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("train_SR_x4", "options/train_SR_x4.yml"),
        ("train_SR_x4.yml", "options/train_SR_x4.yml"),
        ("test_MambaIR_lightSR_x2", "options/test/test_MambaIR_lightSR_x2.yml"),
    ],
)
def test_recipes_are_found_by_name(given: str, expected: str, repository: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert option_file(given) == repository / expected
    Path(given).write_text("name: mine\n", encoding="utf-8")
    assert option_file(given) == Path(given)  # a file in the working folder comes first


@pytest.mark.parametrize(
    "given", ["mine/train_SR_x4.yml", "/absent/train_SR_x4", "../train_SR_x4", "absent.yml", "", "."]
)
def test_paths_stay_paths(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert option_file(given) == Path(given)


def test_an_unknown_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        option_file("qqqq")
    assert str(caught.value) == f"qqqq: no such file, and no recipe of that name in {recipe_folder()}"
    with pytest.raises(SystemExit, match="2"):
        main(["train", "-opt", "train_SRx4"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mambair train: error: argument -opt/--opt: train_SRx4: no such file, and no recipe of that")
    assert "; the nearest recipes: train_SR_x4" in said


def test_names_of_recipes_are_unique() -> None:
    assert len(recipes()) == len(list(recipe_folder().rglob("*.yml")))
