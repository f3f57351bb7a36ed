"""Muon, rules for groups of parameters, mixing of batches, and a teacher: each by what it does to numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mambair.archs import build
from mambair.models import build_model
from mambair.models.batch_mixing import AUGMENTATIONS, BatchMixing
from mambair.models.optimizers import build_optimizer
from mambair.options.errors import SettingError
from mambair.system.errors import RequestError
from mambair.weights.checkpoint import write_checkpoint

TINY = {"upscale": 2, "embed_dim": 8, "depths": [1], "d_state": 2, "mlp_ratio": 1.2, "upsampler": "pixelshuffledirect"}
MUON = {"type": "Muon", "lr": 1e-2, "weight_decay": 0.1}


class Mixed(nn.Module):
    """A matrix, a kernel, a table of biases and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 4)
        self.kernel = nn.Conv2d(2, 2, 3)
        self.relative_position_bias_table = nn.Parameter(torch.randn(9, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, times: int, first: int = 0) -> None:
    for number in range(first, first + times):
        generator = torch.Generator().manual_seed(number)
        for weight in net.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


def values(net: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def test_muon_is_torch_s_for_matrices_and_adamw_for_the_rest() -> None:
    net, other = Mixed(), Mixed()
    step(net, build_optimizer(MUON, net), 3)
    muon = torch.optim.Muon([other.linear.weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = {"lr": 1e-2, "betas": (0.9, 0.99)}
    decaying = torch.optim.AdamW([other.kernel.weight], weight_decay=0.1, **adam)
    rest = [other.linear.bias, other.kernel.bias, other.relative_position_bias_table]
    parts = [muon, decaying, torch.optim.AdamW(rest, weight_decay=0.0, **adam)]
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        for weight in other.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        for part in parts:
            part.step()
    for name, value in values(net).items():
        torch.testing.assert_close(value, values(other)[name], rtol=0, atol=0, msg=name)


def test_muon_continues_from_its_state_and_obeys_a_changed_rate() -> None:
    whole, first = Mixed(), Mixed()
    optimizer = build_optimizer(MUON, whole)
    step(whole, optimizer, 2)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    step(whole, optimizer, 2, first=2)
    optimizer = build_optimizer(MUON, first)
    step(first, optimizer, 2)
    second = Mixed()
    second.load_state_dict(first.state_dict())
    continued = build_optimizer(MUON, second)
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in continued.param_groups:
        group["lr"] = 1e-3
    step(second, continued, 2, first=2)
    assert all(torch.equal(value, values(second)[name]) for name, value in values(whole).items())
    with pytest.raises(ValueError, match="another optimiser than Muon"):
        continued.load_state_dict(torch.optim.Adam(second.parameters()).state_dict())


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "Muon"])
def test_rules_change_rate_and_decay(kind: str) -> None:
    rules = [
        {"pattern": "kernel.*", "lr_mult": 0.1, "weight_decay": 0.0, "freeze_until": 5},
        {"pattern": "*.bias", "lr_mult": 2.0},
    ]
    net = Mixed()
    optimizer = build_optimizer({"type": kind, "lr": 1e-2, "weight_decay": 0.5}, net, rules)
    names = {id(weight): name for name, weight in net.named_parameters()}
    found = {names[id(w)]: group for group in optimizer.param_groups for w in group["params"]}
    assert found.keys() == values(net).keys()
    assert {name: group["lr"] for name, group in found.items()} == pytest.approx(
        {
            "kernel.weight": 1e-3,
            "kernel.bias": 1e-3,  # the first rule that fits
            "linear.bias": 2e-2,
            "linear.weight": 1e-2,
            "relative_position_bias_table": 1e-2,
        }
    )
    assert found["kernel.weight"]["weight_decay"] == 0.0 and found["linear.weight"]["weight_decay"] == 0.5
    assert [name for name, group in found.items() if group.get("freeze_until")] == ["kernel.weight", "kernel.bias"]


def test_a_rule_for_nothing_is_refused() -> None:
    text = "no trainable parameter is left for the pattern 'kernels"
    with pytest.raises(RequestError, match=text):
        build_optimizer({"type": "Adam"}, Mixed(), [{"pattern": "kernels.*"}])


def options(folder: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "is_train": True,
        "model_type": "RestorationModel",
        "scale": 2,
        "num_gpu": 0,
        "network_g": {"type": "MambaIR", **TINY},
        "path": {key: str(folder / key) for key in ("experiments_root", "models", "training_states", "visualization")},
        "train": {
            "total_iter": 10,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "pixel_opt": {"type": "L1Loss"},
            **train,
        },
        "val": {},
        "logger": {},
    }


def batch(count: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lq, gt = torch.rand(count, 3, 8, 8, generator=generator), torch.rand(count, 3, 16, 16, generator=generator)
    return {"lq": lq, "gt": gt}


def test_frozen_until_an_iteration(tmp_path: Path) -> None:
    model = build_model(options(tmp_path, param_groups=[{"pattern": "conv_first.*", "freeze_until": 2}]))
    first, others = model.net_g.conv_first.weight, model.net_g.conv_after_body.weight
    start = first.detach().clone()
    for iteration in range(1, 4):
        before = others.detach().clone()
        model.update_learning_rate(iteration)
        model.feed_data(batch())
        model.optimize_parameters(iteration)
        assert torch.equal(start, first) == (iteration <= 2), iteration
        assert not torch.equal(before, others), iteration


@pytest.mark.parametrize("block", [True, False], ids=["class given", "recognised"])
def test_the_teacher_is_one_more_target(tmp_path: Path, block: bool) -> None:
    torch.manual_seed(5)
    teacher = build("MambaIR", {**TINY, "embed_dim": 12}).eval()
    path = tmp_path / "teacher.pth"
    write_checkpoint(path, teacher.state_dict(), {})
    opt = options(tmp_path, teacher_opt={"type": "MSELoss", "loss_weight": 0.5})
    opt["path"]["pretrain_network_g_teacher"] = str(path)
    if block:
        opt["network_g_teacher"] = {"type": "MambaIR", **TINY, "embed_dim": 12}
    model = build_model(opt)
    model.feed_data(batch())
    model.optimize_parameters(1)
    with torch.no_grad():
        expected = 0.5 * (model.output - teacher(batch()["lq"])).square().mean()
    assert model.get_current_log()["l_teacher"] == pytest.approx(float(expected), rel=1e-5)
    assert not any(weight.requires_grad for weight in model.teacher.parameters())


def test_a_teacher_of_another_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    write_checkpoint(path, build("MambaIR", {**TINY, "upscale": 3}).state_dict(), {})
    opt = options(tmp_path, teacher_opt={"type": "L1Loss"})
    opt["path"]["pretrain_network_g_teacher"] = str(path)
    with pytest.raises(SettingError, match="the teacher enlarges 3 times; scale is 2"):
        build_model(opt)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_mixing_keeps_pairs_together(name: str) -> None:
    """The ground truth is the enlarged input, so it must be that afterwards, too."""
    torch.manual_seed(3)
    lq = torch.rand(4, 3, 10, 7)
    gt = lq.repeat_interleave(2, 2).repeat_interleave(2, 3)
    changed = 0
    for _ in range(10):
        mixed_lq, mixed_gt = BatchMixing([name])(lq, gt)
        assert mixed_lq.shape == lq.shape and mixed_gt.shape == gt.shape
        assert float(mixed_lq.min()) >= 0 and float(mixed_lq.max()) <= 1
        if name == "cutblur":
            assert torch.equal(mixed_gt, gt)
        else:
            torch.testing.assert_close(mixed_lq.repeat_interleave(2, 2).repeat_interleave(2, 3), mixed_gt)
        changed += not torch.equal(mixed_lq, lq)
    assert changed == 0 if name == "none" else changed > 3


def test_cutmix_takes_a_tenth_to_half_of_another_image() -> None:
    lq = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 20, 20)
    shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        mixed, _ = BatchMixing(["cutmix"])(lq, lq)
        shares.append(float(mixed[0].mean()))
    some = [share for share in shares if share > 0]  # an image may be its own partner
    assert 5 < len(some) < 40 and min(some) > 0.07 and max(some) < 0.55


def test_mixing_is_drawn_as_often_as_asked_and_repeatable() -> None:
    lq = torch.rand(2, 3, 4, 4)
    mixing = BatchMixing(["none", "mixup"], [0.8, 0.2])

    def count() -> list[bool]:
        torch.manual_seed(1)
        return [not torch.equal(mixing(lq, lq)[0], lq) for _ in range(200)]

    assert 10 < sum(count()) < 50 and count() == count()


@pytest.mark.parametrize(
    ("names", "shares", "text"),
    [
        (["mixxup"], None, "moa_augs must name some of none, mixup, cutmix, cutblur, got mixxup"),
        (["none"], [0.5, 0.5], "moa_probs must be 1 numbers of 0 or more"),
        (["none", "mixup"], [0.0, 0.0], "not all 0"),
    ],
)
def test_refused_mixing(names: list[str], shares: list[float] | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        BatchMixing(names, shares)


def test_the_model_mixes_what_it_was_fed(tmp_path: Path) -> None:
    model = build_model(options(tmp_path, use_moa=True, moa_augs=["mixup"], moa_probs=None))
    torch.manual_seed(2)
    model.feed_data(batch(4))
    model.optimize_parameters(1)
    torch.manual_seed(2)
    expected = BatchMixing(["mixup"])(batch(4)["lq"], batch(4)["gt"])
    assert torch.equal(model.lq, expected[0]) and torch.equal(model.gt, expected[1])
    assert model.gt_gan is model.gt
