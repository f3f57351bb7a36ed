"""Registries: whose name wins, what errors say, and the connection to BasicSR in both directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mambair import registry
from mambair.registry import (
    ALL_REGISTRIES,
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
    basicsr_installed,
)

needs_basicsr = pytest.mark.skipif(not basicsr_installed(), reason="basicsr is not installed")


@pytest.fixture
def without_basicsr(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where basicsr is not installed."""
    monkeypatch.setitem(sys.modules, "basicsr", None)


@pytest.fixture
def shelf() -> Registry:
    """A registry of no kind BasicSR has, filled by hand."""
    return Registry("thing", "ARCH_REGISTRY", ())


def run_python(code: str, folder: Path) -> Any:
    """Run code in a fresh interpreter; what it prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


class First:
    """Something to register."""


class Second:
    """Another."""


def test_register_as_decorator_and_as_call(shelf: Registry) -> None:
    assert shelf.register()(First) is First
    assert shelf.register(Second) is Second
    assert shelf.register(Second, name="Alias") is Second
    assert shelf.keys() == ["Alias", "First", "Second"]
    assert list(shelf) == [("Alias", Second), ("First", First), ("Second", Second)]
    assert shelf.get("Alias") is Second
    assert shelf.is_ours("First")
    assert "First" in shelf
    assert 3 not in shelf


def test_a_duplicate_raises_and_changes_nothing(shelf: Registry) -> None:
    shelf.register(First)
    with pytest.raises(ValueError, match=r"thing 'First' is registered already \(by .*\); choose another name"):
        shelf.register(Second, name="First")
    assert list(shelf) == [("First", First)]
    shelf.register(First)  # the same object again, as after a second import: nothing to complain about
    assert shelf.get("First") is First


def test_unknown_names_get_the_nearest(shelf: Registry, without_basicsr: None) -> None:
    shelf.register(First)
    shelf.register(Second)
    with pytest.raises(KeyError) as raised:
        shelf.get("Frist")
    assert raised.value.args[0] == (
        "no thing named 'Frist'; did you mean 'First'? (basicsr, where more are defined, is not installed)"
    )
    with pytest.raises(KeyError) as raised:
        shelf.get("zzz")
    assert "no thing named 'zzz'; known: First, Second" in raised.value.args[0]


def test_basicsr_prefix_never_finds_ours(shelf: Registry, without_basicsr: None) -> None:
    shelf.register(First)
    with pytest.raises(KeyError, match=r"no thing named 'basicsr/First'.*did you mean 'First'.*not installed"):
        shelf.get("basicsr/First")


def test_every_registry_fills_itself(without_basicsr: None) -> None:
    expected = {
        "architecture": ["MambaIR"],
        "data set": ["BicubicDataset", "GaussianDenoisingDataset", "PairedImageDataset"],
        "loss": ["CharbonnierLoss", "L1Loss", "MSELoss"],
        "metric": ["calculate_psnr", "calculate_ssim"],
        "model type": ["MambaIRModel", "MambaIRv2LightModel", "MambaIRv2Model", "RestorationModel", "SRModel"],
    }
    for one in ALL_REGISTRIES:
        assert set(expected[one.kind]) <= set(one.keys())
        for name in expected[one.kind]:
            assert one.get(name).__module__.startswith("mambair.")


def test_a_blocked_basicsr_is_not_installed(without_basicsr: None) -> None:
    assert not basicsr_installed()
    assert registry.basicsr_table("ARCH_REGISTRY") is None
    with pytest.raises(ImportError):
        registry.connect_basicsr()


# -- with BasicSR ----------------------------------------------------------------------------------------------------


@needs_basicsr
@pytest.mark.parametrize(
    ("shared", "name"),
    [(LOSS_REGISTRY, "L1Loss"), (DATASET_REGISTRY, "PairedImageDataset"), (METRIC_REGISTRY, "calculate_psnr")],
    ids=["loss", "data set", "metric"],
)
def test_ours_come_first_and_the_prefix_forces_theirs(shared: Registry, name: str) -> None:
    assert shared.get(name).__module__.startswith("mambair.")
    assert shared.get(f"basicsr/{name}").__module__.startswith("basicsr.")
    assert shared.is_ours(name)
    assert not shared.is_ours(f"basicsr/{name}")


@needs_basicsr
def test_classes_of_basicsr_work_from_our_registries() -> None:
    import torch

    assert not ARCH_REGISTRY.is_ours("EDSR")
    assert "RCAN" in ARCH_REGISTRY
    net = ARCH_REGISTRY.get("EDSR")(num_in_ch=3, num_out_ch=3, num_feat=4, num_block=1, upscale=2)
    image = torch.rand(1, 3, 6, 5)
    assert net(image).shape == (1, 3, 12, 10)
    loss = LOSS_REGISTRY.get("basicsr/L1Loss")(loss_weight=2.0, reduction="mean")
    ours = LOSS_REGISTRY.get("L1Loss")(loss_weight=2.0, reduction="mean")
    torch.testing.assert_close(loss(image, image * 0.5), ours(image, image * 0.5))


@needs_basicsr
def test_unknown_everywhere() -> None:
    with pytest.raises(KeyError, match=r"no loss named 'L1Los'; did you mean 'L1Loss'[^(]*\?\"$"):
        LOSS_REGISTRY.get("L1Los")


CONNECTING = """
import importlib.util, json, logging, sys
removed = "torchvision.transforms.functional_tensor"
missing = importlib.util.find_spec("torchvision") is not None and importlib.util.find_spec(removed) is None
from mambair.registry import ALL_REGISTRIES, basicsr_table, connect_basicsr, import_basicsr

def tables():
    return {each.basicsr_name: dict(basicsr_table(each.basicsr_name)._obj_map) for each in ALL_REGISTRIES}

def added():
    return {kind: sorted(set(names) - set(before[kind])) for kind, names in tables().items()}

records = []
handler = logging.Handler()
handler.emit = lambda record: records.append(record.getMessage())
logging.getLogger("mambair").addHandler(handler)
logging.getLogger("mambair").setLevel(logging.INFO)

import_basicsr()
before = tables()
facts = {"missing": missing, "module": sys.modules[removed].__doc__ or "", "names": dir(sys.modules[removed])}
import mambair.archs
from basicsr.archs import build_network
net = build_network({"type": "MambaIR", "embed_dim": 6, "depths": [1], "d_state": 2})
facts |= {"built": type(net).__module__, "by_archs": added(), "losses": "mambair.losses" in sys.modules}
facts["lines_by_archs"] = list(records)
connect_basicsr()
facts |= {"added": added(), "lines": records[len(facts["lines_by_archs"]):]}
connected = tables()
facts["kept"] = all(connected[kind][name] is entry for kind in before for name, entry in before[kind].items())
connect_basicsr()
facts["again"] = connected == tables()
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def connecting(repository: Path) -> dict[str, Any]:
    """What happens in a fresh interpreter that imports basicsr, then mambair.archs, then connects everything, twice."""
    if not basicsr_installed():
        pytest.skip("basicsr is not installed")
    return run_python(CONNECTING, repository)


def test_importing_archs_connects_when_basicsr_is_there_already(connecting: dict[str, Any]) -> None:
    assert connecting["built"].startswith("mambair.archs")
    assert "MambaIR" in connecting["by_archs"].pop("ARCH_REGISTRY")
    assert not any(connecting["by_archs"].values()), "only the architectures are offered"
    assert not connecting["losses"], "the rest is not even imported"
    assert connecting["lines_by_archs"] == ["basicsr keeps its own VGGStyleDiscriminator"]


def test_connect_adds_what_is_missing(connecting: dict[str, Any]) -> None:
    added = connecting["added"]
    assert "MambaIR" in added["ARCH_REGISTRY"]
    assert {"BicubicDataset", "GaussianDenoisingDataset"} <= set(added["DATASET_REGISTRY"])
    assert {"RestorationModel", "MambaIRModel"} <= set(added["MODEL_REGISTRY"])
    assert connecting["again"], "connecting twice changes nothing"


def test_connect_leaves_taken_names_alone_with_one_line(connecting: dict[str, Any]) -> None:
    assert connecting["kept"]
    (line,) = connecting["lines"]
    assert line.startswith("basicsr keeps its own ")
    for taken in ("L1Loss", "SRModel", "PairedImageDataset", "calculate_psnr"):
        assert taken in line


def test_shim_is_only_made_where_it_is_needed(connecting: dict[str, Any]) -> None:
    assert "rgb_to_grayscale" in connecting["names"]
    assert connecting["module"].startswith("Stand-in") == connecting["missing"]


@needs_basicsr
def test_our_network_in_the_model_of_basicsr(tmp_path: Path) -> None:
    import torch

    registry.connect_basicsr()
    network = {
        "type": "MambaIR",
        "embed_dim": 6,
        "depths": [1],
        "d_state": 2,
        "upscale": 2,
        "upsampler": "pixelshuffledirect",
    }
    opt = {
        "name": "theirs",
        "is_train": True,
        "dist": False,
        "rank": 0,
        "num_gpu": 0,
        "network_g": network,
        "path": {"models": str(tmp_path), "training_states": str(tmp_path)},
        "train": {
            "pixel_opt": {"type": "CharbonnierLoss", "loss_weight": 1.0, "reduction": "mean"},
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
        },
    }
    model = MODEL_REGISTRY.get("basicsr/SRModel")(opt)
    assert type(model).__module__.startswith("basicsr.")
    torch.manual_seed(0)
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 16, 16)}
    losses = []
    for step in range(1, 4):
        model.feed_data(batch)
        model.optimize_parameters(step)
        losses.append(model.get_current_log()["l_pix"])
    assert losses[-1] < losses[0]
