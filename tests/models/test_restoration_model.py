"""RestorationModel: what each training option does to the weights, measured; saving and resuming."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mambair.archs import MambaIRv2Light
from mambair.data.restoration_dataset import to_pixels
from mambair.evaluation.candidates import InputCandidate
from mambair.images.decoded_image import ImageFileError
from mambair.images.resize import imresize
from mambair.inference.restorer import Restorer
from mambair.inference.tiling import tile_spans
from mambair.metrics import calculate_psnr
from mambair.models import build_model
from mambair.models.nonfinite_guard import TrainingDiverged
from mambair.registry import ARCH_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from mambair.weights.checkpoint import read_checkpoint, write_checkpoint


@ARCH_REGISTRY.register(name="TwoConvolutionsForTests")
class TwoConvolutions(nn.Module):
    """The smallest network with an upscale."""

    def __init__(self, width: int = 4, upscale: int = 2) -> None:
        super().__init__()
        self.upscale, self.in_chans = upscale, 3
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3 * upscale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.last(self.first(x).relu()), self.upscale)


def options(folder: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "is_train": True,
        "model_type": "RestorationModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 5,
        "network_g": {"type": "TwoConvolutionsForTests"},
        "path": {
            "experiments_root": str(folder),
            "models": str(folder / "models"),
            "training_states": str(folder / "training_states"),
            "visualization": str(folder / "visualization"),
        },
        "train": {
            "total_iter": 100,
            "optim_g": {"type": "Adam", "lr": 1e-2, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [5], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss"},
            **train,
        },
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
        "logger": {},
    }


def batch(number: int, count: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    lq, gt = torch.rand(count, 3, 6, 5, generator=generator), torch.rand(count, 3, 12, 10, generator=generator)
    return {"lq": lq, "gt": gt, "lq_path": [f"image_{number}.png"]}


def make(folder: Path, **train: Any) -> Any:
    torch.manual_seed(0)
    return build_model(options(folder, **train))


def run(model: Any, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)


def weights(model: Any) -> Tensor:
    return nn.utils.parameters_to_vector(model.net_g.parameters()).detach().clone()


def gradients(model: Any) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.net_g.parameters()])


@pytest.mark.parametrize("name", ["SRModel", "MambaIRModel", "MambaIRv2Model", "MambaIRv2LightModel"])
def test_published_names(name: str) -> None:
    assert MODEL_REGISTRY.get(name) is MODEL_REGISTRY.get("RestorationModel")


def test_loss_falls_on_one_batch(tmp_path: Path) -> None:
    model = make(tmp_path)
    losses = []
    for iteration in range(1, 31):
        model.feed_data(batch(0))
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_pix"])
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, loss: str) -> None:
    found = []
    for accumulation in (1, 2, 4):
        model = make(tmp_path, accumulation=accumulation, pixel_opt={"type": "L1Loss", "reduction": loss})
        model.feed_data(batch(0))
        model.optimize_parameters(1)
        found.append((gradients(model), model.get_current_log()["l_pix"]))
    for gradient, value in found[1:]:
        # the same float32 terms, summed in another order
        assert (gradient - found[0][0]).abs().max() < 1e-6 * max(1.0, float(found[0][0].abs().max()))
        assert value == pytest.approx(found[0][1], rel=1e-6)


def test_a_batch_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    model = make(tmp_path, accumulation=3)
    model.feed_data(batch(0))
    with pytest.raises(ValueError, match="a batch of 4 cannot be split into accumulation=3"):
        model.optimize_parameters(1)


def test_clipping_bounds_the_norm(tmp_path: Path) -> None:
    model = make(tmp_path, grad_clip=1e-3)
    model.feed_data(batch(0))
    model.optimize_parameters(1)
    assert gradients(model).norm() == pytest.approx(1e-3, rel=1e-3)  # clip_grad_norm_ adds 1e-6 below the line


def test_average_follows_and_is_what_validation_uses(tmp_path: Path) -> None:
    model = make(tmp_path, ema_decay=0.9)
    before = weights(model)
    run(model, 1, 1)
    average = nn.utils.parameters_to_vector(model.average.net.parameters())
    torch.testing.assert_close(average, 0.9 * before + 0.1 * weights(model))
    warm = make(tmp_path, ema_decay=0.9, ema_warmup=True)
    run(warm, 1, 1)
    average = nn.utils.parameters_to_vector(warm.average.net.parameters())
    torch.testing.assert_close(average, 2 / 11 * before + 9 / 11 * weights(warm))
    model = make(tmp_path, ema_decay=0.9)
    run(model, 1, 1)
    model.feed_data(batch(9))
    model.test()
    torch.testing.assert_close(model.get_current_visuals()["result"], model.average.net(batch(9)["lq"]))
    assert model.net_g.training


@pytest.mark.parametrize(
    ("option", "tolerance"),
    # bf16 keeps 8 bits of a number, fp16 11; channels_last only changes the order of sums
    [({"amp": "bf16"}, 2e-2), ({"amp": "fp16"}, 1e-2), ({"channels_last": True}, 1e-5)],
    ids=["bf16", "fp16 with a scaler", "channels_last"],
)
def test_faster_arithmetic_keeps_the_gradient(tmp_path: Path, option: dict[str, Any], tolerance: float) -> None:
    plain, fast = make(tmp_path), make(tmp_path, **option)
    for model in (plain, fast):
        model.feed_data(batch(0))
        model.optimize_parameters(1)
    difference = (gradients(fast) - gradients(plain)).norm() / gradients(plain).norm()
    assert difference < tolerance
    assert gradients(fast).dtype == torch.float32


def test_amp_really_computes_in_bf16(tmp_path: Path) -> None:
    model = make(tmp_path, amp="bf16")
    seen = []
    model.net_g.first.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    run(model, 1, 1)
    assert seen == [torch.bfloat16]


def test_channels_last_really_changes_the_layout(tmp_path: Path) -> None:
    model = make(tmp_path, channels_last=True)
    assert model.net_g.last.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_compiled_training_follows_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = make(tmp_path), make(tmp_path, compile=True)
    for model in (plain, compiled):
        run(model, 1, 3)
    assert compiled.training_net is not compiled.net_g
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-5)


def test_block_checkpointing_keeps_less_for_the_backward_pass(tmp_path: Path) -> None:
    kept = {}
    for use_checkpoint in (False, True):
        opt = options(tmp_path)
        opt["network_g"] = {"type": "MambaIR", "upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 8}
        opt["network_g"] |= {"depths": [2, 2], "d_state": 2, "use_checkpoint": use_checkpoint}
        torch.manual_seed(0)
        model = build_model(opt)
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        model.feed_data(batch(0))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.optimize_parameters(1)
        kept[use_checkpoint] = total
    assert kept[True] < 0.5 * kept[False]


def peak_bytes(work: Callable[[], None]) -> int:
    """The most that torch's CPU allocator holds at once while ``work`` runs, beyond what it held before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def test_checkpointing_lowers_the_peak_of_memory_group_by_group(tmp_path: Path) -> None:
    peaks, found = [], []
    for count in (0, 1, 2, 4, 9):
        opt = options(tmp_path, checkpoint_groups=count)
        opt["network_g"] = {"type": "MambaIR", "upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 8}
        opt["network_g"] |= {"depths": [2, 2, 2, 2], "d_state": 2, "drop_path_rate": 0.2}
        torch.manual_seed(0)
        model = build_model(opt)
        generator = torch.Generator().manual_seed(1)
        lq, gt = (torch.rand(2, 3, side, side, generator=generator) for side in (24, 48))
        model.feed_data({"lq": lq, "gt": gt})

        def step(model: Any = model) -> None:
            torch.manual_seed(7)
            model.optimize_parameters(1)

        peaks.append(peak_bytes(step))
        found.append(gradients(model))
    assert peaks[0] > peaks[1] > peaks[2] > peaks[3] == pytest.approx(peaks[4], rel=0.01)
    assert peaks[3] < 0.6 * peaks[0]
    assert all(torch.equal(gradient, found[0]) for gradient in found[1:])  # the same drop paths, too


def test_groups_that_a_network_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TwoConvolutions has no group of blocks"):
        make(tmp_path, checkpoint_groups=1)


def test_bf16_leaves_the_scan_and_its_parameters_in_float32(tmp_path: Path) -> None:
    found = []
    for amp in ("off", "bf16"):
        opt = options(tmp_path, amp=amp)
        opt["network_g"] = {"type": "MambaIR", "upscale": 2, "upsampler": "pixelshuffledirect", "embed_dim": 8}
        opt["network_g"] |= {"depths": [1], "d_state": 2, "drop_path_rate": 0.0}
        torch.manual_seed(0)
        model = build_model(opt)
        model.feed_data(batch(0))
        model.optimize_parameters(1)
        found.append({name: parameter.grad for name, parameter in model.net_g.named_parameters()})
    plain, fast = found
    for name, gradient in fast.items():
        assert gradient.dtype == torch.float32
        # bf16 keeps 8 bits of a number, and a gradient is a sum over several layers of them
        assert (gradient - plain[name]).norm() < 0.1 * plain[name].norm() + 1e-6, name


def test_fp16_overflow_lowers_the_scale_and_changes_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(tmp_path, amp="fp16", ema_decay=0.9, nonfinite_limit=3)
    model.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before, average = weights(model), model.average.net.last.weight.clone()
    with caplog.at_level(logging.INFO):
        run(model, 1, 2)
    assert torch.equal(weights(model), before) and torch.equal(model.average.net.last.weight, average)
    assert "overflow in fp16" in caplog.text and model.scaler.get_scale() == 2.0**58
    assert not list(tmp_path.glob("nonfinite_*"))
    with pytest.raises(TrainingDiverged, match="amp: bf16 or off"):
        run(model, 3, 3)


class Poison:
    """Makes chosen iterations non-finite by their input."""

    def __init__(self, *iterations: int) -> None:
        self.iterations = iterations

    def run(self, model: Any, last: int) -> None:
        for iteration in range(1, last + 1):
            data = batch(iteration)
            if iteration in self.iterations:
                data["lq"][0, 0, 0, 0] = float("nan")
            model.update_learning_rate(iteration)
            model.feed_data(data)
            model.optimize_parameters(iteration)


def test_a_non_finite_step_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make(tmp_path, ema_decay=0.9)
    Poison().run(model, 2)
    before, average = weights(model), model.average.net.last.weight.clone()
    moments = {key: value.clone() for key, value in model.optimizer_g.state[model.net_g.last.weight].items()}
    with caplog.at_level(logging.WARNING):
        model.feed_data({**batch(3), "lq": torch.full((4, 3, 6, 5), float("nan"))})
        model.optimize_parameters(3)
    assert torch.equal(weights(model), before)
    assert torch.equal(model.average.net.last.weight, average)
    after = model.optimizer_g.state[model.net_g.last.weight]
    assert all(torch.equal(after[key], value) for key, value in moments.items())
    assert "iteration 3" in caplog.text and "1 in a row" in caplog.text
    record = json.loads((tmp_path / "nonfinite_iter3_rank0.json").read_text())
    assert (record["files"], record["seed"], record["losses"]) == (["image_3.png"], 5, {"l_pix": "nan"})
    run(model, 4, 4)
    assert not torch.equal(weights(model), before)


def test_too_many_in_a_row_end_the_training(tmp_path: Path) -> None:
    Poison(2, 3, 5, 6).run(make(tmp_path, nonfinite_limit=3), 7)
    with pytest.raises(TrainingDiverged, match=r"iteration 4: .*3 steps in a row.*Lower the learning rate"):
        Poison(2, 3, 4).run(make(tmp_path, nonfinite_limit=3), 7)


def growing(model: Any) -> Any:
    """A model whose loss scale, if it has one, doubles every three steps."""
    if model.scaler.is_enabled():
        model.scaler.set_growth_interval(3)
    return model


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
@pytest.mark.parametrize(
    ("ema_decay", "more"),
    [
        (0.0, {}),
        (0.9, {}),
        (0.9, {"ema_warmup": True}),
        (0.9, {"amp": "fp16"}),
        (0.0, {"scheduler": {"type": "CosineAnnealingRestartLR", "periods": [3, 7], "restart_weights": [1.0, 0.5]}}),
    ],
    ids=["plain", "averaged", "averaged with warm-up", "scaled fp16", "cosines"],
)
def test_ten_steps_equal_five_and_five_bit_for_bit(
    tmp_path: Path, optimizer: str, ema_decay: float, more: dict[str, Any]
) -> None:
    train = {"optim_g": {"type": optimizer, "lr": 1e-2}, "ema_decay": ema_decay, **more}
    whole = growing(make(tmp_path / "whole", **train))
    scale = whole.scaler.get_scale()
    run(whole, 1, 10)
    assert (whole.scaler.get_scale() > scale) == ("amp" in more)
    first = growing(make(tmp_path, **train))
    run(first, 1, 5)
    first.save(0, 5)
    opt = options(tmp_path, **train)
    opt["path"] |= {"pretrain_network_g": str(tmp_path / "models" / "net_g_5.pth"), "param_key_g": "params"}
    second = build_model(opt)
    second.resume_training(torch.load(tmp_path / "training_states" / "5.state", weights_only=True))
    run(second, 6, 10)
    assert torch.equal(weights(second), weights(whole))
    assert second.scaler.get_scale() == whole.scaler.get_scale()
    if ema_decay:
        for ours, theirs in zip(second.average.net.parameters(), whole.average.net.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_saved_files_are_basicsr_s(tmp_path: Path) -> None:
    model = make(tmp_path, ema_decay=0.9)
    run(model, 1, 2)
    model.save(0, 2)
    model.save(-1, -1)
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"net_g_2.pth", "net_g_latest.pth"}
    assert [path.name for path in (tmp_path / "training_states").iterdir()] == ["2.state"]
    content = torch.load(tmp_path / "models" / "net_g_2.pth", weights_only=True)
    assert {"params", "params_ema"} < content.keys()
    checkpoint = read_checkpoint(tmp_path / "models" / "net_g_latest.pth")
    assert torch.equal(checkpoint.state_dict["last.weight"], model.average.net.last.weight)
    assert checkpoint.metadata["mambair.arch"] == "TwoConvolutionsForTests"


def test_fine_tuning_starts_from_the_averaged_weights(tmp_path: Path) -> None:
    model = make(tmp_path, ema_decay=0.9)
    run(model, 1, 3)
    model.save(-1, -1)
    opt = options(tmp_path)
    opt["path"]["pretrain_network_g"] = str(tmp_path / "models" / "net_g_latest.pth")
    assert torch.equal(build_model(opt).net_g.last.weight, model.average.net.last.weight)


@pytest.mark.parametrize(
    ("suffix", "param_key", "network_starts_from"),
    [(".pth", None, "average"), (".pth", "params", "weights"), (".safetensors", None, "weights")],
)
def test_start_weights_of_either_format(
    tmp_path: Path, suffix: str, param_key: str | None, network_starts_from: str
) -> None:
    """The average goes on from that of a file that has one, and else from the weights."""
    model = make(tmp_path, ema_decay=0.9)
    run(model, 1, 3)
    trained, averaged = model.net_g.state_dict(), model.average.net.state_dict()
    file = tmp_path / f"start{suffix}"
    write_checkpoint(file, trained, average=averaged if suffix == ".pth" else None)
    opt = options(tmp_path, ema_decay=0.9)
    opt["path"] |= {"pretrain_network_g": str(file), "param_key_g": param_key}
    started = build_model(opt)
    expected = averaged if network_starts_from == "average" else trained
    assert not torch.equal(trained["last.weight"], averaged["last.weight"])
    assert torch.equal(started.net_g.last.weight, expected["last.weight"])
    expected = averaged if suffix == ".pth" else trained
    assert torch.equal(started.average.net.last.weight, expected["last.weight"])


def test_without_a_loss_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no loss to train with; write one of pixel_opt"):
        make(tmp_path, pixel_opt=None)


def test_validation_in_tiles_equals_the_whole_away_from_seams(tmp_path: Path) -> None:
    model = make(tmp_path)
    image = torch.rand(1, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    whole = model.restore(image)
    model.opt["val"] |= {"tile": 16, "overlap": 8}
    tiled = model.restore(image)
    # two 3x3 convolutions see 2 pixels; where tiles blend, both have that context except at their very borders
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()
    torch.testing.assert_close(tiled[..., :12, :12], whole[..., :12, :12])


def test_validation_in_tiles_equals_the_restorer(tmp_path: Path) -> None:
    """The routing noise of MambaIRv2 belongs to places in the picture, not in the tile."""
    small = {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4, "inner_rank": 4, "num_tokens": 5}
    net = MambaIRv2Light(**small, upsampler="pixelshuffledirect", upscale=2).eval()
    model = make(tmp_path)
    model.net_g, model.average = net, None
    model.opt["val"] |= {"tile": 16, "overlap": 8}
    image = torch.rand(1, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    expected = Restorer(net, device="cpu", tile=16, overlap=8, batch=1)(image)
    assert torch.equal(model.restore(image).clamp(0, 1), expected)


class TwoImages:
    """A validation set in memory."""

    opt = {"name": "Two"}  # noqa: RUF012

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= 2:
            raise IndexError
        data = batch(index, 1)
        return {"lq": data["lq"][0], "gt": data["gt"][0], "lq_path": f"image_{index}.png"}


def test_tiles_are_divisible_as_the_network_asks_for(tmp_path: Path) -> None:
    model = make(tmp_path)
    model.net_g.tile_multiple = 8  # type: ignore[assignment]
    seen: list[tuple[int, ...]] = []
    model.net_g.register_forward_pre_hook(lambda net, arguments: seen.append(tuple(arguments[0].shape[-2:])))
    model.opt["val"] |= {"tile": 20, "overlap": None}
    assert model.restore(torch.rand(1, 3, 60, 45)).shape == (1, 3, 120, 90)
    expected = [
        (rows.stop - rows.start, columns.stop - columns.start)
        for rows in tile_spans(60, tile=20, overlap=5, multiple=8)
        for columns in tile_spans(45, tile=20, overlap=5, multiple=8)
    ]
    assert seen == expected and set(seen) == {(16, 16)}


def test_validation_measures_saves_and_remembers_the_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = make(tmp_path)
    loader = torch.utils.data.DataLoader(TwoImages())
    with caplog.at_level(logging.INFO):
        model.validation(loader, 1, None, save_img=True)
        first = model.metric_results["psnr"]
        for _ in range(20):
            model.feed_data(batch(0, 1))
            model.optimize_parameters(1)
        model.validation(loader, 2, None)
    best = model.best_metric_results["Two"]["psnr"]
    assert best == {"better": "higher", "val": max(first, model.metric_results["psnr"]), "iter": 2}
    names = sorted(path.name for path in (tmp_path / "visualization" / "Two").iterdir())
    assert names == ["image_0_1.png", "image_1_1.png"]
    assert "validation of Two at iter 2: psnr" in caplog.text


def test_the_unrestored_input_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    restore = InputCandidate.__call__
    monkeypatch.setattr(
        InputCandidate, "__call__", lambda self, sample: (asked.append(sample.image), restore(self, sample))[1]
    )
    model, loader = make(tmp_path), torch.utils.data.DataLoader(TwoImages())
    board = Board()
    with caplog.at_level(logging.INFO):
        for iteration in (1, 2):
            model.validation(loader, iteration, board)
    assert asked == ["image_0", "image_1"]
    expected = []
    for index in range(2):
        item = TwoImages()[index]
        bicubic = np.asarray(imresize(to_pixels(item["lq"]), 2))
        expected.append(calculate_psnr(bicubic, to_pixels(item["gt"]), 2))
    assert model.baselines == {"Two": {"name": "bicubic", "psnr": pytest.approx(sum(expected) / 2)}}
    assert caplog.text.count(f"bicubic {sum(expected) / 2:.4f})") == 2
    labels = [(label, iteration) for label, _, iteration in board.scalars]
    names = ["metrics/Two/psnr", "metrics/Two/psnr of bicubic"]
    assert labels == [(name, iteration) for iteration in (1, 2) for name in names]


def test_an_unrestored_input_without_a_value_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    restore = InputCandidate.__call__
    monkeypatch.setattr(
        InputCandidate, "__call__", lambda self, sample: (asked.append(sample.image), restore(self, sample))[1]
    )
    model, loader = make(tmp_path), torch.utils.data.DataLoader(TwoImages())
    model.validation(loader, 1, None)
    expected = dict(model.baselines["Two"])
    model.baselines["Two"]["psnr"] = float("nan")
    for iteration in (2, 3):
        model.validation(loader, iteration, None)
    assert model.baselines["Two"] == expected
    assert asked == ["image_0", "image_1"] * 2


class Board:
    """Notes what a SummaryWriter is given."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, label: str, value: float, iteration: int) -> None:
        self.scalars.append((label, value, iteration))


NAN = float("nan")


@pytest.mark.parametrize(
    ("better", "values", "expected"),
    [
        ("higher", [NAN, NAN], None),
        ("higher", [NAN, 20.0, NAN, 21.0, 20.5], (21.0, 4)),
        ("lower", [0.5, NAN, 0.4], (0.4, 3)),
        ("higher", [20.0, NAN], (20.0, 1)),
    ],
)
def test_nan_is_never_the_best(
    tmp_path: Path, better: str, values: list[float], expected: tuple[float, int] | None
) -> None:
    model = make(tmp_path)
    saved: list[int] = []
    for iteration, value in enumerate(values, 1):
        model.metric_results = {"psnr": value}
        model.save_network = lambda label, iteration=iteration: saved.append(iteration)
        model._remember_best("Two", {"psnr": {"better": better}}, iteration)
    record = model.best_metric_results["Two"].get("psnr")
    assert (record and (record["val"], record["iter"])) == expected
    assert (saved[-1] if saved else None) == (expected and expected[1])


def test_a_best_of_nan_in_a_training_state_is_replaced(tmp_path: Path) -> None:
    model = make(tmp_path)
    state = {
        "optimizers": [model.optimizer_g.state_dict()],
        "best_metric_results": {"Two": {"psnr": {"better": "higher", "val": NAN, "iter": 1}}},
    }
    model.resume_training(state)
    model.validation(torch.utils.data.DataLoader(TwoImages()), 7, None)
    record = model.best_metric_results["Two"]["psnr"]
    assert record["val"] == model.metric_results["psnr"] and record["iter"] == 7
    assert (tmp_path / "models" / "net_g_best.pth").is_file()


@METRIC_REGISTRY.register(name="raises_on_second_for_tests")
def raises_on_second(img: Any, img2: Any) -> float:
    if (img2 == to_pixels(TwoImages()[1]["gt"])[:, :, ::-1]).all():
        raise ZeroDivisionError("no edges")
    return 1.0


def test_a_data_set_may_have_metrics_of_its_own(tmp_path: Path) -> None:
    class Bordered(TwoImages):
        opt: ClassVar[dict[str, Any]] = {
            "name": "Bordered",
            "metrics": {"inner": {"type": "calculate_psnr", "crop_border": 4}},
        }

    model = make(tmp_path)
    model.validation(SimpleNamespace(dataset=TwoImages()), 1, None)
    assert set(model.metric_results) == {"psnr"}
    model.validation(SimpleNamespace(dataset=Bordered()), 1, None)
    assert set(model.metric_results) == set(model.best_metric_results["Bordered"]) == {"inner"}


def test_a_metric_that_raises_is_reported_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, loader = make(tmp_path), torch.utils.data.DataLoader(TwoImages())
    model.opt["val"]["metrics"] = {"mine": {"type": "raises_on_second_for_tests"}, **model.opt["val"]["metrics"]}
    with caplog.at_level(logging.WARNING):
        for iteration in (1, 2):
            model.validation(loader, iteration, None)
    assert set(model.metric_results) == set(model.best_metric_results["Two"]) == {"psnr"}
    line = "validation of Two: not measured: Two, network: mine failed on 1 of 2 images; image_1: no edges"
    assert caplog.text.count(line) == 1, "once, with the reason"


def test_an_image_that_cannot_be_read_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Damaged(TwoImages):
        def __getitem__(self, index: int) -> dict[str, Any]:
            if index == 0:
                raise ImageFileError("image_0.png: no image")
            return super().__getitem__(index)

    model = make(tmp_path)
    with caplog.at_level(logging.INFO):
        model.validation(SimpleNamespace(dataset=Damaged()), 1, None)
    assert model.metric_results == {} and model.best_metric_results == {"Two": {}}
    assert "validation of Two: not measured: Two, image 1: image_0.png: no image" in caplog.text
    assert "validation of Two at iter 1: no metric could be measured" in caplog.text
