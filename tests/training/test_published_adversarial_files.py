"""Option files in the layout of Real-ESRGAN's and HAT's: their values, our example images, nothing else changed.

They are written anew from the published values. RRDBNet is basicsr's; HAT's network, which is in no
package and comes in by ``--import``, is replaced.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from mambair.images.decoded_image import DecodedImage
from mambair.images.files import read_rgb, write_image
from mambair.images.resize import imresize
from mambair.options import load_options
from mambair.registry import basicsr_installed
from mambair.train import main

pytestmark = pytest.mark.usefixtures("with_vgg19")

RECIPE = Path(__file__).resolve().parents[1] / "golden" / "realesrgan"
# the degradations of the published option files: the first half stands in the data set, the second at the top level
FIRST_HALF = textwrap.indent((RECIPE / "first_half.yml").read_text(encoding="utf-8"), "    ")
SECOND_HALF = (RECIPE / "second_half.yml").read_text(encoding="utf-8")
SECOND_STAGE = f"""\
{SECOND_HALF}gt_size: 256
queue_size: 180
"""
SYNTHETIC = f"""\
    type: RealESRGANDataset
    dataroot_gt: GT
    meta_info: GT/names.txt
    io_backend:
      type: disk
{FIRST_HALF}    gt_size: 256
    use_hflip: True
    use_rot: False
"""
PAIRED = """\
    type: RealESRGANPairedDataset
    dataroot_gt: GT
    dataroot_lq: LQ
    meta_info: GT/pairs.txt
    io_backend:
      type: disk
    gt_size: 256
    use_hflip: True
    use_rot: False
"""
LOADER = """\
    use_shuffle: true
    num_worker_per_gpu: 5
    batch_size_per_gpu: 12
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
"""
RRDB = "  type: RRDBNet\n  num_in_ch: 3\n  num_out_ch: 3\n  num_feat: 64\n  num_block: 23\n  num_grow_ch: 32\n"
STAND_IN = (
    "  type: MambaIR\n  upscale: 4\n  in_chans: 3\n  embed_dim: 60\n  depths: [6, 6]\n  upsampler: pixelshuffle\n"
)
DISCRIMINATOR = "network_d:\n  type: UNetDiscriminatorSN\n  num_in_ch: 3\n  num_feat: 64\n  skip_connection: True\n"
PIXEL = "  pixel_opt:\n    type: L1Loss\n    loss_weight: 1.0\n    reduction: mean\n"
ADVERSARIAL = """\
  perceptual_opt:
    type: PerceptualLoss
    layer_weights:
      'conv1_2': 0.1
      'conv2_2': 0.1
      'conv3_4': 1
      'conv4_4': 1
      'conv5_4': 1
    vgg_type: vgg19
    use_input_norm: true
    perceptual_weight: !!float 1.0
    style_weight: 0
    range_norm: false
    criterion: l1
  gan_opt:
    type: GANLoss
    gan_type: vanilla
    real_label_val: 1.0
    fake_label_val: 0.0
    loss_weight: !!float 1e-1
  net_d_iters: 1
  net_d_init_iters: 0
"""


def adam(key: str, rate: str) -> str:
    return f"  {key}:\n    type: Adam\n    lr: !!float {rate}\n    weight_decay: 0\n    betas: [0.9, 0.99]\n"


def schedule(steps: int) -> str:
    text = f"  scheduler:\n    type: MultiStepLR\n    milestones: [{steps}]\n    gamma: 0.5\n"
    return f"{text}  total_iter: {steps}\n  warmup_iter: -1\n"


def option_file(name: str) -> str:
    """The text of one published file."""
    is_pixel = name in ("realesrnet_x4plus", "hat_mse")
    is_paired, is_hat = name == "finetune_x4plus_pairs", name.startswith("hat")
    model = {(True, False): "RealESRNet", (True, True): "RealHATMSE", (False, False): "RealESRGAN"}
    head = f"name: {name}\nmodel_type: {model.get((is_pixel, is_hat), 'RealHATGAN')}Model\nscale: 4\n"
    head += f"num_gpu: {8 if is_hat else 4}\nmanual_seed: 0\n"
    targets = "gt_usm: True\n" if is_pixel else "l1_gt_usm: True\npercep_gt_usm: True\ngan_gt_usm: False\n"
    if is_paired:
        targets += "high_order_degradation: False\n"
    rate, steps = ("2e-4" if is_pixel and not is_hat else "1e-4"), 1000000 if is_pixel else 400000
    ema = "  ema_decay: 0.999\n"
    data = "datasets:\n  train:\n    name: DF2K+OST\n" + (PAIRED if is_paired else SYNTHETIC) + LOADER
    validation = (
        "  val:\n    name: validation\n    type: PairedImageDataset\n    dataroot_gt: GT\n    dataroot_lq: LQ\n"
    )
    networks = "network_g:\n" + (STAND_IN if is_hat else RRDB) + ("" if is_pixel else DISCRIMINATOR)
    paths = "path:\n  pretrain_network_g: ~\n  param_key_g: params_ema\n  strict_load_g: true\n  resume_state: ~\n"
    train = "train:\n" + ema + adam("optim_g", rate) + ("" if is_pixel else adam("optim_d", rate)) + schedule(steps)
    train += PIXEL + ("" if is_pixel else ADVERSARIAL)
    val = "val:\n  val_freq: !!float 5e3\n  save_img: True\n  pbar: False\n"
    val += "  metrics:\n    psnr:\n      type: calculate_psnr\n      crop_border: 4\n      test_y_channel: false\n"
    log = "logger:\n  print_freq: 100\n  save_checkpoint_freq: !!float 5e3\n  use_tb_logger: false\n"
    log += "  wandb:\n    project: ~\n    resume_id: ~\ndist_params:\n  backend: nccl\n  port: 29500\n"
    return "\n".join(
        [head, targets, "" if is_paired else SECOND_STAGE, data + validation, networks, paths, train, val, log]
    )


FILES = ["realesrnet_x4plus", "realesrgan_x4plus", "finetune_x4plus_pairs", "hat_mse", "hat_gan"]
SMALL = [
    "datasets:train:gt_size=32",
    "datasets:train:batch_size_per_gpu=2",
    "datasets:train:num_worker_per_gpu=0",
    "num_gpu=0",
    "train:total_iter=2",
    "train:scheduler:milestones=[1]",
]
SMALL_D = ["network_d:num_feat=4", "train:perceptual_opt:layer_weights={conv1_2: 1.0}"]


@pytest.fixture(params=FILES)
def published(
    request: pytest.FixtureRequest, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A published file beside folders of images and the lists that it names."""
    if not request.param.startswith("hat") and not basicsr_installed():
        pytest.skip("RRDBNet needs basicsr, which is not installed")
    monkeypatch.chdir(tmp_path)
    example = repository / "datasets" / "example"
    (tmp_path / "GT").mkdir()
    (tmp_path / "LQ").mkdir()
    paths = sorted((example / "gt").glob("*.png"))[:3]
    for path in paths:
        gt = np.tile(read_rgb(path), (2, 2, 1))[:256, :256]  # the examples are smaller than the published patches
        write_image(tmp_path / "GT" / path.name, DecodedImage(gt))
        write_image(tmp_path / "LQ" / path.name, DecodedImage(imresize(gt, 0.25)))
    names = [path.name for path in paths]
    (tmp_path / "GT" / "names.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "GT" / "pairs.txt").write_text("".join(f"{name}, {name}\n" for name in names))
    path = tmp_path / f"{request.param}.yml"
    path.write_text(option_file(request.param))
    return path


def test_the_whole_file_is_accepted(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    opt = load_options(published, is_train=True)
    assert opt["datasets"]["train"]["total_batch_size"] == 12 * opt["num_gpu"]
    dropped = [record.getMessage() for record in caplog.records if "no effect" in record.getMessage()]
    assert len(dropped) == 1 and "dist_params" in dropped[0] and "network_d" not in dropped[0]


def test_it_is_checked_and_runs_when_it_is_smaller(published: Path) -> None:
    network = ["network_g:num_feat=4", "network_g:num_block=1", "network_g:num_grow_ch=4"]
    if published.stem.startswith("hat"):
        network = ["network_g:embed_dim=8", "network_g:depths=[1]"]
    network += [] if "pairs" in published.stem else ["gt_size=32"]
    changes = [*SMALL, *network, *([] if published.stem in ("realesrnet_x4plus", "hat_mse") else SMALL_D)]
    assert main(["-opt", str(published), "--check", "--force_yml", *changes]) == 0
    assert main(["-opt", str(published), "--force_yml", *changes]) == 0
