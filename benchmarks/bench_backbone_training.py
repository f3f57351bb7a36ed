"""Short trainings of the restoration networks on backbones, beside bicubic interpolation, the noisy and the JPEG image.

python benchmarks/bench_backbone_training.py --train FOLDER --test FOLDER [--iterations 300] [--tasks sr_x2 dn25]

Prints a Markdown table of PSNR (RGB, dB, mean over the test images' middles of at most 128 x 128 pixels). Everything is
drawn from --seed. Exit code 1 when a network does not beat what it starts from.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

REPOSITORY = Path(__file__).resolve().parents[1]
NETWORKS: dict[str, dict[str, Any]] = {
    "VimSR": {"embed_dim": 32, "depth": 4, "d_state": 4},
    "VSSMUNet": {"dims": [24, 48], "depths": [1, 1], "shallow_dim": 24},
}
TASKS = {"sr_x2": 2, "sr_x3": 3, "sr_x4": 4, "dn25": 1, "jpeg40": 1}  # task: factor of enlargement
SIGMA = 25.0
QUALITY = 40
MIDDLE = 128
BATCH, PATCH, RATE = 4, 24, 2e-3  # images, side of the network's input, highest learning rate


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="folder with training images")
    parser.add_argument("--test", type=Path, required=True, help="folder with test images")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["sr_x2", "dn25", "jpeg40"])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def read_rgb(folder: Path, multiple: int) -> list[np.ndarray]:
    """uint8 [H, W, 3] images with sides that are multiples of ``multiple``."""
    from mambair.images.files import list_images, read_image

    images = [read_image(path).pixels for path in list_images(folder)]
    images = [image for image in images if image.shape[2] == 3 and image.dtype.name == "uint8"]
    if not images:
        sys.exit(f"{folder}: there are no 8-bit colour images")
    return [image[: len(image) // multiple * multiple, : image.shape[1] // multiple * multiple] for image in images]


def degrade(task: str) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """uint8 image -> the network's input, float32 in [0, 1]."""
    import numpy as np

    from mambair.images.resize import imresize

    if task == "jpeg40":
        return lambda image, rng: _compressed(image)
    if task == "dn25":
        return lambda image, rng: (image / 255 + rng.normal(0, SIGMA / 255, image.shape)).astype(np.float32)
    return lambda image, rng: imresize(image, 1 / TASKS[task]).astype(np.float32) / 255


def _compressed(image: np.ndarray) -> np.ndarray:
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY)
    with Image.open(buffer) as jpeg:
        return np.asarray(jpeg).astype(np.float32) / 255


def to_tensor(images: list[np.ndarray]) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def train(net: torch.nn.Module, task: str, images: list[np.ndarray], iterations: int, seed: int) -> None:
    """Adam on the mean absolute error of random patches, one cycle of the learning rate."""
    import numpy as np
    import torch

    scale, rng = TASKS[task], np.random.default_rng(seed)
    side, make_input = PATCH * scale, degrade(task)
    usable = [image for image in images if min(image.shape[:2]) >= side]
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=iterations)
    net.train()
    for _ in range(iterations):
        patches = []
        for _ in range(BATCH):
            image = usable[rng.integers(len(usable))]
            top, left = (rng.integers(length - side + 1) for length in image.shape[:2])
            patches.append(image[top : top + side, left : left + side])
        lq = to_tensor([make_input(patch, rng) for patch in patches])
        loss = (net(lq) - to_tensor(patches) / 255).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def measure(net: torch.nn.Module, task: str, images: list[np.ndarray], seed: int) -> tuple[float, float]:
    """Mean PSNR of what the network starts from (bicubic, the noisy or the JPEG image), and of the network."""
    import numpy as np
    import torch

    from mambair.images.resize import imresize
    from mambair.metrics import calculate_psnr

    scale, make_input, rng = TASKS[task], degrade(task), np.random.default_rng(seed + 1)
    before, after = [], []
    net.eval()
    for image in images:
        gt = _middle(image, scale)
        lq = make_input(gt, rng)
        with torch.no_grad():
            output = net(to_tensor([lq]))[0].permute(1, 2, 0).numpy()
        start = imresize(lq, float(scale)) if scale > 1 else lq
        for scores, result in ((before, start), (after, output)):
            rounded = np.clip(result * 255, 0, 255).round().astype(np.uint8)
            scores.append(calculate_psnr(rounded, gt, crop_border=scale if scale > 1 else 0))
    return float(np.mean(before)), float(np.mean(after))


def _middle(image: np.ndarray, scale: int) -> np.ndarray:
    side = MIDDLE // scale * scale
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def main() -> int:
    arguments = parse_arguments()
    sys.path.insert(0, str(REPOSITORY))
    import torch

    from mambair.archs import build
    from mambair.system.machine import describe_machine

    torch.set_num_threads(arguments.threads)
    print(f"{describe_machine()}; {arguments.iterations} iterations, seed {arguments.seed}\n")
    print("| task | network | parameters | before | after | gain | seconds |")
    print("|---|---|---|---|---|---|---|")
    beaten = True
    for task in arguments.tasks:
        scale = TASKS[task]
        training, testing = read_rgb(arguments.train, 1), read_rgb(arguments.test, scale)
        for name in arguments.networks:
            torch.manual_seed(arguments.seed)
            extra = {"upsampler": "pixelshuffledirect" if scale > 1 else ""} if name == "VimSR" else {}
            net = build(name, {"upscale": scale, **NETWORKS[name], **extra})
            started = time.perf_counter()
            train(net, task, training, arguments.iterations, arguments.seed)
            seconds = time.perf_counter() - started
            before, after = measure(net, task, testing, arguments.seed)
            beaten = beaten and after > before
            count = sum(parameter.numel() for parameter in net.parameters())
            gain = f"{after - before:+.2f}"
            print(f"| {task} | {name} | {count} | {before:.2f} | {after:.2f} | {gain} | {seconds:.0f} |", flush=True)
    return 0 if beaten else 1


if __name__ == "__main__":
    sys.exit(main())
