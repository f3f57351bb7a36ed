"""mambair/test.py from the option file to the tables, its exit codes, and the same file with and without BasicSR."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mambair.archs import MambaIR
from mambair.data import DatasetError, build_dataset
from mambair.evaluation.candidates import FunctionCandidate
from mambair.evaluation.evaluate import measure
from mambair.evaluation.results import SetResult
from mambair.inference.tiling import tile_spans
from mambair.registry import METRIC_REGISTRY, basicsr_installed
from mambair.test import main
from mambair.weights.checkpoint import write_checkpoint

NETWORK = {"embed_dim": 8, "depths": [1], "d_state": 2, "upscale": 2, "upsampler": "pixelshuffledirect"}
METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True, "better": "higher"},
    "ssim": {"type": "calculate_ssim", "crop_border": 2, "test_y_channel": True, "better": "higher"},
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of two small images, and weights of a tiny network for x2."""
    folder = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    sizes = {"one/b.png": (40, 36), "one/a.png": (33, 47), "two/c.png": (32, 32), "two/d.png": (24, 40)}
    for name, size in sizes.items():
        (folder / name).parent.mkdir(exist_ok=True)
        smooth = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    torch.manual_seed(0)
    net = MambaIR(**NETWORK)
    metadata = {"mambair.arch": "MambaIR", "mambair.kwargs": json.dumps(NETWORK), "mambair.task": "sr"}
    write_checkpoint(folder / "tiny.safetensors", net.state_dict(), metadata)
    return folder


@pytest.fixture
def options(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options that work, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "name": "tiny",
        "model_type": "RestorationModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "test_1": {"name": "One", "type": "BicubicDataset", "dataroot_gt": str(material / "one")},
            "test_2": {"name": "Two", "type": "BicubicDataset", "dataroot_gt": str(material / "two")},
        },
        "network_g": {"type": "MambaIR", **NETWORK},
        "path": {"pretrain_network_g": str(material / "tiny.safetensors"), "strict_load_g": True},
        "val": {"save_img": False, "metrics": METRICS},
    }


@pytest.fixture
def run_test(options: dict[str, Any], tmp_path: Path) -> Callable[..., int]:
    """Write the options, run the command in this process; returns the exit code."""

    def run(*arguments: str) -> int:
        (tmp_path / "tiny.yml").write_text(yaml.safe_dump(options), encoding="utf-8")
        return main(["-opt", "tiny.yml", *arguments])

    return run


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results" / "tiny" / "metrics.json").read_text(encoding="utf-8"))


def sets(folder: Path) -> list[dict[str, Any]]:
    (level,) = results(folder)["levels"]
    return level["sets"]


def means(folder: Path, method: str = "tiny") -> dict[str, dict[str, float]]:
    return {each["name"]: each["methods"][method]["mean"] for each in sets(folder) if method in each["methods"]}


def test_tables_hold_what_the_network_does(
    run_test: Callable[..., int], options: dict[str, Any], material: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_test() == 0
    torch.manual_seed(0)
    net = MambaIR(**NETWORK).eval()  # the weights of ``material``
    written = sets(tmp_path)
    assert [each["name"] for each in written] == ["One", "Two"]
    for label, each in zip(("test_1", "test_2"), written, strict=True):
        dataset = build_dataset({**options["datasets"][label], "phase": "test", "scale": 2})
        expected = measure(SetResult("set", dataset, METRICS, 2), [FunctionCandidate("net", net)])
        method = each["methods"]["tiny"]
        assert [image["scores"] for image in method["images"]] == [image.scores for image in expected.of("net")]
        assert method["mean"] == expected.mean("net")
        assert list(each["methods"]) == ["bicubic", "tiny"], "a baseline stands beside the network"
    assert [image["image"] for image in written[0]["methods"]["tiny"]["images"]] == ["a", "b"]

    folder = tmp_path / "results" / "tiny"
    tables = {"metrics.md", "metrics.json", "metrics.tex", "metrics_per_set.csv", "metrics_per_image.csv"}
    names = {path.name for path in folder.iterdir()}
    assert names == {*tables, "report.html", "journal.jsonl"}, "no temporary file, no images"
    screen = capsys.readouterr().out
    mean = written[0]["methods"]["tiny"]["mean"]
    for shown in (screen, (folder / "metrics.md").read_text(encoding="utf-8")):
        assert f"{mean['psnr']:.4f} / {mean['ssim']:.4f}" in shown
        assert "psnr: Y channel, crop border 2" in shown
        assert "11x11 Gaussian window, sigma 1.5, valid region" in shown
        assert "tiles: none (whole images)" in shown
        assert "weights: tiny.safetensors" in shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "bicubic: " in page and "tiny: " in page and "set val: save_img to see it" in page
    with (folder / "metrics_per_image.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["method"] == "tiny"]
    assert [(row["set"], row["image"]) for row in rows] == [("One", "a"), ("One", "b"), ("Two", "c"), ("Two", "d")]
    assert float(rows[0]["psnr"]) == written[0]["methods"]["tiny"]["images"][0]["scores"]["psnr"]
    with (folder / "metrics_per_set.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    facts = [(row["set"], row["images"], row["method"]) for row in rows]
    assert facts == [("One", "2", "bicubic"), ("One", "2", "tiny"), ("Two", "2", "bicubic"), ("Two", "2", "tiny")]
    assert rows[0]["protocol"].startswith("psnr: Y channel, crop border 2 / ssim: ")


def test_what_was_measured_is_not_measured_again(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = options["datasets"].pop("test_2")
    assert run_test() == 0
    options["datasets"]["test_2"] = second
    before = means(tmp_path)["One"]
    asked: list[int] = []
    forward = MambaIR.forward
    monkeypatch.setattr(MambaIR, "forward", lambda net, x: (asked.append(1), forward(net, x))[1])
    assert run_test() == 0
    assert len(asked) == 1 + 2, "a warm-up, and the images of the set that was not measured"
    assert means(tmp_path)["One"] == before
    assert run_test("--force_yml", "val:metrics:psnr:crop_border=3") == 0
    assert len(asked) == 3 + 1 + 4, "another protocol is another measurement"


def test_the_network_can_come_from_the_weights(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path
) -> None:
    assert run_test() == 0
    named = means(tmp_path)
    del options["network_g"]
    assert run_test() == 0
    assert means(tmp_path) == named


def test_tiles(run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path) -> None:
    del options["datasets"]["test_2"]
    assert run_test() == 0
    whole = means(tmp_path)["One"]["psnr"]
    assert run_test("--force_yml", "val:tile=64") == 0
    assert means(tmp_path)["One"]["psnr"] == whole, "an image that fits into one tile is restored as a whole"
    assert run_test("--force_yml", "val:tile=12", "val:overlap=4") == 0
    assert means(tmp_path)["One"]["psnr"] == pytest.approx(whole, abs=1.0)
    assert results(tmp_path)["conditions"]["tiles"] == "12 input pixels, overlap 4"
    tiled = means(tmp_path)
    del options["network_g"]
    assert run_test("--force_yml", "val:tile=12", "val:overlap=4") == 0
    assert means(tmp_path) == tiled, "the network of the weights is cut into the same tiles"


@pytest.mark.parametrize("of_weights", [False, True], ids=["network_g", "of the weights"])
def test_precision(run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, of_weights: bool) -> None:
    """bf16 has 8 bits of a number, so that values change, and PSNR by less than a tenth of a decibel."""
    del options["datasets"]["test_2"]
    if of_weights:
        del options["network_g"]
    found = {}
    for name, full in (("fp32", "float32"), ("bf16", "bfloat16"), ("fp32", "float32")):
        assert run_test("--dtype", name) == 0
        assert results(tmp_path)["conditions"]["precision"] == full
        assert found.setdefault(name, means(tmp_path)["One"]["psnr"]) == means(tmp_path)["One"]["psnr"]
    assert found["bf16"] != found["fp32"] and found["bf16"] == pytest.approx(found["fp32"], abs=0.1)


@pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")
@pytest.mark.parametrize(("model_type", "lines"), [("RestorationModel", 0), ("basicsr/SRModel", 1)])
def test_which_names_are_basicsr_s_is_said_with_its_models_only(
    options: dict[str, Any], tmp_path: Path, repository: Path, model_type: str, lines: int
) -> None:
    options |= {"model_type": model_type, "path": {}}
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(options), encoding="utf-8")
    command = [sys.executable, str(repository / "mambair" / "test.py"), "-opt", "tiny.yml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr.count("basicsr keeps its own ") == lines, done.stderr
    assert done.returncode == 0


def test_tiles_are_cut_once(
    run_test: Callable[..., int], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 20x18 and 16x23 in tiles of 12: each tile goes through the network once, divisible as it asks for."""
    del options["datasets"]["test_2"]
    seen: list[tuple[int, ...]] = []
    forward = MambaIR.forward
    monkeypatch.setattr(MambaIR, "forward", lambda net, x: (seen.append(tuple(x.shape[-2:])), forward(net, x))[1])
    monkeypatch.setattr(MambaIR, "tile_multiple", 4, raising=False)
    assert run_test("--force_yml", "val:tile=12", "val:overlap=4") == 0
    expected = [
        tuple(len(range(*span)) for span in (rows, columns))
        for height, width in ((23, 16), (18, 20))
        for rows in tile_spans(height, tile=12, overlap=4, multiple=4)
        for columns in tile_spans(width, tile=12, overlap=4, multiple=4)
    ]
    assert sorted(seen[4:]) == sorted(expected), "after the four tiles of 16x16 pixels of the warm-up"


@pytest.mark.parametrize(("suffix", "name"), [(None, "a_tiny.png"), ("x2", "a_x2.png")])
def test_images_are_saved(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, suffix: str | None, name: str
) -> None:
    del options["datasets"]["test_2"]
    options["val"] |= {"save_img": True, "suffix": suffix}
    assert run_test() == 0
    saved = Image.open(tmp_path / "results" / "tiny" / "visualization" / "One" / name)
    assert saved.size == (32, 46), "the ground truth, cut to a multiple of the scale"
    assert len(list((tmp_path / "results" / "tiny" / "visualization" / "One").iterdir())) == 2, "results only"
    assert "save_img to see it" not in (tmp_path / "results" / "tiny" / "report.html").read_text(encoding="utf-8")


def test_a_denoiser_states_its_noise(
    run_test: Callable[..., int], options: dict[str, Any], material: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    grey = {"embed_dim": 8, "depths": [1], "d_state": 2, "in_chans": 1, "upscale": 1, "upsampler": ""}
    torch.save({"params": MambaIR(**grey).state_dict()}, tmp_path / "grey.pth")
    options |= {"scale": 1, "network_g": {"type": "MambaIR", **grey}}
    options["path"] |= {"pretrain_network_g": str(tmp_path / "grey.pth"), "param_key_g": "params"}
    options["datasets"] = {
        "test": {
            "name": "Noisy",
            "type": "GaussianDenoisingDataset",
            "dataroot_gt": str(material / "one"),
            "color": "gray",
            "sigma": 25,
        }
    }
    assert run_test() == 0
    first = means(tmp_path)
    assert sets(tmp_path)[0]["inputs"] == "GaussianDenoisingDataset, sigma 25, noise_seed 0, color gray"
    assert means(tmp_path, "noisy input")["Noisy"]["psnr"] == pytest.approx(20.2, abs=0.5)
    assert run_test() == 0
    assert means(tmp_path) == first, "the noise of a test image never changes"


def test_faults_of_the_options_end_with_two(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options["val"]["metrics"] = {"psnr": {"type": "calculate_psnr", "crop_boarder": 2}}
    options["scale"] = 3
    assert run_test() == 2
    told = capsys.readouterr().err
    assert "crop_boarder" in told
    assert "scale" in told
    assert not (tmp_path / "results").exists()


def test_no_option_file_ends_with_two(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "-opt" in capsys.readouterr().err


def calculate_but_wide(img: np.ndarray, img2: np.ndarray) -> float:
    """A metric that fails on one image."""
    if img.shape[1] == 46:
        raise ZeroDivisionError("one of them")
    return 1.0


def test_an_image_that_cannot_be_measured_is_named_and_the_others_are_done(
    run_test: Callable[..., int], options: dict[str, Any], material: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("a", (32, 32)), ("b", (46, 46)), ("c", (64, 64))):
        Image.open(material / "one" / "a.png").resize(size).save(images / f"{name}.png")
    options["datasets"]["test_1"]["dataroot_gt"] = str(images)
    options["val"]["metrics"] = {"psnr": METRICS["psnr"], "own": {"type": "calculate_but_wide", "better": "higher"}}
    METRIC_REGISTRY.register(calculate_but_wide)
    try:
        assert run_test() == 1
    finally:
        del METRIC_REGISTRY._entries["calculate_but_wide"]
    assert set(means(tmp_path)["One"]) == {"psnr", "own"} and set(means(tmp_path)["Two"]) == {"psnr", "own"}
    told = capsys.readouterr().err
    for method in ("bicubic", "tiny"):
        assert f"not measured: One, {method}: own failed on 1 of 3 images; b: one of them" in told


UNSUITED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "grey images for a colour network": (
        {"color": "gray"},
        {},
        "datasets.test_2.color: found images of 1 channel(s); 3, as MambaIR takes, is right",
    ),
    "grey images for a colour network that the weights tell": (
        {"color": "gray"},
        {"network_g": None},
        "datasets.test_2.color: found images of 1 channel(s); 3, as the network takes, is right",
    ),
    "a border of more than half the narrowest image": (
        {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 12}}},
        {},
        "datasets.test_2.metrics.psnr: d.png: img: must keep at least 1x1 pixels after cropping, found 40x24 with "
        "crop_border 12",
    ),
    "too few pixels for SSIM": (
        {"metrics": {"ssim": {"type": "calculate_ssim", "crop_border": 7}}},
        {},
        "datasets.test_2.metrics.ssim: d.png: img: must keep at least 11x11 pixels after cropping, found 40x24 with "
        "crop_border 7",
    ),
}


@pytest.mark.parametrize(("of_set", "of_file", "message"), UNSUITED.values(), ids=UNSUITED.keys())
def test_sets_that_do_not_suit_are_refused_before_anything_is_measured(
    run_test: Callable[..., int],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    of_set: dict[str, Any],
    of_file: dict[str, Any],
    message: str,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(MambaIR, "forward", lambda net, x: asked.append(1))
    options["datasets"]["test_2"] |= of_set
    options |= of_file
    assert run_test() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tiny.yml:") and line.endswith(f": {message}")
    assert not asked and not (tmp_path / "results").exists()


def test_a_set_that_is_gone_is_named_and_the_others_are_done(
    run_test: Callable[..., int],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def build(opt: dict[str, Any]) -> Any:
        if opt["name"] == "One":
            raise DatasetError("dataroot_gt: gone")
        return build_dataset(opt)

    monkeypatch.setattr("mambair.data.build_dataset", build)
    assert run_test() == 1
    assert list(means(tmp_path)) == ["Two"] and results(tmp_path)["missing"] == {"One": "One: dataroot_gt: gone"}
    assert "not measured: One: dataroot_gt: gone" in capsys.readouterr().err


def test_where_nothing_was_measured_nothing_is_written(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(net: MambaIR, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(MambaIR, "forward", fails)
    options["val"]["metrics"] = None
    assert run_test() == 1
    assert not (tmp_path / "results" / "tiny").exists()


def test_weights_that_do_not_fit_are_a_fault_of_the_set_up(
    run_test: Callable[..., int], options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options["network_g"]["embed_dim"] = 12
    assert run_test() == 2
    assert "of another shape" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_weights_of_another_scale_are_a_fault_of_the_set_up(
    run_test: Callable[..., int], options: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    del options["network_g"]
    options["scale"] = 3
    assert run_test() == 2
    assert "enlarges by 2, but scale is 3" in capsys.readouterr().err


# Runs the commands as the interpreter runs a script (its folder comes first on the path), from a folder without the
# package; with BLOCKED, basicsr cannot be imported, as where it is not installed.
SCRIPTS = """
import runpy, sys
sys.path = [entry for entry in sys.path if entry != ""]
if BLOCKED:
    sys.modules["basicsr"] = None
for script, options in ((TRAIN, "train.yml"), (TEST, "tiny.yml")):
    sys.path.insert(0, SCRIPTS_FOLDER)
    sys.argv = [script, "-opt", options]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        assert ended.code == 0, (script, ended.code)
    assert SCRIPTS_FOLDER not in sys.path
assert (sys.modules.get("basicsr") is not None) == (INSTALLED and not BLOCKED)
"""


def run_scripts(folder: Path, *, blocked: bool) -> None:
    """train.py with train.yml and test.py with tiny.yml in ``folder``, in a fresh interpreter."""
    scripts = Path(__file__).resolve().parents[2] / "mambair"
    settings = {
        "SCRIPTS_FOLDER": str(scripts),
        "TRAIN": str(scripts / "train.py"),
        "TEST": str(scripts / "test.py"),
        "BLOCKED": blocked,
        "INSTALLED": basicsr_installed(),
    }
    code = "\n".join(f"{name} = {value!r}" for name, value in settings.items()) + SCRIPTS
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def training_options(options: dict[str, Any], material: Path) -> dict[str, Any]:
    """Two steps on one folder, validated on the other."""
    return {
        **options,
        "name": "trained",
        "datasets": {
            "train": {
                "name": "One",
                "type": "BicubicDataset",
                "dataroot_gt": str(material / "one"),
                "gt_size": 16,
                "use_hflip": True,
                "use_rot": True,
                "total_batch_size": 2,
                "num_worker_per_gpu": 0,
            },
            "val": {"name": "Two", "type": "BicubicDataset", "dataroot_gt": str(material / "two")},
        },
        "train": {
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5},
            "total_iter": 2,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 2, "save_img": False, "metrics": METRICS},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }


def test_scripts_run_from_anywhere_and_alike_without_basicsr(
    options: dict[str, Any], material: Path, tmp_path: Path
) -> None:
    """The same option files give the same bits, whether basicsr has the same names to offer or is not there at all."""
    outcomes = []
    for blocked in (True, False) if basicsr_installed() else (False,):
        folder = tmp_path / f"blocked-{blocked}"
        folder.mkdir()
        weights = Path("experiments", "trained", "models", "net_g_2.pth")
        tested = {**options, "path": {"pretrain_network_g": str(weights)}}
        for name, content in (("train.yml", training_options(options, material)), ("tiny.yml", tested)):
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        run_scripts(folder, blocked=blocked)
        assert list(means(folder)) == ["One", "Two"]
        outcomes.append((torch.load(folder / weights, weights_only=True)["params"], means(folder)))
    first_weights, first_means = outcomes[0]
    for weights, means_of_sets in outcomes[1:]:
        assert means_of_sets == first_means
        assert weights.keys() == first_weights.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, first_weights[name]), name
