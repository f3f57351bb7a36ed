"""Option files of adversarial training: what a discriminator needs, and the files of published programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mambair.options import load_options

Write = Callable[..., Path]
Refused = Callable[..., list[str]]

MODEL = ("model_type: RestorationModel", "model_type: SRGANModel")
SIZE = ("gt_size: 16", "gt_size: 128")
DISCRIMINATOR = "network_d:\n  type: UNetDiscriminatorSN\n  num_in_ch: 3\n  num_feat: 4\n"
NETWORK = ("path:\n", f"{DISCRIMINATOR}path:\n")
OPTIMISER = "  optim_d:\n    type: Adam\n    lr: 1e-4\n"
LOSS = "  gan_opt:\n    type: GANLoss\n    gan_type: vanilla\n    loss_weight: 0.1\n"
TRAIN = ("  scheduler:\n", f"{OPTIMISER}{LOSS}  scheduler:\n")
WHOLE = (MODEL, NETWORK, TRAIN)


def with_network(text: str) -> tuple[str, str]:
    return ("path:\n", f"network_d:\n  {text}\npath:\n")


def with_loss(text: str) -> tuple[str, str]:
    return ("  scheduler:\n", f"{OPTIMISER}  gan_opt:\n    {text}\n  scheduler:\n")


def test_defaults(write: Write) -> None:
    opt = load_options(write(*WHOLE), is_train=True)
    assert opt["network_d"] == {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
    keys = ("net_d_iters", "net_d_init_iters", "r1_reg_weight", "net_d_reg_every", "ldl_opt")
    assert [opt["train"][key] for key in keys] == [1, 0, 0.0, 16, None]
    assert [opt["path"][f"{key}_d"] for key in ("pretrain_network", "strict_load", "param_key")] == [None, True, None]


FAULTS = {
    "no sections": ((MODEL,), ["network_d: SRGANModel needs network_d", "train: SRGANModel needs train.optim_d"]),
    "no gan_opt": (
        (MODEL, NETWORK, ("  scheduler:\n", f"{OPTIMISER}  scheduler:\n")),
        ["SRGANModel needs train.gan_opt"],
    ),
    "no use": (
        (NETWORK, TRAIN),
        [
            ":23: network_d: RestorationModel trains no discriminator; write model_type: SRGANModel",
            "train.optim_d: RestorationModel trains no discriminator",
            "train.gan_opt: RestorationModel trains no discriminator",
        ],
    ),
    "a network for images": (
        (MODEL, TRAIN, with_network("type: UNetDiscriminatorSNN")),
        ["network_d.type: no architecture named 'UNetDiscriminatorSNN'; did you mean 'UNetDiscriminatorSN'"],
    ),
    "channels": (
        (MODEL, TRAIN, with_network("type: UNetDiscriminatorSN\n  num_in_ch: 1")),
        ["network_d: UNetDiscriminatorSN cannot judge images of gt_size 16:"],
    ),
    "size": (
        (MODEL, TRAIN, with_network("type: VGGStyleDiscriminator\n  num_in_ch: 3\n  num_feat: 4")),
        ["network_d: VGGStyleDiscriminator cannot judge images of gt_size 16: images must have input_size 128"],
    ),
    "other size": (
        (MODEL, TRAIN, with_network("type: VGGStyleDiscriminator\n  num_in_ch: 3\n  num_feat: 4\n  input_size: 64")),
        ["network_d: VGGStyleDiscriminator refuses these values: input_size must be one of 128, 256, got 64"],
    ),
    "argument": (
        (MODEL, TRAIN, with_network("type: UNetDiscriminatorSN\n  num_in_ch: 3\n  num_feats: 4")),
        ["network_d.num_feats: UNetDiscriminatorSN has no argument 'num_feats'; did you mean num_feat?"],
    ),
    "kind of loss": (
        (MODEL, NETWORK, with_loss("type: GANLoss\n    gan_type: relu")),
        ["train.gan_opt.gan_type: found 'relu'; one of 'vanilla', 'lsgan', 'hinge', 'wgan', 'wgan_softplus' is right"],
    ),
    "pixel loss": (
        (MODEL, NETWORK, with_loss("type: L1Loss")),
        ["train.gan_opt.type: L1Loss compares images; expected a loss of scores, as GANLoss is"],
    ),
    "misplaced loss": (
        (*WHOLE, ("type: L1Loss", "type: GANLoss\n    gan_type: vanilla")),
        ["train.pixel_opt.type: GANLoss judges a discriminator's scores; it belongs to gan_opt"],
    ),
    "misplaced discriminator": (
        (
            (
                "  type: MambaIR\n  upscale: 4\n  embed_dim: 8\n  depths: [1]\n  d_state: 2\n  mlp_ratio: 1.2\n"
                "  upsampler: pixelshuffledirect\n",
                "  type: UNetDiscriminatorSN\n  num_in_ch: 3\n",
            ),
        ),
        ["network_g.type: UNetDiscriminatorSN is a discriminator; it belongs to network_d"],
    ),
    "artifacts": (
        (*WHOLE, ("  pixel_opt:\n", "  ldl_opt:\n    type: L1Loss\n  pixel_opt:\n")),
        ["train.ldl_opt: needs train.ema_decay above 0: artifacts are found by the averaged network"],
    ),
    "optimiser": (
        (MODEL, NETWORK, ("  scheduler:\n", f"  optim_d:\n    type: Adem\n    lr: 1e-4\n{LOSS}  scheduler:\n")),
        ["train.optim_d.type: no optimiser named 'Adem'; did you mean Adam"],
    ),
    "weights": (
        (*WHOLE, ("  pretrain_network_g: ~", "  pretrain_network_d: nowhere.pth")),
        ["path.pretrain_network_d: there is no file nowhere.pth"],
    ),
    "numbers": (
        (*WHOLE, ("  total_iter: 10\n", "  total_iter: 10\n  net_d_iters: 0\n  r1_reg_weight: -1\n")),
        ["train.net_d_iters: ", "train.r1_reg_weight: "],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_broken_files(name: str, write: Write, refused: Refused) -> None:
    changes, expected = FAULTS[name]
    lines = refused(write(*changes))
    for text in expected:
        assert any(text in line for line in lines), "\n".join(lines)
    assert all(":" in line and line.startswith(str(Path.cwd())) for line in lines)


def test_a_file_for_testing_needs_no_discriminator(write: Write) -> None:
    opt = load_options(write(("RestorationModel", "SRGANModel"), is_train=False), is_train=False)
    assert opt["model_type"] == "SRGANModel"


def test_a_list_of_losses(write: Write, refused: Refused) -> None:
    two = (
        "  pixel_opt:\n    type: L1Loss\n",
        "  pixel_opt: [{type: L1Loss}, {type: ConsistencyLoss, patch_size: 4}]\n",
    )
    opt = load_options(write(two), is_train=True)
    assert [loss["type"] for loss in opt["train"]["pixel_opt"]] == ["L1Loss", "ConsistencyLoss"]
    wrong = ("  pixel_opt:\n    type: L1Loss\n", "  pixel_opt: [{type: L1Loss}, {type: ConsistencyLoss, patch: 4}]\n")
    (line,) = refused(write(wrong))
    assert "train.pixel_opt[1].patch: ConsistencyLoss has no argument 'patch'; did you mean patch_size?" in line
