"""The published configurations of Vision Mamba and VMamba, as arguments of their classes."""

from __future__ import annotations

from typing import Any

_VIM = {
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "final_pool_type": "mean",
    "if_abs_pos_embed": True,
    "bimamba_type": "v2",
    "if_cls_token": True,
    "if_divide_out": True,
    "use_middle_cls_token": True,
}
_VIM_TAG = "bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
_VIM_DIMS = {"tiny": 192, "small": 384, "base": 768}
VIM_BASE = "vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2"


def _vim_models() -> dict[str, dict[str, Any]]:
    """The five registered models under their names, those of 384 pixels, and short names."""
    models = {}
    for size, dim in _VIM_DIMS.items():
        plain = _VIM | {"embed_dim": dim}
        for side in (224, 384):
            models[f"vim_{size}_patch16_{side}_{_VIM_TAG}"] = plain | {"img_size": side}
            models[f"vim_{size}_patch16_{side}"] = plain | {"img_size": side}
            models[f"vim_{size}_patch16_stride8_{side}_{_VIM_TAG}"] = plain | {"img_size": side, "stride": 8}
            models[f"vim_{size}_patch16_stride8_{side}"] = plain | {"img_size": side, "stride": 8}
    models[VIM_BASE] = _VIM | {"embed_dim": _VIM_DIMS["base"], "img_size": 224}
    return models


_V0 = {
    "ssm_d_state": 16,
    "ssm_ratio": 2.0,
    "ssm_conv_bias": True,
    "forward_type": "v0",
    "mlp_ratio": 0.0,
    "norm_layer": "ln",
    "downsample_version": "v1",
    "patchembed_version": "v1",
}
_V2 = {
    "ssm_d_state": 1,
    "ssm_ratio": 2.0,
    "ssm_conv_bias": False,
    "forward_type": "v05_noz",
    "mlp_ratio": 4.0,
    "norm_layer": "ln2d",
    "downsample_version": "v3",
    "patchembed_version": "v2",
}
_V2V = _V2 | {"ssm_ratio": 1.0}
VIM_MODELS = _vim_models()
# name: (generation, blocks of the third stage, channels of the first, highest rate of stochastic depth)
_VMAMBA = {
    "vanilla_vmamba_tiny": (_V0, 9, 96, 0.2),
    "vanilla_vmamba_small": (_V0, 27, 96, 0.3),
    "vanilla_vmamba_base": (_V0, 27, 128, 0.6),
    "vmamba_tiny_s2l5": (_V2, 5, 96, 0.2),
    "vmamba_small_s2l15": (_V2, 15, 96, 0.3),
    "vmamba_base_s2l15": (_V2, 15, 128, 0.6),
    "vmamba_tiny_s1l8": (_V2V, 8, 96, 0.2),
    "vmamba_small_s1l20": (_V2V, 20, 96, 0.3),
    "vmamba_base_s1l20": (_V2V, 20, 128, 0.5),
}
VMAMBA_MODELS: dict[str, dict[str, Any]] = {
    name: generation | {"depths": (2, 2, third, 2), "dims": dim, "drop_path_rate": rate}
    for name, (generation, third, dim, rate) in _VMAMBA.items()
}
# names of the configuration files; that of the first base network has another rate of stochastic depth
_CONFIG_FILES = {"vmambav0": "vanilla_vmamba_{}", "vmambav2": "vmamba_{}_s2", "vmambav2v": "vmamba_{}_s1"}
for _config, _pattern in _CONFIG_FILES.items():
    for _size in _VIM_DIMS:
        _name = next(name for name in _VMAMBA if name.startswith(_pattern.format(_size)))
        _rate = {"drop_path_rate": 0.5} if (_config, _size) == ("vmambav0", "base") else {}
        VMAMBA_MODELS[f"{_config}_{_size}_224"] = VMAMBA_MODELS[_name] | _rate
