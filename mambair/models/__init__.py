"""Models: what one training step and one validation is, by ``model_type`` (BasicSR's model protocol)."""

from __future__ import annotations

from typing import Any

from mambair.models.adversarial_model import AdversarialModel, RelativisticModel
from mambair.models.restoration_model import RestorationModel
from mambair.registry import MODEL_REGISTRY

__all__ = ["AdversarialModel", "RelativisticModel", "RestorationModel", "build_model"]

# the published option files' names for the same thing
for _name in ("SRModel", "MambaIRModel", "MambaIRv2Model", "MambaIRv2LightModel", "RealESRNetModel", "RealHATMSEModel"):
    MODEL_REGISTRY.register(RestorationModel, name=_name)


def build_model(opt: dict[str, Any]) -> Any:
    """Build the model of a checked option dictionary; anything that speaks BasicSR's model protocol comes back.

    Raises:
        KeyError: nobody knows ``opt["model_type"]``.
    """
    return MODEL_REGISTRY.get(opt["model_type"])(opt)
