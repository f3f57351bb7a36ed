from __future__ import annotations

import torch

from mambair.layers.permutation import inverse_permutation, permute_rows


def test_values_and_gradients():
    rows = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    inverse = inverse_permutation(order)
    assert torch.equal(permute_rows(rows, order, inverse), rows[order])
    assert torch.autograd.gradcheck(lambda r: permute_rows(r, order, inverse), (rows,))
    assert torch.autograd.gradgradcheck(lambda r: permute_rows(r, order, inverse).square(), (rows,))
