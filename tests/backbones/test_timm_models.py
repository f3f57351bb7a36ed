from __future__ import annotations

import pytest
import torch

timm = pytest.importorskip("timm")

import mambair.backbones  # noqa: E402 - registers the models
from mambair.backbones import Backbone_VSSM, VisionMamba  # noqa: E402
from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS  # noqa: E402

VIM_TINY = "vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
SMALL_VIM = {"img_size": 64, "depth": 4, "embed_dim": 32}
SMALL_VMAMBA = {"depths": (1, 1, 1, 1), "dims": 8}


def test_the_published_call():
    net = timm.create_model(
        VIM_TINY,
        pretrained=False,
        num_classes=1000,
        drop_rate=0.0,
        drop_path_rate=0.0,
        drop_block_rate=None,
        img_size=224,
    )
    assert sum(parameter.numel() for parameter in net.parameters()) == 7148008
    assert len(net.layers) == 24
    printed = str(net)
    assert "(0-23): 24 x " in printed
    for part in ("mixer", "conv1d", "x_proj", "dt_proj", "conv1d_b", "x_proj_b", "dt_proj_b", "norm"):
        assert f"({part}): " in printed
    with torch.no_grad():
        assert net.eval()(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


def test_every_configuration_is_registered():
    assert {*VIM_MODELS, *VMAMBA_MODELS} <= set(timm.list_models())
    assert "vim_small_patch16_384" in VIM_MODELS


@pytest.mark.parametrize(("name", "size"), [("vim_tiny_patch16_384", 384), ("vim_small_patch16_stride8_224", 224)])
def test_sizes_and_strides(name, size):
    name = next(known for known in VIM_MODELS if known.startswith(name))
    with torch.device("meta"):
        net = timm.create_model(name)
    assert net.patch_embed.img_size == (size, size)
    assert net.default_cfg["input_size"] == (3, size, size)


def test_features_of_vim():
    net = timm.create_model("vim_tiny_patch16_224", features_only=True, out_indices=(1, -1), **SMALL_VIM)
    assert net.feature_info.channels() == [32, 32]
    assert net.feature_info.reduction() == [16, 16]
    x = torch.rand(1, 3, 64, 64)
    assert [tuple(each.shape) for each in net.eval()(x)] == [(1, 32, 4, 4)] * 2
    whole = VisionMamba(**SMALL_VIM).eval()
    whole.load_state_dict(net.model.state_dict(), strict=False)
    torch.testing.assert_close(whole.forward_intermediates(x, indices=[1, 3], intermediates_only=True), net(x))


@pytest.mark.parametrize("name", ["backbone_v0_all", "backbone_v2v_all", "backbone_v2v_idx13_40x48"])
def test_features_of_vmamba_are_the_published_ones(name, backbone_case):
    case = backbone_case("vmamba", name)
    kwargs = dict(case.kwargs)
    indices = tuple(kwargs.pop("out_indices", (0, 1, 2, 3)))
    net = timm.create_model("vmamba_tiny_s1l8", features_only=True, out_indices=indices, **kwargs).eval()
    net.model.load_state_dict(case.weights)
    assert net.feature_info.channels() == [8 * 2**i for i in indices]
    assert net.feature_info.reduction() == [4 * 2**i for i in indices]
    with torch.no_grad():
        outputs = net(case.arrays["input"])
    for i, ours in enumerate(outputs):
        torch.testing.assert_close(ours, case.arrays[f"output{i}"], atol=1e-5, rtol=0)


def test_features_of_the_last_stages():
    net = timm.create_model("vmamba_tiny_s1l8", features_only=True, out_indices=2, **SMALL_VMAMBA)
    assert isinstance(net.model, Backbone_VSSM)
    assert net.feature_info.channels() == [32, 64]


def test_other_classes_and_channels():
    net = timm.create_model("vmamba_tiny_s1l8", num_classes=7, in_chans=1, **SMALL_VMAMBA)
    assert net(torch.rand(2, 1, 36, 40)).shape == (2, 7)
    net.reset_classifier(4)
    assert net(torch.rand(2, 1, 36, 40)).shape == (2, 4)
    vim = timm.create_model("vim_tiny_patch16_224", num_classes=7, in_chans=1, **SMALL_VIM)
    assert vim(torch.rand(2, 1, 64, 64)).shape == (2, 7)


def test_published_file_through_timm(backbone_case):
    case = backbone_case("vim", "vim_midcls_div2_p8_i32")
    net = timm.create_model("vim_tiny_patch16_224", checkpoint_path=case.path, **case.kwargs).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(case.arrays["input"]), case.arrays["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vim_tiny_patch16_224", "vmamba_tiny_s1l8"])
def test_a_misspelt_argument_is_an_error(name):
    with pytest.raises(TypeError, match="drop_pathrate"):
        timm.create_model(name, drop_pathrate=0.1)


def test_all_names_of_the_package():
    assert all(hasattr(mambair.backbones, name) for name in mambair.backbones.__all__)
