"""Published layouts, and recognition of weights by mambair.load."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mambair
from mambair import backbones
from mambair.archs import detectors
from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS
from mambair.backbones.vmamba_weights import rename_vmamba
from mambair.weights.checkpoint import CheckpointError, write_checkpoint

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
VIM = sorted(path.stem for path in (GOLDEN / "vim" / "state_dict").glob("*.json"))
VMAMBA = sorted(path.stem for path in (GOLDEN / "vmamba" / "state_dict").glob("*.json") if "m2" not in path.stem)


def on_meta(published):
    return {name: torch.empty(shape, device="meta") for name, shape in published["state_dict"].items()}


@pytest.mark.parametrize("name", VIM)
def test_layout_of_vim(name, key_list):
    published = key_list("vim", name)
    with torch.device("meta"):
        net = backbones.VisionMamba(**VIM_MODELS[name])
    ours = [(key, list(tensor.shape)) for key, tensor in net.state_dict().items()]
    assert ours == list(published["state_dict"].items())
    assert sum(parameter.numel() for parameter in net.parameters()) == published["params"]
    arch, kwargs = detectors.detect(on_meta(published))
    assert arch == "VisionMamba"
    assert {key: kwargs[key] for key in VIM_MODELS[name] if key in kwargs} == {
        key: value for key, value in VIM_MODELS[name].items() if key in kwargs
    }


@pytest.mark.parametrize("name", VMAMBA)
def test_layout_of_vmamba(name, key_list):
    """The network that is recognised has the published tensors, under today's names."""
    published = key_list("vmamba", name)
    weights = on_meta(published)
    arch, kwargs = detectors.detect(weights)
    assert arch == ("Backbone_VSSM" if name.startswith("backbone") else "VSSM")
    with torch.device("meta"):
        nets = [getattr(backbones, arch)(**kwargs)]
        if published.get("kwargs"):
            nets.append(getattr(backbones, arch)(**published["kwargs"]))
        if name in VMAMBA_MODELS:
            nets.append(backbones.VSSM(**VMAMBA_MODELS[name]))
    expected = {key: tensor.shape for key, tensor in rename_vmamba(weights).items()}
    for net in nets:
        assert {key: tensor.shape for key, tensor in net.state_dict().items()} == expected
        assert sum(parameter.numel() for parameter in net.parameters()) == published["params"]


GRID = {
    "depths": [(1, 2), (0, 1, 1), (2, 0, 1), (1, 0, 0)],
    "dims": [(48, 96, 144), (10, 14, 22)],
    "ssm_ratio": [1.2, 1.33, 2.5],
    "ssm_d_state": [1, 5],
    "mlp_ratio": [0.0, 1.33],
    "ssm_conv_bias": [False, True],
    "forward_type": ["v05", "v05_noz"],
    "norm_layer": ["ln2d", "bn"],
    "downsample_version": ["v1", "v2", "v3"],
    "patchembed_version": ["v1", "v2"],
    "in_chans": [1, 4],
}
FORMS = [
    ("VSSM", {"num_classes": 0}),
    ("VSSM", {"num_classes": 7, "ssm_dt_rank": 5, "gmlp": True}),
    ("VSSM", {"num_classes": 2, "downsample_version": "none", "dims": (12, 12, 12)}),
    ("Backbone_VSSM", {"out_indices": (0, 1)}),
    ("Backbone_VSSM", {"out_indices": ()}),
    ("Backbone_VSSM", {"out_indices": (1,), "downsample_version": "none", "dims": (12, 12, 12), "ssm_conv": -1}),
]
# another ratio may give the same widths; an MLP of no width is not gated; forms of the scan have several names
OF_NO_INFLUENCE = {"ssm_ratio", "mlp_ratio", "gmlp", "forward_type", "norm_layer", "ssm_conv_bias"}


@pytest.mark.parametrize("step", [331, pytest.param(29, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("arch", "form"), FORMS)
def test_a_grid_of_legal_networks_is_recognised(arch, form, step):
    for values in itertools.islice(itertools.product(*GRID.values()), 0, None, step):
        kwargs = dict(zip(GRID, values, strict=True)) | form
        kwargs["dims"] = kwargs["dims"][: len(kwargs["depths"])]
        with torch.device("meta"):
            weights = getattr(backbones, arch)(**kwargs).state_dict()
            found = detectors.detect(weights)
            assert found is not None and found[0] == arch, kwargs
            rebuilt = getattr(backbones, arch)(**found[1]).state_dict()
        assert {name: t.shape for name, t in rebuilt.items()} == {name: t.shape for name, t in weights.items()}, kwargs
        last = {"depths", "dims"} if kwargs["downsample_version"] == "none" else set()  # empty stages leave no trace
        for key in kwargs.keys() & found[1].keys() - OF_NO_INFLUENCE - last:
            expected = list(kwargs[key]) if isinstance(kwargs[key], tuple) else kwargs[key]
            assert found[1][key] == expected, (key, kwargs)


def test_published_table(key_list):
    for name, kwargs in VMAMBA_MODELS.items():
        published = key_list("vmamba", name)["kwargs"]
        ours = {key: list(value) if isinstance(value, tuple) else value for key, value in kwargs.items()}
        assert ours == {key: published[key] for key in ours}, name


@pytest.mark.parametrize(
    ("family", "name", "arch"),
    [
        ("vim", "vim_midcls_div2_p8_i32", "VisionMamba"),
        ("vim", "vim_dstate8_ssmcfg", "VisionMamba"),
        ("vim", "vim_double_cls", "VisionMamba"),
        ("vmamba", "vmambav0_legacy_names", "VSSM"),
        ("vmamba", "vmambav2_bn", "VSSM"),
        ("vmamba", "vmambav2_gmlp", "VSSM"),
        ("vmamba", "vmambav2_posembed", "VSSM"),
        ("vmamba", "vmambav2_z_dstate16", "VSSM"),
        ("vmamba", "vmambav2_downv2_nopatchnorm", "VSSM"),
        ("vmamba", "backbone_v2v_idx13_40x48", "Backbone_VSSM"),
    ],
)
@torch.no_grad()
def test_load(family, name, arch, backbone_case, assert_near):
    case = backbone_case(family, name)
    net = mambair.load(case.path)
    assert type(net).__name__ == arch
    assert not net.training
    output = net(case.arrays["input"])
    outputs = output if isinstance(output, list) else [output]
    expected = [tensor for key, tensor in case.arrays.items() if key.startswith("output")]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert_near(ours, theirs)


def test_single_file_names(backbone_case, assert_near):
    """Projections flat and named as layers, the parts of PatchMerging2D numbered, linear layers as convolutions."""
    case = backbone_case("vmamba", "vmambav0_64x64")
    weights = {}
    for name, tensor in case.weights.items():
        for part in ("x_proj", "dt_projs"):
            if name.endswith(f"{part}_weight"):
                name, tensor = name.replace(f"{part}_weight", f"{part}.weight"), tensor.flatten(0, 1)
        name = name.replace("downsample.norm", "downsample.1").replace("downsample.reduction", "downsample.2")
        weights[name] = tensor[..., None, None] if name.endswith("in_proj.weight") else tensor
    net = backbones.VSSM(**case.kwargs).eval()
    net.load_state_dict(weights)
    with torch.no_grad():
        assert_near(net(case.arrays["input"]), case.arrays["output"])


def test_load_by_metadata(tmp_path):
    net = backbones.VSSM(depths=[1], dims=4, num_classes=2, ssm_act_layer="relu").eval()
    kwargs = '{"depths": [1], "dims": 4, "num_classes": 2, "ssm_act_layer": "relu"}'
    path = tmp_path / "net.safetensors"
    write_checkpoint(path, net.state_dict(), {"mambair.arch": "VSSM", "mambair.kwargs": kwargs})
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(mambair.load(path)(x), net(x))


def test_a_backbone_restores_no_images(backbone_case):
    with pytest.raises(ValueError, match="VisionMamba restores no images"):
        mambair.Restorer(mambair.load(backbone_case("vim", "vim_midcls_div2_p8_i32").path))


def test_mamba_2_is_nobodys(key_list, tmp_path):
    weights = on_meta(key_list("vmamba", "vmamba_tiny_m2"))
    assert detectors.detect(weights) is None
    path = tmp_path / "m2.pth"
    torch.save({name: torch.zeros(1) for name in weights}, path)
    with pytest.raises(CheckpointError, match=r"nearest: .*VSSM"):
        mambair.load(path)


def test_fitted_position_embedding():
    small = backbones.VisionMamba(img_size=32, patch_size=8, stride=8, depth=1, embed_dim=4, num_classes=2)
    large = backbones.VisionMamba(img_size=(56, 40), patch_size=8, stride=8, depth=1, embed_dim=4, num_classes=2)
    weights = small.state_dict()
    for rule in ("correct", "official"):
        large.load_state_dict(backbones.fit_position_embedding(weights, large, rule=rule))
        assert large(torch.rand(1, 3, 56, 40)).shape == (1, 2)
    fitted = backbones.fit_position_embedding(weights, large)["pos_embed"]
    assert torch.equal(fitted[:, 35 // 2], weights["pos_embed"][:, 16 // 2])
    assert torch.equal(backbones.fit_position_embedding(weights, small)["pos_embed"], weights["pos_embed"])


@pytest.mark.parametrize("name", ["4to6_nocls", "4to7_cls", "7to4_cls"])
def test_published_resizing(name, backbone_case):
    case = backbone_case("vim", f"posembed_interp_{name}")
    grid = (case.kwargs["new_grid"],) * 2
    resized = backbones.resize_position_embedding(
        case.arrays["input"], grid, extra_tokens=case.kwargs["extra_tokens"], class_token="first"
    )
    torch.testing.assert_close(resized, case.arrays["output"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rows", "kwargs", "words"),
    [
        (17, {"extra_tokens": 0}, "no grid"),
        (18, {"extra_tokens": 2}, "does not go with"),
        (17, {"class_token": "last"}, "does not go with"),
        (1, {}, "no grid"),
    ],
)
def test_bad_embeddings(rows, kwargs, words):
    with pytest.raises(ValueError, match=words):
        backbones.resize_position_embedding(torch.zeros(1, rows, 4), (6, 6), **kwargs)


def test_timm_is_not_needed(repository):
    """Blocked as Python blocks imports; the backbones and their recognition work all the same."""
    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r}); sys.modules['timm'] = None\n"
        "import mambair\n"
        f"net = mambair.load({str(GOLDEN / 'vim' / 'cases' / 'vim_midcls_div2_p8_i32.pth')!r})\n"
        "assert type(net).__name__ == 'VisionMamba'\n"
        "assert 'mambair.weights.timm_models' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
