"""Networks as folders and as repositories of the Hugging Face hub: weights, their description and a model card."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mambair.registry import ARCH_REGISTRY
from mambair.system.atomic_file import atomic_path
from mambair.system.bounded_reader import parse_json
from mambair.weights.addresses import HUB_PREFIX, PRETRAINED_FILE, hub_endpoint, is_repository
from mambair.weights.checkpoint import Checkpoint, CheckpointError, network_metadata, write_checkpoint
from mambair.weights.fetch import is_offline
from mambair.weights.hub import hub_installed
from mambair.weights.loading import load
from mambair.weights.model_card import hub_card, pictures_of
from mambair.weights.recognition import recognise

CONFIG_FILE, CARD_FILE = "config.json", "README.md"


def save_pretrained(
    net: nn.Module,
    folder: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    report: str | os.PathLike[str] | None = None,
    address: str | None = None,
) -> Path:
    """Write a network into a folder: model.safetensors, config.json, and README.md, its model card.

    ``mambair.load(folder)`` reads it; so does every ``--weights``.

    Args:
        net: a network of this project, or of a registered class of your own. Its arguments are those that
            `mambair.create`, `mambair.load` or `mambair.archs.build` made it with, else what its weights tell.
        folder: made where it is missing; files of these names are replaced.
        metadata: more about the weights: ``license``, ``mambair.task``, ``mambair.training``; such as
            ``mambair.weights.read(path).metadata``.
        report: ``report/report.md`` of a training, which becomes a part of the card, with its pictures.
        address: where the network will be found, for the examples of the card; None for the folder.

    Returns:
        The path of model.safetensors.

    Raises:
        CheckpointError: the network is of no registered class, its arguments cannot be written as JSON, or it was not
            built here and its weights belong to none of ours.
        OSError: the report cannot be read or is a link, a hard link or a pipe; or the folder cannot be written.
        CheckpointWriteError: the weights cannot be written.
    """
    folder = Path(folder)
    known = {**(metadata or {}), **_metadata_of(net, metadata or {})}
    card = hub_card(net, known, address or str(folder), None if report is None else Path(report))
    folder.mkdir(parents=True, exist_ok=True)
    config = {key.removeprefix("mambair."): value for key, value in known.items()}
    config |= {key: parse_json(config[key]) for key in ("kwargs", "training") if key in config}
    files = {CONFIG_FILE: (json.dumps(config, indent=2, allow_nan=False) + "\n").encode(), CARD_FILE: card.encode()}
    if report is not None:
        files |= pictures_of(Path(report))
    for name, content in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    write_checkpoint(folder / PRETRAINED_FILE, net.state_dict(), known)
    return folder / PRETRAINED_FILE


def from_pretrained(name: str | os.PathLike[str]) -> nn.Module:
    """Load what `save_pretrained` or `push_to_hub` wrote: a folder, or ``owner/repository`` on the hub.

    A folder that exists comes first. Everything else that `mambair.load` takes is taken, too; returned value and errors
    are the same.
    """
    text = os.fspath(name)
    return load(f"{HUB_PREFIX}{text}" if is_repository(text) and not Path(text).exists() else text)


def push_to_hub(
    net: nn.Module,
    repository: str,
    *,
    metadata: Mapping[str, str] | None = None,
    report: str | os.PathLike[str] | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a network",
) -> str:
    """Upload a network to the Hugging Face hub; needs huggingface_hub (``pip install "mambair[hub]"``).

    Args:
        net, metadata, report: see `save_pretrained`.
        repository: ``owner/repository``; made where it is missing.
        private: whether a new repository is private; None is the owner's default.
        token: of the hub; None for the one that ``hf auth login`` or ``HF_TOKEN`` left.
        message: of the commit.

    Returns:
        The address for `mambair.load` and ``--weights``: ``hub:owner/repository``.

    Raises:
        CheckpointError: huggingface_hub is missing, the network may not be used, ``repository`` is no such name, or as
            of `save_pretrained`.
        OSError: the hub refuses the upload, or cannot be reached (errors of huggingface_hub are of this class).
    """
    if not is_repository(repository):
        raise CheckpointError(f"{repository!r}: expected OWNER/REPOSITORY")
    if is_offline():
        raise CheckpointError(f"{repository} is not uploaded: MAMBAIR_OFFLINE is set")
    if not hub_installed():
        raise CheckpointError('uploading needs huggingface_hub: pip install "mambair[hub]"')
    from huggingface_hub import HfApi

    address = f"{HUB_PREFIX}{repository}"
    with tempfile.TemporaryDirectory(prefix="mambair_hub_") as folder:
        save_pretrained(net, folder, metadata=metadata, report=report, address=address)
        api = HfApi(endpoint=hub_endpoint(), token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return address


def _metadata_of(net: nn.Module, known: Mapping[str, str]) -> dict[str, str]:
    """The class and the arguments of a network, as metadata of its file."""
    built: tuple[str, dict[str, Any]] | None = getattr(net, "built_from", None)
    arch, kwargs = built or recognise(Checkpoint(net.state_dict(), {}, type(net).__name__))
    if not ARCH_REGISTRY.is_ours(arch):
        raise CheckpointError(f"{arch} is a class of BasicSR; only networks that mambair.load can build are written")
    task = known.get("mambair.task") or ("sr" if int(getattr(net, "upscale", 1)) > 1 else "restoration")
    try:
        return network_metadata(arch, kwargs, task)
    except TypeError as error:
        raise CheckpointError(f"the arguments of {arch} cannot be written as JSON: {error}") from error
