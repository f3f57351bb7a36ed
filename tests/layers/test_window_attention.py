from __future__ import annotations

import pytest
import torch

from mambair.layers.window_attention import WindowAttention, border_masks, relative_position_index, window_order

CPU = torch.device("cpu")


def plain_attention(layer: WindowAttention, qkv: torch.Tensor, index: torch.Tensor, size: int, shift: int):
    """Windows by rolling, a mask by labels of regions, softmax written out: [B, H, W, 3C] -> [B, H, W, C]."""
    batch, height, width, channels = qkv.shape
    heads, dim = layer.num_heads, channels // 3

    def windows(image: torch.Tensor) -> torch.Tensor:
        cut = image.roll((-shift, -shift), (1, 2)).view(batch, height // size, size, width // size, size, -1)
        return cut.transpose(2, 3).reshape(-1, size * size, image.shape[-1])

    rows = torch.arange(height).roll(-shift)
    columns = torch.arange(width).roll(-shift)
    wrapped_rows = (torch.arange(height) >= height - shift).long()
    wrapped_columns = (torch.arange(width) >= width - shift).long()
    label = (wrapped_rows[:, None] * 2 + wrapped_columns)[rows.argsort()][:, columns.argsort()]
    labels = windows(label.view(1, height, width, 1).expand(batch, -1, -1, -1)).squeeze(-1)
    barred = (labels[:, :, None] != labels[:, None]) * -100.0

    q, k, v = windows(qkv).view(-1, size * size, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    bias = layer.relative_position_bias_table[index.flatten()].view(size * size, size * size, heads).permute(2, 0, 1)
    scores = q @ k.transpose(-1, -2) * (dim // heads) ** -0.5 + bias + barred[:, None]
    y = layer.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    y = y.view(batch, height // size, width // size, size, size, dim).transpose(2, 3).reshape(batch, height, width, dim)
    return y.roll((shift, shift), (1, 2))


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (4, 12), (12, 8)], ids=str)
@pytest.mark.parametrize("shift", [0, 2])
def test_equals_plain_masked_attention(size, shift):
    torch.manual_seed(0)
    layer = WindowAttention(6, 4, 2)
    qkv = torch.randn(2, *size, 18)
    index = relative_position_index(4)
    order = window_order(2, *size, 4, shift, CPU)
    masks = border_masks(4, shift, CPU) if shift else None
    ours = order.merge(layer(order.split(qkv), index, order.windows, masks), torch.Size((2, *size, 6)))
    torch.testing.assert_close(ours, plain_attention(layer, qkv, index, 4, shift), atol=1e-6, rtol=1e-5)


def test_gradients_equal_plain_attention():
    torch.manual_seed(0)
    layer = WindowAttention(4, 4, 2).double()
    qkv = torch.randn(1, 8, 8, 12, dtype=torch.float64, requires_grad=True)
    index = relative_position_index(4)
    order = window_order(1, 8, 8, 4, 2, CPU)
    inputs = (qkv, layer.relative_position_bias_table)
    y = order.merge(layer(order.split(qkv), index, order.windows, border_masks(4, 2, CPU)), torch.Size((1, 8, 8, 4)))
    ours = torch.autograd.grad(y.square().sum(), inputs)
    theirs = torch.autograd.grad(plain_attention(layer, qkv, index, 4, 2).square().sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_orders_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        order = window_order(1, 4, 36, 4, 2, CPU)  # no other test asks for this one
    x = torch.randn(1, 4, 36, 2, requires_grad=True)
    order.merge(order.split(x) * 2.0, x.shape).sum().backward()
    assert (x.grad == 2.0).all()
    assert window_order(1, 4, 36, 4, 2, CPU) is order


def test_published_index():
    assert relative_position_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_bad_sizes():
    with pytest.raises(ValueError, match="multiples of the window size 4"):
        window_order(1, 6, 8, 4, 0, CPU)
    with pytest.raises(ValueError, match="num_heads must divide"):
        WindowAttention(10, 4, 4)
