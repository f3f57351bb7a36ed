"""mamba_ssm's CUDA kernel, driven as the published MambaIR code drives it: stacked, transposed and flipped copies.

The kernel is taken from an installed mamba_ssm, or built from its source package into a folder of its own.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contenders.scan_cores import CoreInputs
from torch import Tensor

MODULE = "selective_scan_cuda"
# u, delta [B, D, L], A [D, N], B, C [B, G, N, L], D, z (or None), delta_bias, delta_softplus -> y [B, D, L]
Kernel = Callable[..., Tensor]


def find_kernel(folder: Path | None = None) -> tuple[Kernel | None, str]:
    """The kernel of an installed mamba_ssm, or of ``folder``, and where it is from; or None and why there is none."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        extension = importlib.import_module(MODULE)
    except ImportError as error:
        return None, f"mamba_ssm's kernel cannot be imported ({error}); --build-official builds it"
    return kernel_of(extension), f"mamba_ssm's {MODULE} from {Path(str(extension.__file__)).parent}"


def build_kernel(folder: Path) -> None:
    """Build mamba_ssm's newest source package for this GPU into ``folder``; takes 10 to 30 minutes.

    Raises:
        RuntimeError: No CUDA compiler is at hand, or the build failed.
    """
    if shutil.which("nvcc") is None:
        raise RuntimeError("--build-official: no CUDA compiler (nvcc) is on the PATH")
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    environment = os.environ | {"MAMBA_FORCE_BUILD": "TRUE", "MAMBA_KEEP_CUDA_BUILD": "TRUE",
                                "TORCH_CUDA_ARCH_LIST": capability}  # fmt: skip
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-binary", "mamba-ssm",
               "--target", str(folder), "mamba-ssm"]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"--build-official: the build failed:\n{done.stderr[-2000:]}")


def kernel_of(extension: Any) -> Kernel:
    """The two functions of the extension as one that torch can differentiate, as mamba_ssm's own wrapper does."""

    class Scan(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
            delta_bias: Tensor | None, softplus: bool,
        ) -> Tensor:  # fmt: skip
            y, saved, *_ = extension.fwd(u, delta, A, B, C, D, None, delta_bias, softplus)
            ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, saved)
            ctx.softplus = softplus
            return y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
            u, delta, A, B, C, D, delta_bias, saved = ctx.saved_tensors
            grad = grad if grad.stride(-1) == 1 else grad.contiguous()
            du, ddelta, dA, dB, dC, dD, dbias, *_ = extension.bwd(
                u, delta, A, B, C, D, None, delta_bias, grad, saved, None, None, ctx.softplus, False
            )
            return du, ddelta, dA, dB, dC, None if D is None else dD, None if delta_bias is None else dbias, None

    return lambda *arguments: Scan.apply(*arguments)


def official_core(inputs: CoreInputs, kernel: Kernel) -> Tensor:
    """x [B, H, W, D] -> sum over the directions [B, H, W, D]: four stacked copies, or with K = 1 the rows alone."""
    x = inputs.x.permute(0, 3, 1, 2)
    batch, channels, height, width = x.shape
    count, rank, states = len(inputs.A), inputs.dt_weight.shape[2], inputs.A.shape[2]
    u = x.flatten(2).unsqueeze(1)  # [B, K, D, L]
    if count == 4:
        u = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], dim=1)
        u = torch.cat([u, u.flip(-1)], dim=1)
    packed = torch.einsum("bkdl,kpd->bkpl", u, inputs.x_weight)
    dt, B, C = packed.split([rank, states, states], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, inputs.dt_weight.to(dt.dtype))
    u, delta, B, C = (t.float().contiguous() for t in (u, delta, B, C))
    y = kernel(u.flatten(1, 2), delta.flatten(1, 2), inputs.A.flatten(0, 1), B, C, inputs.D.flatten(),
               inputs.dt_bias.flatten(), True)  # fmt: skip
    y = y.unflatten(1, (count, channels))
    total = y[:, 0]
    if count == 4:
        backwards = y[:, 2:].flip(-1)
        columns = (t.unflatten(2, (width, height)).transpose(2, 3).flatten(2) for t in (y[:, 1], backwards[:, 1]))
        total = total + backwards[:, 0] + sum(columns)
    return total.transpose(1, 2).reshape(batch, height, width, channels).to(inputs.x.dtype)


def plain_kernel(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, softplus: bool
) -> Tensor:
    """What the kernel computes, token by token in plain torch: to check the code around it without a GPU."""
    delta = delta + delta_bias[:, None]
    delta = F.softplus(delta) if softplus else delta
    each = u.shape[1] // B.shape[1]
    B, C = (t.repeat_interleave(each, dim=1) for t in (B, C))  # [B, D, N, L]
    state, outputs = torch.zeros_like(B[..., 0]), []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * u[:, :, t, None] * B[..., t]
        outputs.append((state * C[..., t]).sum(-1) + D * u[:, :, t])
    return torch.stack(outputs, dim=2)
