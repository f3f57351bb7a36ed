"""Training from an option file, end to end: on the example images, resumed, killed, interrupted, and refused."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mambair.images.files import read_size
from mambair.options import load_options
from mambair.system.devices import available_devices
from mambair.train import main
from mambair.training.experiment import list_states
from mambair.training.run import train

OPTIONS = """
name: tiny
model_type: RestorationModel
scale: 2
num_gpu: 0
manual_seed: 3
datasets:
  train:
    type: BicubicDataset
    dataroot_gt: {gt}
    gt_size: 16
    use_hflip: true
    use_rot: true
    total_batch_size: 2
    num_worker_per_gpu: {workers}
  val:
    name: example
    type: BicubicDataset
    dataroot_gt: {val}
network_g:
  type: MambaIR
  upscale: 2
  upsampler: pixelshuffledirect
  embed_dim: 8
  depths: [1]
  d_state: 2
  mlp_ratio: 1.0
train:
  total_iter: 10
  ema_decay: 0.9
  optim_g: {{type: AdamW, lr: 2e-3, weight_decay: 1e-4}}
  scheduler: {{type: MultiStepLR, milestones: [7]}}
  pixel_opt: {{type: L1Loss}}
val:
  val_freq: 1000
  metrics:
    psnr: {{type: calculate_psnr, crop_border: 2}}
logger:
  print_freq: 1
  save_checkpoint_freq: 5
"""


@pytest.fixture(scope="session")
def images(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small cuts of the example images, for training (train/) and validation (val/)."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    for name, count in (("train", 3), ("val", 1)):
        (root / name).mkdir()
        for path in sorted((repository / "datasets" / "example" / "gt").iterdir())[:count]:
            Image.open(path).convert("RGB").crop((0, 0, 32, 24)).save(root / name / path.name)
    return root


@pytest.fixture
def option_file(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An option file in a working folder of its own, where experiments/ will be."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yml"
    path.write_text(OPTIONS.format(gt=images / "train", val=images / "val", workers=0))
    return path


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def final_weights(folder: Path) -> dict:
    return torch.load(folder / "models" / "net_g_latest.pth", weights_only=True)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = final_weights(one), final_weights(other)
    assert first.keys() == second.keys() == {"params", "params_ema", "metadata"}
    for key in ("params", "params_ema"):
        for name, value in first[key].items():
            assert torch.equal(value, second[key][name]), f"{key}: {name}"


def test_twenty_iterations_on_the_example_images_and_the_loss_falls(
    option_file: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = repository / "datasets" / "example" / "gt"
    changes = ["train:total_iter=20", f"datasets:train:dataroot_gt={example}", "val:save_img=true"]
    changes += ["datasets:train:use_hflip=false", "datasets:train:use_rot=false", "train:optim_g:lr=5e-3"]
    assert main(["-opt", str(option_file), "--force_yml", *changes]) == 0
    run = option_file.parent / "experiments" / "tiny"
    losses = [record["l_pix"] for record in records(run) if "l_pix" in record]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    (validation,) = [record for record in records(run) if "validation" in record]
    assert validation["validation"] == "example" and validation["psnr"] > 5
    assert (run / "tiny.yml").is_file() and list(run.glob("train_tiny_*.log"))
    assert len(list((run / "visualization" / "example").glob("*_20.png"))) == 1
    assert read_size(run / "visualization" / "grids" / "example_20.png")[1] > 3 * 32  # input, result, ground truth
    states = sorted(int(path.stem) for path in (run / "training_states").iterdir())
    assert states == [5, 10, 15, 20]
    assert "# tiny" in (run / "report" / "report.md").read_text() and (run / "report" / "sample_1.png").is_file()


def test_ten_iterations_equal_five_and_five_bit_for_bit(option_file: Path) -> None:
    root = option_file.parent / "experiments"
    assert main(["-opt", str(option_file), "--force_yml", "name=whole"]) == 0
    assert main(["-opt", str(option_file), "--force_yml", "train:total_iter=5"]) == 0
    assert main(["-opt", str(option_file), "--auto_resume"]) == 0
    assert_same_weights(root / "whole", root / "tiny")
    by_iteration = [
        {record["iter"]: record["l_pix"] for record in records(root / name) if "l_pix" in record}
        for name in ("whole", "tiny")
    ]
    assert by_iteration[0] == by_iteration[1]


def test_a_named_state_is_gone_on_from_in_a_kept_folder(option_file: Path) -> None:
    root = option_file.parent / "experiments"
    assert main(["-opt", str(option_file)]) == 0
    (root / "tiny").rename(root / "tiny_first")
    state = root / "tiny_first" / "training_states" / "5.state"
    assert main(["-opt", str(option_file), "--force_yml", f"path:resume_state={state}"]) == 0
    assert_same_weights(root / "tiny_first", root / "tiny")


def test_a_second_start_archives_the_first(option_file: Path) -> None:
    arguments = ["-opt", str(option_file), "--force_yml", "train:total_iter=1"]
    assert main(arguments) == main(arguments) == 0
    names = [path.name for path in (option_file.parent / "experiments").iterdir()]
    assert len(names) == 2 and any(name.startswith("tiny_archived_") for name in names)


def test_a_finished_training_has_nothing_to_do(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-opt", str(option_file)]) == 0
    before = (option_file.parent / "experiments" / "tiny" / "models" / "net_g_latest.pth").stat().st_mtime_ns
    assert main(["-opt", str(option_file), "--auto_resume"]) == 0
    assert "nothing to do: iteration 10" in capsys.readouterr().out
    assert (option_file.parent / "experiments" / "tiny" / "models" / "net_g_latest.pth").stat().st_mtime_ns == before


def test_device_and_precision_of_the_command_line(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-opt", str(option_file), "--check"]
    assert main([*arguments, "--device", "cpu", "--dtype", "bf16", "--force_yml", "num_gpu=1"]) == 0
    assert "parameters on cpu" in capsys.readouterr().out
    assert main([*arguments, "--force_yml", "num_gpu=0"]) == 0, "arguments do not leak into the next call"
    for device, text in (
        ("gpu", "must be auto, cpu, cuda, cuda:N or mps, got 'gpu'"),
        ("cuda:7", "cuda:7 is not available"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--device", device])
        message = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2
        assert message == f"mambair train: error: --device: {text}; this machine has {', '.join(available_devices())}"


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["training", "check"])
def test_a_rate_that_overflows_later_is_no_success(
    option_file: Path, capsys: pytest.CaptureFixture[str], mode: list[str]
) -> None:
    """The weights stay finite, and no step is refused by its loss: only the output tells."""
    schedule = "train:scheduler={type: MultiStepLR, milestones: [2], gamma: 1e+30}"
    changes = ["train:total_iter=3", schedule, "val:val_freq=3"]
    assert main(["-opt", str(option_file), *mode, "--force_yml", *changes]) == 1
    assert "the output of the trained network is not finite; lower the learning rate" in capsys.readouterr().out
    assert not list(option_file.parent.rglob("net_g_latest.pth"))


def test_debug_has_a_name_of_its_own(option_file: Path) -> None:
    assert main(["-opt", str(option_file), "--debug", "--force_yml", "train:total_iter=8"]) == 0
    run = option_file.parent / "experiments" / "debug_tiny"
    assert [record["iter"] for record in records(run) if "validation" in record] == [8]


def test_check_tries_everything_and_leaves_nothing(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(option_file.parent.rglob("*"))
    assert main(["-opt", str(option_file), "--check"]) == 0
    told = capsys.readouterr().out
    for text in (
        "parameters: 3,177",
        "s/iter",
        "for the first of 1 images",
        "net_g_1.pth",
        "peak memory",
        "check passed",
    ):
        assert text in told
    assert sorted(option_file.parent.rglob("*")) == before


def test_a_check_whose_validation_measures_nothing_fails(
    option_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_later(monkeypatch, "psnr")
    assert main(["-opt", str(option_file), "--check"]) == 1
    assert "example, network: psnr failed on 1 of 1 images; " in caplog.text
    assert "check failed: validation of example: no metric could be measured, see above" in caplog.text


def fail_later(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """Let the metric of that label raise for every pair that is not equal, which the first look at it is."""
    from mambair.evaluation import evaluate

    def calculate(img: Any, img2: Any, options: Any) -> float:
        if metric in ("psnr", options["better"]):
            raise ValueError("no luck")
        return real(img, img2, options)

    real = evaluate.calculate_metric
    monkeypatch.setattr(evaluate, "calculate_metric", calculate)


def test_a_metric_that_fails_does_not_end_the_training(option_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_later(monkeypatch, "lower")
    text = option_file.read_text().replace("psnr: {", "psnr: {better: higher, ")
    text = text.replace("psnr: {", "large: {type: calculate_psnr, crop_border: 2, better: lower}\n    psnr: {")
    option_file.write_text(text)
    assert main(["-opt", str(option_file), "--force_yml", "val:val_freq=5", "val:tile=8"]) == 0
    validations = [each for each in records(Path("experiments/tiny")) if "validation" in each]
    assert [each["iter"] for each in validations] == [5, 10]
    assert all("psnr" in each and "large" not in each and each["baseline"]["psnr"] > 0 for each in validations)


def test_an_unreadable_training_image_is_named_and_what_was_reached_is_kept(
    option_file: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in (images / "train").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    changes = ["datasets:train:total_batch_size=1", f"datasets:train:dataroot_gt={folder}", "manual_seed=1"]
    opt = load_options(option_file, is_train=True, overrides=changes)
    broken = sorted(folder.iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:200])  # after the check of the options, which would refuse it
    assert train(opt, option_file=option_file) == 1
    told = capsys.readouterr().out
    assert f"training stopped: {broken}" in told
    run = option_file.parent / "experiments" / "tiny"
    done = len([record for record in records(run) if "l_pix" in record])
    assert [path.name for path in (run / "training_states").iterdir()] == ([f"{done}.state"] if done else [])


def test_tensorboard_gets_numbers_and_pictures(option_file: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    changes = ["logger:use_tb_logger=true", "train:total_iter=2", "val:val_freq=1"]
    assert main(["-opt", str(option_file), "--force_yml", *changes]) == 0
    events = accumulator.EventAccumulator(str(option_file.parent / "tb_logger" / "tiny")).Reload()
    assert {"losses/l_pix", "lr", "metrics/example/psnr"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("example/0")] == [1, 2]


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_earlier_checkpoint(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    assert main(["-opt", str(option_file), "--force_yml", "train:total_iter=5"]) == 0
    run = option_file.parent / "experiments" / "tiny"
    before = (run / "models" / "net_g_5.pth").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))  # logs fit, weights do not
    try:
        assert main(["-opt", str(option_file), "--auto_resume"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    told = capsys.readouterr().out
    assert "could not be written" in told and "newest complete one is that of iteration 5" in told
    assert (run / "models" / "net_g_5.pth").read_bytes() == before
    assert not [path for path in (run / "models").iterdir() if "tmp" in path.name or "_10" in path.name]
    assert main(["-opt", str(option_file), "--auto_resume"]) == 0


def test_best_weights_are_kept_apart(option_file: Path) -> None:
    assert main(["-opt", str(option_file), "--force_yml", "val:val_freq=2", "train:total_iter=6"]) == 0
    run = option_file.parent / "experiments" / "tiny"
    values = {record["iter"]: record["psnr"] for record in records(run) if "psnr" in record}
    assert sorted(values) == [2, 4, 6]
    best = torch.load(run / "models" / "net_g_best.pth", weights_only=True)["params_ema"]
    state = torch.load(run / "training_states" / "6.state", weights_only=True)
    leader = max(values, key=lambda iteration: (values[iteration], iteration))
    if leader == 6:
        last = torch.load(run / "models" / "net_g_6.pth", weights_only=True)["params_ema"]
        assert all(torch.equal(best[name], value) for name, value in last.items())
    assert state["best_metric_results"]["example"]["psnr"]["iter"] == leader


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (["train:total_itre=3"], "total_itre"),
        (["network_g:depth=[1]"], "depth"),
        (["train:accumulation=3"], "a divisor of datasets.train.total_batch_size (2)"),
        (["path:pretrain_network_g=nowhere.pth"], "nowhere.pth"),
    ],
    ids=["key", "network argument", "batch", "weights"],
)
def test_faults_of_the_options_exit_with_2(
    option_file: Path, changes: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-opt", str(option_file), "--force_yml", *changes]) == 2
    assert text in capsys.readouterr().err


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends, however it does (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def start(option_file: Path, *arguments: str, repository: Path) -> subprocess.Popen[str]:
    """A training process that leads a process group of its own."""
    command = [sys.executable, str(repository / "mambair" / "train.py"), "-opt", str(option_file), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=end_with_parent, **pipes)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the log until a line with ``text``."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"the training ended without saying {text!r}:\n{''.join(seen)}")


def test_killed_after_a_checkpoint_and_resumed(option_file: Path, repository: Path) -> None:
    root = option_file.parent / "experiments"
    endless = ["--force_yml", "train:total_iter=100000"]
    process = start(option_file, *endless, repository=repository)
    wait_for(process, "checkpoint of iteration 5 written")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    newest = int(list_states(root / "tiny" / "training_states")[-1].stem)
    total = f"train:total_iter={newest + 3}"
    assert main(["-opt", str(option_file), "--auto_resume", "--force_yml", total]) == 0
    assert main(["-opt", str(option_file), "--force_yml", "name=whole", total]) == 0
    assert_same_weights(root / "whole", root / "tiny")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "workers"),
    [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 2)],
    ids=["SIGTERM", "SIGINT", "SIGTERM to readers, too", "SIGINT to readers, too"],
)
def test_a_signal_saves_and_says_how_to_go_on(
    option_file: Path, repository: Path, number: signal.Signals, code: int, workers: int
) -> None:
    changes = ["train:total_iter=100000", f"datasets:train:num_worker_per_gpu={workers}"]
    process = start(option_file, "--force_yml", *changes, repository=repository)
    wait_for(process, "iter 2/")
    os.killpg(process.pid, number)  # as a terminal and a job scheduler do: the whole group
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == code, rest
    told = f"stopped by {number.name}; the state is saved. Go on with the same command and --auto_resume"
    assert told in rest
    assert list((option_file.parent / "experiments" / "tiny" / "training_states").iterdir())


@pytest.mark.slow
def test_three_workers_give_the_same_bits_as_none(option_file: Path) -> None:
    root = option_file.parent / "experiments"
    workers = "datasets:train:num_worker_per_gpu=3"
    assert main(["-opt", str(option_file), "--force_yml", "name=whole"]) == 0
    assert main(["-opt", str(option_file), "--force_yml", "train:total_iter=5", workers]) == 0
    assert main(["-opt", str(option_file), "--auto_resume", "--force_yml", workers]) == 0
    assert_same_weights(root / "whole", root / "tiny")


@pytest.mark.slow
def test_killed_at_random_moments_and_still_the_same_weights(option_file: Path, repository: Path) -> None:
    """kill -9 at 24 moments spread over start, iterations, validation and writing; the end is that of a quiet run."""
    root = option_file.parent / "experiments"
    changes = ["logger:save_checkpoint_freq=1", "logger:keep_checkpoints=3", "logger:print_freq=100000"]
    changes += ["val:val_freq=3"]
    generator = torch.Generator().manual_seed(11)
    for number in range(24):
        endless = ["--auto_resume", "--force_yml", *changes, "train:total_iter=100000"]
        process = start(option_file, *endless, repository=repository)
        if number % 4 == 3:  # while it starts, reads the checkpoint or takes its first steps
            time.sleep(5.0 * torch.rand((), generator=generator).item())
        else:
            wait_for(process, "checkpoint of iteration")
            time.sleep(0.3 * torch.rand((), generator=generator).item())
        process.kill()
        assert process.wait() == -signal.SIGKILL
    newest = int(list_states(root / "tiny" / "training_states")[-1].stem)
    changes += [f"train:total_iter={newest + 2}"]
    assert main(["-opt", str(option_file), "--auto_resume", "--force_yml", *changes]) == 0
    assert main(["-opt", str(option_file), "--force_yml", "name=whole", *changes]) == 0
    assert_same_weights(root / "whole", root / "tiny")
    assert len(list((root / "tiny" / "training_states").iterdir())) == 3


@pytest.mark.slow
def test_torchrun_with_two_processes_and_going_on_with_one(option_file: Path, repository: Path) -> None:
    """Two processes and one take the same steps up to the order of sums, and a run may change from two to one."""
    root = option_file.parent / "experiments"
    # stochastic depth draws one mask per process and image, which 1 and 2 processes cannot share
    quiet = ["network_g:drop_path_rate=0", "val:val_freq=5"]
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d"]
    command = [sys.executable, "-m", *launcher, "--rdzv_endpoint=localhost:0", str(repository / "mambair" / "train.py")]
    arguments = ["-opt", str(option_file), "--launcher", "pytorch", "--force_yml", *quiet]
    subprocess.run([*command, *arguments, "train:total_iter=5"], check=True, timeout=300)
    assert main(["-opt", str(option_file), "--force_yml", "name=whole", *quiet]) == 0
    assert main(["-opt", str(option_file), "--auto_resume", "--force_yml", *quiet]) == 0
    both, alone = final_weights(root / "tiny")["params"], final_weights(root / "whole")["params"]
    for name, value in both.items():
        torch.testing.assert_close(
            value, alone[name], rtol=1e-3, atol=1e-4
        )  # Adam's first steps are signs of gradients
    metrics = [{r["iter"]: r["psnr"] for r in records(root / name) if "psnr" in r} for name in ("tiny", "whole")]
    assert metrics[0] == pytest.approx(metrics[1], abs=0.05)


def test_help_does_not_import_torch(repository: Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['train.py', '--help']\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=repository / "mambair", check=True, stdout=subprocess.DEVNULL)
