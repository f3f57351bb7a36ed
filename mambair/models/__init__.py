"""Models: what one training step and one validation is, by ``model_type`` (BasicSR's model protocol)."""

from __future__ import annotations

from typing import Any

from mambair.models.adversarial_model import AdversarialModel, RelativisticModel
from mambair.models.basicsr_models import prepared
from mambair.models.restoration_model import RestorationModel
from mambair.options.errors import made_of
from mambair.registry import MODEL_REGISTRY

__all__ = ["AdversarialModel", "RelativisticModel", "RestorationModel", "build_model"]

# the published option files' names for the same thing
for _name in ("SRModel", "MambaIRModel", "MambaIRv2Model", "MambaIRv2LightModel", "RealESRNetModel", "RealHATMSEModel"):
    MODEL_REGISTRY.register(RestorationModel, name=_name)


def build_model(opt: dict[str, Any]) -> Any:
    """Build the model of a checked option dictionary; anything that speaks BasicSR's model protocol comes back.

    Raises:
        SettingError: it cannot be built of these options, or its weights cannot be loaded.
    """
    with made_of("model_type"):
        name = opt["model_type"]
        return MODEL_REGISTRY.get(name)(opt if MODEL_REGISTRY.is_ours(name) else prepared(opt))
