"""Training patches a second from large PNGs: out of whole images, sub-images and LMDBs, by number of reading processes.

python benchmarks/bench_loader.py [--pictures FOLDER] [--workers 0 1 2] [--save benchmarks/results/loader-cpu.md]

The images are mosaics of 2040 x 1356 pixels, made of the pictures in a folder, and everything is read as a training of
x4 reads it: a random patch of 256 pixels, its MATLAB reduction made on the fly, flips, batches of 16. No pixels are
kept but in the last line; the files are in the system's cache. Below stands what a training of MambaIR-light takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 1356, 2040
SUB_SIZE, SUB_STEP = 480, 240  # BasicSR's sub-images of DF2K
BATCH = 16
# the published light network, x4, on patches of 64 x 64 pixels (256 of ground truth)
LIGHT: dict[str, Any] = {
    "upscale": 4,
    "embed_dim": 60,
    "depths": [6, 6, 6, 6],
    "d_state": 10,
    "mlp_ratio": 1.2,
    "upsampler": "pixelshuffledirect",
}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "datasets" / "example" / "gt", metavar="FOLDER")
    parser.add_argument("--images", type=int, default=12, help="mosaics to make (default: 12)")
    parser.add_argument("--patch", type=int, default=256, help="side of the patches (default: 256)")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each figure (default: 5)")
    parser.add_argument("--no-training", action="store_true", help="leave out the training step")
    parser.add_argument("--save", type=Path, help="also write the table into this file")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(REPOSITORY))
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder), options)
    print(text)
    if options.save:
        options.save.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> str:
    """The table, as Markdown."""
    import torch

    from mambair.system.machine import describe_machine

    machine = describe_machine("numpy", "Pillow", "lmdb")
    lines = [
        f"{machine}; {options.images} mosaics of {WIDTH} x {HEIGHT} RGB as PNG, patches of {options.patch}, reduced "
        f"by 4 on the fly, batches of {BATCH}; {options.seconds:.0f} s each.",
        "",
        "| images a second from | " + " | ".join(f"{count} workers" for count in options.workers) + " |",
        "|---|" + "---|" * len(options.workers),
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as worker processes have
    for name, opt in sources(folder, options):
        rates = [f"{rate(opt, workers, options.seconds):.1f}" for workers in options.workers]
        lines.append(f"| {name} | {' | '.join(rates)} |")
    torch.set_num_threads(threads)
    if not options.no_training:
        lines += ["", training(options.patch)]
    return "\n".join(lines)


def sources(folder: Path, options: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    """What is compared: a name and the options of a data set, whose files are made here."""
    from mambair.data_tools.prepare import make_lmdb, make_sub_images
    from mambair.data_tools.sub_images import Grid

    whole, parts = folder / "whole", folder / "parts"
    make_mosaics(options.pictures, whole, options.images)
    make_sub_images(whole, parts, Grid(SUB_SIZE, SUB_STEP))
    for source in (whole, parts):
        make_lmdb(source, source.with_suffix(".lmdb"))
    opt = {
        "type": "BicubicDataset",
        "phase": "train",
        "scale": 4,
        "gt_size": options.patch,
        "use_hflip": True,
        "use_rot": True,
        "cache": False,
    }
    lmdb = {"io_backend": {"type": "lmdb"}}
    return [
        ("PNGs of 2K in a folder", opt | {"dataroot_gt": str(whole)}),
        (f"sub-images of {SUB_SIZE} in a folder", opt | {"dataroot_gt": str(parts)}),
        ("LMDB of the PNGs of 2K", opt | {"dataroot_gt": f"{whole}.lmdb"} | lmdb),
        ("LMDB of the sub-images", opt | {"dataroot_gt": f"{parts}.lmdb"} | lmdb),
        ("PNGs of 2K, `cache: true`", opt | {"dataroot_gt": str(whole), "cache": True}),
    ]


def make_mosaics(pictures: Path, folder: Path, count: int) -> None:
    """Large images, filled with pieces of the pictures at random places, side by side."""
    import numpy as np

    from mambair.images.files import DecodedImage, list_images, read_rgb, write_image

    pieces = [read_rgb(path) for path in list_images(pictures)]
    if not pieces:
        raise SystemExit(f"{pictures} holds no image; name a folder of pictures with --pictures")
    rng = np.random.default_rng(0)
    for number in range(count):
        mosaic = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        top = 0
        while top < HEIGHT:
            row = pieces[rng.integers(len(pieces))]
            _fill_row(mosaic[top : top + row.shape[0]], pieces, rng)
            top += row.shape[0]
        write_image(folder / f"{number:04d}.png", DecodedImage(mosaic))


def _fill_row(row: np.ndarray, pieces: list[np.ndarray], rng: np.random.Generator) -> None:
    import numpy as np

    left = 0
    while left < row.shape[1]:
        piece = pieces[rng.integers(len(pieces))]
        # higher rows than the piece: mirrored, so that no edge repeats
        rows = np.pad(piece, ((0, max(0, row.shape[0] - piece.shape[0])), (0, 0), (0, 0)), mode="symmetric")
        width = min(piece.shape[1], row.shape[1] - left)
        row[:, left : left + width] = rows[: row.shape[0], :width]
        left += width


def rate(opt: dict[str, Any], workers: int, seconds: float) -> float:
    """Images a second, after the first few batches."""
    from mambair.data import build_dataset
    from mambair.data.loader import TrainingBatches, build_train_loader

    batches = TrainingBatches(build_train_loader(build_dataset(opt), batch_size=BATCH, seed=0, num_workers=workers))
    # what the workers have read ahead when the clock starts is read ahead again when it stops
    for _ in range(1 + 2 * workers):
        next(batches)
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        taken += BATCH
    elapsed = time.perf_counter() - start
    batches.close()
    return taken / elapsed


def training(patch: int) -> str:
    """A sentence on how many images a second a training of MambaIR-light takes on this machine."""
    import torch

    from mambair.archs import build

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = build("MambaIR", LIGHT).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    batch = 4
    lq, gt = (
        torch.rand(batch, 3, patch // 4, patch // 4, device=device),
        torch.rand(batch, 3, patch, patch, device=device),
    )
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.l1_loss(net(lq), gt).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    name = torch.cuda.get_device_name() if device == "cuda" else f"this CPU with {torch.get_num_threads()} threads"
    return f"A training of MambaIR-light x4 on such patches takes {batch / best:.2f} images a second on {name}."


if __name__ == "__main__":
    sys.exit(main())
