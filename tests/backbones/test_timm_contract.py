"""What timm asks of every model it knows, over all registered names with small widths and depths."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")

from timm.models import group_parameters  # noqa: E402
from timm.optim import param_groups_layer_decay  # noqa: E402

from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS  # noqa: E402
from mambair.weights import timm_models  # noqa: E402

NAMES = [*VIM_MODELS, *VMAMBA_MODELS]
# a network of each family
FAMILIES = ["vim_tiny_patch16_224", "vanilla_vmamba_tiny", "vmamba_tiny_s2l5", "vmamba_tiny_s1l8"]
FAMILIES += [name for name in VIM_MODELS if name.startswith("vim_tiny_patch16_stride8_224")]
VIM = {"img_size": 64, "depth": 4, "embed_dim": 32}
VMAMBA = {"depths": (1, 1, 2, 1), "dims": 8}
CLASSES = 10


def small(name: str, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        name, **({"num_classes": CLASSES} | (VIM if name in VIM_MODELS else VMAMBA) | changes)
    ).eval()


def picture(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def channels(net: nn.Module, features: Tensor) -> int:
    """The number of channels of what `forward_features` gives, wherever the network's format has them."""
    return features.shape[{"NCHW": 1, "NHWC": 3}.get(getattr(net, "output_fmt", "NLC"), 2)]


def test_all_are_listed_by_their_module() -> None:
    assert len(NAMES) == 43
    assert set(timm.list_models(module="timm_models")) == set(NAMES)
    assert "timm_models" in timm.list_modules()
    assert all(timm.models.is_model_in_modules(name, ["timm_models"]) for name in NAMES)
    for name in NAMES:
        entry = timm.models.model_entrypoint(name)
        assert entry is getattr(timm_models, name)
        assert name in timm_models.__all__
        assert pickle.loads(pickle.dumps(entry)) is entry  # noqa: S301 - our own


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_names_what_is_there(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name)
    cfg = net.default_cfg
    assert cfg["num_classes"] == net.num_classes == 1000
    for layer in (cfg["first_conv"], cfg["classifier"]):
        assert f"{layer}.weight" in net.state_dict()
    assert net.get_submodule(cfg["classifier"]) is net.get_classifier()
    assert net.get_submodule(cfg["first_conv"]).in_channels == 3
    assert net.num_features == net.head_hidden_size == net.get_classifier().in_features
    if cfg["fixed_input_size"]:
        assert cfg["input_size"] == (3, *net.patch_embed.img_size)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_its_parts(name: str) -> None:
    net, x = small(name), picture()
    with torch.no_grad():
        logits, features = net(x), net.forward_features(x)
        hidden = net.forward_head(features, pre_logits=True)
        assert logits.shape == (2, CLASSES) and logits.isfinite().all()
        assert channels(net, features) == net.num_features and features.dim() > 2, "not pooled"
        assert hidden.shape == (2, net.head_hidden_size)
        assert torch.equal(net.forward_head(features), logits)
        net.reset_classifier(0)
        assert net.num_classes == 0
        assert torch.equal(net(x), hidden)
        without = small(name, num_classes=0)
        without.load_state_dict(net.state_dict())
        assert torch.equal(without(x), hidden)


@pytest.mark.parametrize("name", NAMES)
def test_without_pool_the_outputs_are_not_pooled(name: str) -> None:
    net, x = small(name), picture()
    built = small(name, num_classes=0, global_pool="")
    with torch.no_grad():
        features = net.forward_features(x)
        net.reset_classifier(0, "")
        built.load_state_dict(net.state_dict())
        outputs = net(x)
        assert torch.equal(built(x), outputs)
        if name in VIM_MODELS:
            assert torch.equal(outputs, features)
        else:
            assert outputs.shape == (2, net.num_features, 2, 2)
        net.reset_classifier(CLASSES)
        assert net(x).shape == ((*features.shape[:2], CLASSES) if name in VIM_MODELS else (2, CLASSES, 2, 2))


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("name", FAMILIES)
def test_pools(name: str, pool: str) -> None:
    net, x = small(name, num_classes=0, global_pool=pool), picture()
    with torch.no_grad():
        outputs = net(x)
        net.reset_classifier(0, "")
        patches = net(x)
        if name in VIM_MODELS:
            place = (patches.shape[1] - 1) // 2
            patches = torch.cat([patches[:, :place], patches[:, place + 1 :]], 1).transpose(1, 2)
        expected = patches.flatten(2).mean(2) if pool == "avg" else patches.flatten(2).amax(2)
    torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=0)  # another order of a sum


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "vim_tiny_patch16_224",
            {"global_pool": "map"},
            "global_pool must be one of '', 'last', 'avg', 'max', 'token'",
        ),
        (
            "vim_tiny_patch16_224",
            {"global_pool": "token", "if_cls_token": False},
            "one of '', 'last', 'avg', 'max', got 'token'",
        ),
        ("vmamba_tiny_s1l8", {"global_pool": "token"}, "global_pool must be one of 'avg', 'max', '', got 'token'"),
        ("vmamba_tiny_s1l8", {"img_size": (64, 32)}, r"img_size must be a square, got \(64, 32\)"),
    ],
)
def test_what_cannot_be_built(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small(name, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    net = small(name).train()
    net(picture()).mean().backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_intermediates(name: str) -> None:
    net, x = small(name), picture()
    info = net.feature_info
    with torch.no_grad():
        final, maps = net.forward_intermediates(x)
        assert torch.equal(final, net.forward_features(x))
        assert len(maps) == len(info)
        for each, entry in zip(maps, info, strict=True):
            side = 64 // entry["reduction"]
            assert each.shape[1] == entry["num_chs"]
            if "stride8" not in name:  # overlapping patches: one less than the quotient at the edge
                assert each.shape[2:] == (side, side)
        last = net.forward_intermediates(x, indices=1, intermediates_only=True)
        assert len(last) == 1 and torch.equal(last[0], maps[-1])
        early = net.forward_intermediates(x, indices=[0, 1], stop_early=True, intermediates_only=True)
        assert all(torch.equal(one, other) for one, other in zip(early, maps[:2], strict=True))
        net.set_grad_checkpointing()
        again, _ = net.forward_intermediates(x)
        assert torch.equal(again, final)


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"use_middle_cls_token": False},
        {"use_double_cls_token": True},
        {"if_cls_token": False},
        {"flip_img_sequences_ratio": 1.0, "use_middle_cls_token": False},
    ],
    ids=["middle", "head", "double", "none", "head, turned"],
)
@pytest.mark.parametrize("norm", [False, True])
def test_layers_of_vim_in_both_formats_with_class_tokens(tokens: dict[str, Any], norm: bool) -> None:
    net, x = small("vim_tiny_patch16_224", **tokens), picture()
    count = {"none": 0, "double": 2}.get(net.class_token, 1)
    assert net.num_prefix_tokens == (1 if net.class_token == "head" else 0)
    with torch.no_grad():
        maps = net.forward_intermediates(x, norm=norm, intermediates_only=True)
        lists = net.forward_intermediates(x, norm=norm, output_fmt="NLC", intermediates_only=True)
        both = net.forward_intermediates(x, norm=norm, intermediates_only=True, return_prefix_tokens=True)
        final, _ = net.forward_intermediates(x)
        layers = net.get_intermediate_layers(x, 2, norm=norm)
        shaped = net.get_intermediate_layers(x, [1, 3], reshape=True, return_prefix_tokens=True, norm=norm)
    assert all(torch.equal(one.flatten(2).transpose(1, 2), other) for one, other in zip(maps, lists, strict=True))
    assert lists[0].shape == (2, 16, 32)
    assert all(torch.equal(one, other) for one, other in zip(layers, lists[2:], strict=True))
    if not count:
        assert all(torch.equal(one, other) for one, other in zip(both, maps, strict=True))
        assert torch.equal(shaped[0], maps[1])
        return
    assert all(
        torch.equal(one[0], other) and one[1].shape == (2, count, 32) for one, other in zip(both, maps, strict=True)
    )
    assert torch.equal(shaped[1][0], maps[3]) and torch.equal(shaped[1][1], both[3][1])
    if norm:  # the class tokens after the last block are those that are read out
        tokens_last = final.flip(1) if net.flip_img_sequences_ratio > 0 else final
        places = net._places(tokens_last.shape[1])
        assert torch.equal(both[-1][1], tokens_last[:, places])


def test_unknown_formats() -> None:
    for name, formats in (("vim_tiny_patch16_224", '"NCHW" or "NLC"'), ("vmamba_tiny_s1l8", '"NCHW"')):
        with pytest.raises(ValueError, match=f"output_fmt must be {formats}, got 'NHWC'"):
            small(name).forward_intermediates(picture(), output_fmt="NHWC")


@pytest.mark.parametrize("name", FAMILIES)
def test_recomputed_blocks_give_the_same_gradients(name: str) -> None:
    gradients = []
    for enable in (False, True):
        net = small(name, drop_path_rate=0.0).train()
        net.set_grad_checkpointing(enable)
        net(picture()).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    net.set_grad_checkpointing(False)
    assert not any(getattr(module, "use_checkpoint", False) for module in net.modules())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_grouped_by_depth(name: str) -> None:
    net = small(name)
    layer = group_parameters(net, net.group_matcher(), reverse=True)
    assert layer.keys() == dict(net.named_parameters()).keys()
    blocks = 4 if name in VIM_MODELS else 5
    head = net.default_cfg["classifier"]
    assert layer[f"{head}.weight"] == max(layer.values()) == blocks + 1
    assert layer[f"{net.default_cfg['first_conv']}.weight"] == 0
    if name in VIM_MODELS:
        assert [layer[f"layers.{i}.norm.weight"] for i in range(4)] == [1, 2, 3, 4]
        assert layer["norm_f.weight"] == 4 and layer["pos_embed"] == layer["cls_token"] == 0
    else:
        order = [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
        assert [layer[f"layers.{i}.blocks.{j}.op.A_logs"] for i, j in order] == [1, 2, 3, 4, 5]
        steps = {key: number for key, number in layer.items() if ".downsample." in key}
        assert {key.split(".")[1]: number for key, number in steps.items()} == {"0": 1, "1": 2, "2": 4}
        assert layer["classifier.norm.weight"] == 5
        coarse = group_parameters(net, net.group_matcher(coarse=True), reverse=True)
        assert coarse["layers.2.blocks.1.op.A_logs"] == 3 and coarse["classifier.norm.weight"] == 4
    groups = param_groups_layer_decay(net, weight_decay=0.05, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_features_only(name: str) -> None:
    net = small(name, features_only=True, out_indices=(1, -1))
    with torch.no_grad():
        maps = net(picture())
    assert [each.shape[1] for each in maps] == net.feature_info.channels()
    assert len(maps) == 2 and all(each.dim() == 4 and each.isfinite().all() for each in maps)


@pytest.mark.parametrize("prune_norm", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_networks_keep_their_features(name: str, prune_norm: bool) -> None:
    net, x = small(name), picture()
    with torch.no_grad():
        expected = net.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
        kept = net.prune_intermediate_layers([0, 1], prune_norm=prune_norm)
        found = net.forward_intermediates(x, indices=kept, intermediates_only=True)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert not [key for key in net.state_dict() if key.startswith((net.default_cfg["classifier"], "layers.2."))]


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_channels_and_rates(name: str) -> None:
    net = small(name, img_size=96, in_chans=1, drop_rate=0.5)
    x = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        assert torch.equal(net(x), net(x)), "no dropout in eval mode"
        net.train()
        assert not torch.equal(net(x), net(x))
    rates = {module.p for module in net.modules() if isinstance(module, nn.Dropout)}
    assert 0.5 in rates
