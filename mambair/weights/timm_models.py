"""The published backbones under their names in timm: ``timm.create_model(name, pretrained=True)``, ``features_only``.

The one module of the package that imports timm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mambair.backbones.feature_indices import resolve_indices
from mambair.backbones.published import VIM_MODELS, VMAMBA_MODELS
from mambair.backbones.vim import VisionMamba
from mambair.backbones.vim_weights import fit_position_embedding
from mambair.backbones.vmamba import VSSM, Backbone_VSSM
from mambair.backbones.vmamba_weights import rename_vmamba
from mambair.weights.addresses import published
from mambair.weights.checkpoint import read_checkpoint
from mambair.weights.fetch import obtain, resolve

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}
VIM_LAYERS = {"first_conv": "patch_embed.proj", "classifier": "head"}
VMAMBA_LAYERS = {"first_conv": "patch_embed.0", "classifier": "classifier.head"}
Network = TypeVar("Network", VisionMamba, VSSM)
SOURCES = ("url", "file", "state_dict", "hf_hub_id")  # entries of timm's configuration that name weights


def _default_cfg(name: str, side: int, *, fixed: bool, layers: dict[str, str]) -> dict[str, Any]:
    remote = published(name)
    source = {"url": remote.urls[0], "license": remote.licence, "origin_url": remote.page} if remote else {}
    pool = None if fixed else (side // 32, side // 32)  # sides of the last map
    return {
        **source,
        "num_classes": 1000,
        "input_size": (3, side, side),
        "pool_size": pool,
        "crop_pct": 0.9,
        "fixed_input_size": fixed,
        **IMAGENET,
        **layers,
    }


default_cfgs = generate_default_cfgs(
    {name: _default_cfg(name, kw["img_size"], fixed=True, layers=VIM_LAYERS) for name, kw in VIM_MODELS.items()}
    | {name: _default_cfg(name, 224, fixed=False, layers=VMAMBA_LAYERS) for name in VMAMBA_MODELS}
)


def _build_vim(in_chans: int = 3, global_pool: str | None = None, **arguments: Any) -> VisionMamba:
    """VisionMamba with timm's names for channels and pool; an unknown argument is an error there."""
    return _pooled(VisionMamba(**({"channels": in_chans} | arguments)), global_pool)


def _build_vmamba(
    img_size: int | Sequence[int] | None = None, global_pool: str | None = None, **arguments: Any
) -> VSSM:
    """VSSM with timm's names for image size and pool."""
    return _pooled(VSSM(**_side(img_size), **arguments), global_pool)


def _build_pyramid(
    num_classes: int = 0,
    global_pool: str | None = None,
    img_size: int | Sequence[int] | None = None,
    **arguments: Any,
) -> Backbone_VSSM:
    """Backbone_VSSM, which has no classes and no pool."""
    return Backbone_VSSM(**_side(img_size), **arguments)


def _pooled(net: Network, global_pool: str | None) -> Network:
    if global_pool is not None:
        net.reset_classifier(net.num_classes, global_pool)
    return net


def _side(img_size: int | Sequence[int] | None) -> dict[str, Any]:
    """VMamba takes images of any size; a size is for its position embedding, which is square."""
    if img_size is None:
        return {}
    sides = {img_size} if isinstance(img_size, int) else set(img_size)
    if len(sides) != 1:
        raise ValueError(f"img_size must be a square, got {img_size}; without it images may have any size")
    return {"imgsize": sides.pop()}


def _entry_point(name: str, defaults: Mapping[str, Any], build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The function timm calls for ``name``."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: str | Path | None = None,
        **arguments: Any,
    ) -> nn.Module:
        overlay = dict(pretrained_cfg_overlay or {})
        if pretrained and not _names_source(pretrained_cfg, overlay):
            overlay["state_dict"] = _published_weights(name, cache_dir)
        source = {"pretrained_cfg": pretrained_cfg, "pretrained_cfg_overlay": overlay, "cache_dir": cache_dir}
        net = build(name, pretrained, {**defaults, **arguments}, source)
        for part in net.modules():  # timm keeps the configuration, also of the network inside a feature extractor
            getattr(part, "pretrained_cfg", {}).pop("state_dict", None)
        return net

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name}: the published configuration, every argument can be given by name."
    return create


def _names_source(pretrained_cfg: Any, overlay: Mapping[str, Any]) -> bool:
    """Whether the caller says where weights are, in timm's ways."""
    entries = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else getattr(pretrained_cfg, "__dict__", {})
    return any(overlay.get(key) or entries.get(key) for key in SOURCES)


def _published_weights(name: str, folder: str | Path | None) -> dict[str, Tensor]:
    """The tensors of the published file, from the cache or fetched, checked as `mambair.load` checks it."""
    path = obtain(resolve(name), folder=None if folder is None else Path(folder))
    return read_checkpoint(path).state_dict


def _create_vim(name: str, pretrained: bool, arguments: dict[str, Any], source: dict[str, Any]) -> nn.Module:
    depth = arguments.get("depth", 24)
    quarters = tuple((i + 1) * depth // 4 - 1 for i in range(4)) if depth >= 4 else tuple(range(depth))
    return build_model_with_cfg(
        _build_vim,
        name,
        pretrained,
        pretrained_filter_fn=_fitted,
        feature_cfg={"out_indices": quarters, "feature_cls": "getter"},
        **source,
        **arguments,
    )


def _create_vmamba(name: str, pretrained: bool, arguments: dict[str, Any], source: dict[str, Any]) -> nn.Module:
    if not arguments.get("features_only"):
        return build_model_with_cfg(
            _build_vmamba, name, pretrained, pretrained_filter_fn=_renamed, **source, **arguments
        )
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


def _fitted(weights: Mapping[str, Any], net: VisionMamba) -> dict[str, Any]:
    """The weights with their position embedding resized where the network is for another size of image."""
    tensors = dict(weights.get("model", weights))
    own = net.state_dict().get("pos_embed")
    if own is None or "pos_embed" not in tensors or tensors["pos_embed"].shape == own.shape:
        return tensors
    return fit_position_embedding(tensors, net)


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
