from __future__ import annotations

import pytest
import torch

from mambair.layers import CAB


@pytest.mark.parametrize("name", ["cab", "cab_light"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planar", "channels_last"])
def test_published_output_and_gradients(name, layout, module_case, compare_gradients):
    case = module_case(name)
    block = CAB(**case.kwargs)
    block.load_state_dict(case.weights)
    x = case.arrays["input"].to(memory_format=layout).requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, case.arrays["output"], atol=1e-5, rtol=0)
    y.backward(case.arrays["grad_output"])
    compare_gradients(block, x, case)


@pytest.mark.parametrize("channels", [1, 2, 29, 30, 59, 60])
@pytest.mark.parametrize("light", [False, True], ids=["normal", "light"])
def test_few_channels_keep_one_squeezed_channel(channels, light):
    block = CAB(channels, is_light_sr=light)
    assert block(torch.randn(1, channels, 4, 5)).shape == (1, channels, 4, 5)
    assert block.cab[-1].attention[1].out_channels == max(1, channels // 30)


@pytest.mark.parametrize(
    ("form", "first_shape", "entries"),
    [("dilated", (30, 60, 1, 1), 6), ("legacy", (10, 60, 3, 3), 4), ("depthwise", (60, 1, 3, 3), 2)],
)
def test_light_forms(form, first_shape, entries):
    block = CAB(60, is_light_sr=True, light_cab=form)
    assert block.cab[0].weight.shape == first_shape
    assert len(block.cab) == entries
    assert block(torch.randn(2, 60, 5, 4)).shape == (2, 60, 5, 4)


def test_unknown_light_form():
    with pytest.raises(ValueError, match="dilated, depthwise, legacy"):
        CAB(60, is_light_sr=True, light_cab="dense")
