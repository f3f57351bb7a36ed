"""The published backbones under their names in timm: ``timm.create_model(name)``, with ``features_only`` as usual.

The one module of the package that imports timm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from mambair.backbones.feature_indices import resolve_indices
from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS
from mambair.backbones.vim import VisionMamba
from mambair.backbones.vmamba import VSSM, Backbone_VSSM
from mambair.backbones.vmamba_weights import rename_vmamba

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}
VIM_LAYERS = {"first_conv": "patch_embed.proj", "classifier": "head"}
VMAMBA_LAYERS = {"first_conv": "patch_embed.0", "classifier": "classifier.head"}
NO_SOURCE = (
    "no address of weights is known for {}, so pretrained=True cannot work; give checkpoint_path=FILE with a "
    "published file, or use mambair.load(FILE)"
)


def _default_cfg(side: int, *, fixed: bool, layers: dict[str, str]) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 0.9,
        "fixed_input_size": fixed,
        **IMAGENET,
        **layers,
    }


default_cfgs = generate_default_cfgs(
    {name: _default_cfg(kw["img_size"], fixed=True, layers=VIM_LAYERS) for name, kw in VIM_MODELS.items()}
    | {name: _default_cfg(224, fixed=False, layers=VMAMBA_LAYERS) for name in VMAMBA_MODELS}
)


def _build_vim(in_chans: int = 3, **arguments: Any) -> VisionMamba:
    """VisionMamba with timm's name for the channels of the image; an unknown argument is an error there."""
    return VisionMamba(**({"channels": in_chans} | arguments))


def _build_pyramid(num_classes: int = 0, **arguments: Any) -> Backbone_VSSM:
    """Backbone_VSSM, which has no classes."""
    return Backbone_VSSM(**arguments)


def _entry_point(name: str, defaults: Mapping[str, Any], build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The function timm calls for ``name``."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: str | Path | None = None,
        **arguments: Any,
    ) -> nn.Module:
        if pretrained and pretrained_cfg is None and not pretrained_cfg_overlay:
            raise ValueError(NO_SOURCE.format(name))
        known = {"pretrained_cfg": pretrained_cfg, "pretrained_cfg_overlay": pretrained_cfg_overlay}
        return build(name, pretrained, {**defaults, **arguments}, known | {"cache_dir": cache_dir})

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name}: the published configuration, every argument can be given by name."
    return create


def _create_vim(name: str, pretrained: bool, arguments: dict[str, Any], source: dict[str, Any]) -> nn.Module:
    depth = arguments.get("depth", 24)
    quarters = tuple((i + 1) * depth // 4 - 1 for i in range(4)) if depth >= 4 else tuple(range(depth))
    return build_model_with_cfg(
        _build_vim,
        name,
        pretrained,
        feature_cfg={"out_indices": quarters, "feature_cls": "getter"},
        **source,
        **arguments,
    )


def _create_vmamba(name: str, pretrained: bool, arguments: dict[str, Any], source: dict[str, Any]) -> nn.Module:
    if not arguments.get("features_only"):
        return build_model_with_cfg(VSSM, name, pretrained, pretrained_filter_fn=_renamed, **source, **arguments)
    wanted = arguments.pop("out_indices", None)
    indices = tuple(resolve_indices(len(arguments["depths"]), wanted))
    return build_model_with_cfg(
        lambda **network: _build_pyramid(out_indices=indices, **network),
        name,
        pretrained,
        pretrained_filter_fn=_renamed,
        pretrained_strict=False,  # the output normalisations are in no published file
        feature_cfg={"out_indices": indices, "feature_cls": "getter"},
        **source,
        **arguments,
    )


def _renamed(weights: Mapping[str, Any], _: nn.Module) -> dict[str, Any]:
    return rename_vmamba(weights.get("model", weights))


def _register() -> None:
    """Make every configuration a function of this module and register it; timm looks up both."""
    for models, build in ((VIM_MODELS, _create_vim), (VMAMBA_MODELS, _create_vmamba)):
        for name, defaults in models.items():
            entry = _entry_point(name, defaults, build)
            entry.__module__ = __name__
            globals()[name] = register_model(entry)


_register()
