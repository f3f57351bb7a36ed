from __future__ import annotations

import torch

from mambair.layers import TokenNorm, as_image, as_tokens


def test_there_and_back_without_a_copy():
    tokens = torch.randn(2, 3, 4, 5)
    image = as_image(tokens)
    assert image.shape == (2, 5, 3, 4)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert as_tokens(image).data_ptr() == tokens.data_ptr()


def test_planar_images_are_copied_into_order():
    image = torch.arange(24.0).view(1, 2, 3, 4)
    tokens = as_tokens(image)
    assert tokens.is_contiguous()
    assert torch.equal(tokens[0, 1, 2], image[0, :, 1, 2])


def test_norm_is_optional():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(TokenNorm(5, None)(x), x)
    assert list(TokenNorm(5).state_dict()) == ["norm.weight", "norm.bias"]
