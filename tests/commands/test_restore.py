from __future__ import annotations

import pytest

from mambair.commands import restore


@pytest.mark.parametrize("task", ["jpeg", "real_denoise"])
def test_a_task_without_packaged_weights_says_so(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        restore.main(["-i", "x", "-o", "y"], task=task)
    assert stopped.value.code == 2
    expected = f"no weights are packaged for {task} (there are: denoise 25, sr 4); name a file: --weights FILE"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "denoise", "-s", "2"], "--scale says nothing about the task denoise"),
        (["--sigma", "25"], "--sigma says nothing about the task sr"),
        (["--task", "nothing"], "invalid choice: 'nothing'"),
    ],
    ids=["scale", "sigma", "task"],
)
def test_arguments_that_do_not_belong_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        restore.main(["-i", "x", "-o", "y", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
