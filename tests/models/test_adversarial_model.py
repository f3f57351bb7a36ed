"""Adversarial training: each part of a step against BasicSR's and against its formula; saving and resuming."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mambair.archs import build
from mambair.losses import GANLoss
from mambair.losses.artifact_map import artifact_weights, local_variance
from mambair.losses.gan_loss import GAN_TYPES, gradient_penalty
from mambair.models import build_model
from mambair.registry import ARCH_REGISTRY, MODEL_REGISTRY, basicsr_installed, import_basicsr
from mambair.weights.checkpoint import read_state

needs_basicsr = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")


@ARCH_REGISTRY.register(name="OneConvolutionForTests")
class OneConvolution(nn.Module):
    """The smallest network with an upscale."""

    def __init__(self) -> None:
        super().__init__()
        self.upscale, self.in_chans = 2, 3
        self.only = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.only(x), 2)


def options(folder: Path, model_type: str = "SRGANModel", **train: Any) -> dict[str, Any]:
    adam = {"type": "Adam", "lr": 1e-2, "betas": [0.9, 0.99]}
    paths = {key: str(folder / key) for key in ("experiments_root", "models", "training_states", "visualization")}
    return {
        "name": "tiny",
        "is_train": True,
        "model_type": model_type,
        "scale": 2,
        "num_gpu": 0,
        "dist": False,
        "manual_seed": 5,
        "network_g": {"type": "OneConvolutionForTests"},
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4},
        "path": paths,
        "train": {
            "total_iter": 100,
            "optim_g": adam,
            "optim_d": dict(adam, lr=5e-3),
            "scheduler": {"type": "MultiStepLR", "milestones": [5], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
            **train,
        },
        "val": {},
        "logger": {},
    }


def make(folder: Path, model_type: str = "SRGANModel", **train: Any) -> Any:
    torch.manual_seed(0)
    return build_model(options(folder, model_type, **train))


def batch(number: int, count: int = 4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    lq, gt = torch.rand(count, 3, 8, 12, generator=generator), torch.rand(count, 3, 16, 24, generator=generator)
    return {"lq": lq, "gt": gt}


def run(model: Any, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        model.feed_data(batch(iteration))
        model.optimize_parameters(iteration)


def weights(*networks: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for net in networks for value in net.state_dict().values()]).clone()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("RealESRGANModel", "SRGANModel"),
        ("RealHATGANModel", "SRGANModel"),
        ("RealESRNetModel", "RestorationModel"),
        ("RealHATMSEModel", "RestorationModel"),
    ],
)
def test_published_names(name: str, model: str) -> None:
    assert MODEL_REGISTRY.get(name) is MODEL_REGISTRY.get(model)


@needs_basicsr
@pytest.mark.parametrize("gan_type", GAN_TYPES)
@pytest.mark.parametrize("model_type", ["SRGANModel", "ESRGANModel"])
def test_weights_after_steps_are_basicsr_s(tmp_path: Path, model_type: str, gan_type: str) -> None:
    """Three steps from the same weights on the same batches; the same operations in the same order, bit for bit."""
    gan = {"type": "GANLoss", "gan_type": gan_type, "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 0.1}
    ours = make(tmp_path, model_type, gan_opt=gan, scheduler=None)
    import_basicsr()
    opt = options(tmp_path, f"basicsr/{model_type}", gan_opt=gan)
    opt["network_g"], opt["network_d"] = {"type": "OneConvolutionForTests"}, opt["network_d"]
    from basicsr.utils.registry import ARCH_REGISTRY as THEIRS

    if "OneConvolutionForTests" not in THEIRS:
        THEIRS.register(OneConvolution, suffix=None)
        THEIRS._obj_map["OneConvolutionForTests"] = OneConvolution
    theirs = MODEL_REGISTRY.get(f"basicsr/{model_type}")(opt)
    theirs.net_g.load_state_dict(ours.net_g.state_dict())
    theirs.net_d.load_state_dict(ours.net_d.state_dict())
    for iteration in range(1, 4):
        for model in (ours, theirs):
            model.feed_data(batch(iteration))
            model.optimize_parameters(iteration)
    assert torch.equal(weights(ours.net_g), weights(theirs.net_g))
    assert torch.equal(weights(ours.net_d), weights(theirs.net_d))


@needs_basicsr
@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("UNetDiscriminatorSN", {"num_in_ch": 3, "num_feat": 4}, 24),
        ("UNetDiscriminatorSN", {"num_in_ch": 1, "num_feat": 4, "skip_connection": False}, 8),
        ("VGGStyleDiscriminator", {"num_in_ch": 3, "num_feat": 4}, 128),
        ("VGGStyleDiscriminator", {"num_in_ch": 3, "num_feat": 4, "input_size": 256}, 256),
    ],
)
def test_discriminators_are_basicsr_s(name: str, arguments: dict[str, Any], side: int) -> None:
    ours, theirs = build(name, arguments), build(f"basicsr/{name}", arguments)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(2, arguments["num_in_ch"], side, side)
    assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize(
    ("gan_type", "is_real", "is_disc", "expected"),
    [
        ("vanilla", True, True, "softplus(-1) + softplus(2)"),
        ("vanilla", False, False, "softplus(1) + softplus(-2)"),
        ("lsgan", True, True, "0 + 9"),
        ("lsgan", False, True, "1 + 4"),
        ("hinge", True, True, "0 + 3"),
        ("hinge", False, True, "2 + 0"),
        ("hinge", True, False, "-1 + 2"),
        ("wgan", True, True, "-1 + 2"),
        ("wgan", False, False, "1 - 2"),
        ("wgan_softplus", True, True, "softplus(-1) + softplus(2)"),
        ("wgan_softplus", False, False, "softplus(1) + softplus(-2)"),
    ],
)
def test_losses_of_scores(gan_type: Any, is_real: bool, is_disc: bool, expected: str) -> None:
    """The scores are 1 and -2; the generator's loss has the factor 0.5."""
    softplus = {"-1": 0.313261688, "1": 1.313261688, "2": 2.126928011, "-2": 0.126928011}
    terms = [term.strip() for term in expected.replace(" - ", " + -").split(" + ")]
    values = [softplus[term[9:-1]] if term.startswith("softplus") else float(term) for term in terms]
    loss = GANLoss(gan_type, loss_weight=0.5)(torch.tensor([1.0, -2.0]), is_real, is_disc)
    assert float(loss) == pytest.approx(sum(values) / 2 * (1.0 if is_disc else 0.5), abs=1e-6)


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    """The gradient of a weighted sum of pixels is its weights, at any image."""
    factors, images = torch.randn(3, 4, 5), torch.rand(2, 3, 4, 5, requires_grad=True)
    penalty = gradient_penalty((images * factors).sum((1, 2, 3)), images)
    assert float(penalty) == pytest.approx(float(factors.square().sum()), rel=1e-6)


def test_artifact_weights() -> None:
    torch.manual_seed(1)
    gt, output, averaged = torch.rand(3, 2, 3, 16, 20)
    weights_ = artifact_weights(gt, output, averaged)
    residual = (gt - output).abs().sum(1, keepdim=True)
    worse = residual < (gt - averaged).abs().sum(1, keepdim=True)
    assert weights_.shape == (2, 1, 16, 20) and worse.any() and not worse.all()
    assert torch.equal(weights_ == 0, worse)
    expected = float(residual[1, 0, 4:11, 6:13].var() * residual[1].var() ** 0.2)
    row, column = 7, 9
    assert float(local_variance(residual)[1, 0, row, column] * residual[1].var() ** 0.2) == pytest.approx(expected)
    assert worse[1, 0, row, column] or float(weights_[1, 0, row, column]) == pytest.approx(expected)


@pytest.mark.parametrize("model_type", ["SRGANModel", "ESRGANModel"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(tmp_path: Path, model_type: str) -> None:
    """Spectral norms are settled and then left alone; scores relative to a mean depend on the part: equal parts."""
    found = []
    for accumulation in (1, 2):
        model = make(tmp_path, model_type, accumulation=accumulation, r1_reg_weight=1.0, net_d_reg_every=1)
        for _ in range(20):
            model.net_d(torch.rand(1, 3, 16, 16))
        model.net_d.eval()
        data = {key: value[:2].repeat(2, 1, 1, 1) for key, value in batch(1).items()}
        model.feed_data(data)
        model.optimize_parameters(1)
        found.append([p.grad for net in (model.net_g, model.net_d) for p in net.parameters()] + [model._losses])
    largest = max(float(gradient.abs().max()) for gradient in found[0][:-1])
    for whole, parts in zip(found[0][:-1], found[1][:-1], strict=True):
        # the sums are made in another order: float32's rounding, relative to the largest entry
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5 * largest)
    for name, value in found[0][-1].items():
        torch.testing.assert_close(found[1][-1][name], value, rtol=1e-5, atol=1e-6)


def test_when_which_network_steps(tmp_path: Path) -> None:
    model = make(tmp_path, net_d_iters=2, net_d_init_iters=3, ema_decay=0.5)
    stepped = []
    for iteration in range(1, 8):
        before, average = (weights(net) for net in (model.net_g, model.average.net))
        before_d = weights(*model.net_d.children())
        run(model, iteration, iteration)
        moved = not torch.equal(before, weights(model.net_g))
        assert moved == (not torch.equal(average, weights(model.average.net)))
        assert moved == ("l_pix" in model.get_current_log())
        assert not torch.equal(before_d, weights(*model.net_d.children()))
        stepped.append(moved)
    assert stepped == [False, False, False, True, False, True, False]


def test_r1_only_at_its_iterations(tmp_path: Path) -> None:
    model = make(tmp_path, r1_reg_weight=10.0, net_d_reg_every=3)
    for iteration in range(1, 7):
        run(model, iteration, iteration)
        assert ("l_d_r1" in model.get_current_log()) == (iteration % 3 == 0)


def test_the_discriminator_sees_gt_gan(tmp_path: Path) -> None:
    model, seen = make(tmp_path), []
    model.net_d.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    data = batch(1)
    data["gt_gan"] = data["gt"].flip(-1)
    model.feed_data(data)
    model.optimize_parameters(1)
    fake = model.output.detach()
    expected = [fake, data["gt_gan"], fake]
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


def test_ldl_weighs_the_pixel_loss(tmp_path: Path) -> None:
    model = make(tmp_path, ema_decay=0.9, ldl_opt={"type": "L1Loss"})
    run(model, 1, 3)
    model.feed_data(batch(4))
    with torch.no_grad():
        output, averaged = model.net_g(model.lq), model.average.net(model.lq)
        factor = artifact_weights(model.gt, output, averaged)
        expected = float((factor * (output - model.gt)).abs().mean())
    model.optimize_parameters(4)
    assert model.get_current_log()["l_g_ldl"] == pytest.approx(expected, rel=1e-5)


def test_losses_of_a_list_are_added(tmp_path: Path) -> None:
    model = make(tmp_path, pixel_opt=[{"type": "L1Loss"}, {"type": "MSELoss", "loss_weight": 3.0}])
    run(model, 1, 1)
    log, error = model.get_current_log(), model.output.detach() - model.gt
    assert log["l_pix"] == pytest.approx(float(error.abs().mean()))
    assert log["l_pix_2"] == pytest.approx(3 * float(error.square().mean()))


def test_resuming_is_bit_equal(tmp_path: Path) -> None:
    train = {"ema_decay": 0.9, "ema_warmup": True, "r1_reg_weight": 1.0, "net_d_reg_every": 2, "net_d_iters": 2}
    whole = make(tmp_path / "whole", **train)
    run(whole, 1, 8)
    first = make(tmp_path / "parts", **train)
    run(first, 1, 4)
    first.save(0, 4)
    opt = options(tmp_path / "parts", **train)
    for label in ("g", "d"):
        opt["path"][f"pretrain_network_{label}"] = str(tmp_path / "parts" / "models" / f"net_{label}_4.pth")
        opt["path"][f"param_key_{label}"] = "params"
    torch.manual_seed(99)
    second = build_model(copy.deepcopy(opt))
    second.resume_training(read_state(tmp_path / "parts" / "training_states" / "4.state"))
    run(second, 5, 8)
    for name in ("net_g", "net_d"):
        assert torch.equal(weights(getattr(second, name)), weights(getattr(whole, name)))
    assert torch.equal(weights(second.average.net), weights(whole.average.net))


def test_a_state_of_a_model_without_discriminator_is_refused(tmp_path: Path) -> None:
    model = make(tmp_path)
    state = {"optimizers": [model.optimizer_g.state_dict()], "iter": 1}
    with pytest.raises(ValueError, match="the training state has 1 optimisers, this model 2"):
        model.resume_training(state)


def test_a_step_that_is_not_finite_moves_neither_network(tmp_path: Path) -> None:
    model = make(tmp_path)
    before = weights(model.net_g), nn.utils.parameters_to_vector(model.net_d.parameters()).clone()
    data = batch(1)
    data["gt"][0, 0, 0, 0] = float("nan")
    model.feed_data(data)
    model.optimize_parameters(1)
    assert torch.equal(before[0], weights(model.net_g))
    assert torch.equal(before[1], nn.utils.parameters_to_vector(model.net_d.parameters()))


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "message"),
    [
        ("UNetDiscriminatorSN", {"num_in_ch": 3}, (1, 3, 12, 16), "must be multiples of 8, got 12 x 16"),
        (
            "VGGStyleDiscriminator",
            {"num_in_ch": 3, "num_feat": 4},
            (1, 3, 64, 64),
            "input_size 128 on each side, got 64",
        ),
    ],
)
def test_sizes_that_are_refused(name: str, arguments: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, arguments)(torch.zeros(shape))


@pytest.mark.parametrize("name", ["mixup", "cutmix", "cutblur"])
@pytest.mark.parametrize("own_real", [False, True], ids=["gt", "gt_gan"])
def test_what_is_taken_for_real_is_mixed_as_the_ground_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, own_real: bool
) -> None:
    """Otherwise the discriminator tells mixed images from whole ones, and the network learns to undo the mixing."""
    model = make(tmp_path, use_moa=True, moa_augs=[name], moa_probs=None)
    judged: list[Tensor] = []
    monkeypatch.setattr(model, "_train_discriminator", lambda real, fake: (judged.append(real), {})[1])
    fed = batch(1)
    whole = fed["gt"]
    if own_real:
        fed["gt_gan"] = whole + 2
    torch.manual_seed(4)
    model.feed_data(fed)
    model.optimize_parameters(1)
    (real,) = judged
    assert torch.equal(model.gt, whole) == (name == "cutblur"), "cutblur changes the input alone"
    torch.testing.assert_close(real, model.gt + 2 if own_real else model.gt)
