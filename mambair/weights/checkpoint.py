"""Weights in and out: .pth (never unpickling objects) and .safetensors, with every fault of a file in one message."""

from __future__ import annotations

import difflib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mambair.system.atomic_file import atomic_path
from mambair.system.console import printable
from mambair.weights.file_format import ZIP, not_weights, weights_format

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (*PICKLE_SUFFIXES, ".safetensors")
PARAM_KEYS = ("params_ema", "params", "model", "state_dict")  # where published files keep the weights; first one wins
AVERAGE_KEY = "params_ema"
METADATA_KEY = "metadata"
# what the metadata says of a network
ARCH_KEY, KWARGS_KEY, TASK_KEY = "mambair.arch", "mambair.kwargs", "mambair.task"
COMPILED = "_orig_mod."  # torch.compile puts it before the names of what it compiles, a network or a part of it
PARALLEL_PREFIX = "module."  # DistributedDataParallel
MEMBER_PREFIXES = ("model.", "net_g.")  # the network inside a Lightning module
NUMBERED = re.compile(r"(model\.|net_g\.)*\d")  # the rest of names like model.0.weight, where "model" is a Sequential
LIGHTNING_KEY = "pytorch-lightning_version"
MOST_TENSORS = 20_000  # the largest known networks have about 2,000
MOST_OPERATIONS = 2**22  # of a pickle; a network of 2,000 tensors has about 200,000
SHOWN = 12  # faults of one kind that are written out

T = TypeVar("T")


class CheckpointError(ValueError):
    """A file with weights that cannot be read, or does not fit the network; the message says what and why."""


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; the ones before it are intact."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they stand in a file.

    Attributes:
        state_dict: name -> tensor on the CPU, dtype as stored, under the network's own names (`unwrapped_names`).
        metadata: what the file says of itself; empty for most .pth files.
        source: the path, for messages.
        has_average: whether the file also holds a moving average, under ``params_ema``.
    """

    state_dict: dict[str, Tensor]
    metadata: dict[str, str]
    source: str
    has_average: bool = False


@dataclass(frozen=True)
class LoadReport:
    """What did not fit: names, and for mis-shaped ones (name, what the network has, what the file has)."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to report."""
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        sections = (
            _section("of another shape", self.mismatched, lambda e: f"{e[0]}: the network has {e[1]}, the file {e[2]}"),
            _section("missing from the file", self.missing, self._with_near_name),
            _section("unknown to the network", self.unexpected, str),
        )
        return "\n".join(line for section in sections for line in section)

    def _with_near_name(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.unexpected, n=1, cutoff=0.8)
        return f"{name} (the file has {near[0]})" if near else name


def _section(title: str, entries: Sequence[T], write: Callable[[T], str]) -> list[str]:
    if not entries:
        return []
    more = [f"  and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return [f"{len(entries)} {title}:", *(f"  {printable(write(entry))}" for entry in entries[:SHOWN]), *more]


def read_checkpoint(
    path: str | PathLike[str], param_key: str | None = None, *, allow_nonfinite: bool = False
) -> Checkpoint:
    """Read the weights of a network. The format is told by the first bytes of the file, not by its name.

    Args:
        path: a file of safetensors, or one that ``torch.save`` wrote.
        param_key: which entry of a .pth holds the weights; None takes the first present of params_ema, params, model,
            state_dict, and the file itself when it is a plain table of tensors. A .safetensors file has one table.
        allow_nonfinite: accept tensors with NaN or infinite values.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: a file of another kind, which is named; a broken file; objects other than tensors, numbers and
            text in a pickle (nothing of it is executed); no weights under ``param_key``; a tensor that claims more
            elements than the file stores; NaN or infinite values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    file_format = weights_format(path)
    if file_format is None:
        raise CheckpointError(f"{path}: {not_weights(path)}")
    checkpoint = _READERS[file_format](path, param_key)
    if not allow_nonfinite:
        _refuse_nonfinite(checkpoint)
    return checkpoint


def _read_safetensors(path: Path, param_key: str | None) -> Checkpoint:
    if param_key is not None:
        raise CheckpointError(f"{path}: param_key {param_key!r} has no meaning in a safetensors file; leave it out")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            _check_count(names, path)
            tensors, metadata = {name: file.get_tensor(name) for name in names}, file.metadata()
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole .safetensors file ({printable(str(error))})") from error
    return Checkpoint(_checked(tensors, path), dict(metadata or {}), str(path))


def _read_pickled(path: Path, param_key: str | None) -> Checkpoint:
    content = _read_pickle(path)
    tensors, metadata = _unwrap(content, param_key, path)
    return Checkpoint(_checked(tensors, path, LIGHTNING_KEY in content), metadata, str(path), AVERAGE_KEY in content)


_READERS = {"safetensors": _read_safetensors, "pickle": _read_pickled}


class _CountedReads(io.BufferedReader):
    """A file that raises after ``MOST_OPERATIONS`` reads; the unpickler needs one or two for an operation."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._path, self._left = path, MOST_OPERATIONS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise CheckpointError(f"{self._path}: its pickle has more operations than any file of weights needs")
        return super().read(size)


def _check_archive(path: Path) -> None:
    """Refuse a zip archive that unpacks to far more than it is, or whose pickle takes hours."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    unpacked, most = sum(each.file_size for each in members), 4 * path.stat().st_size + 2**26
    if unpacked > most:
        raise CheckpointError(f"{path}: a bomb: it would unpack to {unpacked} bytes, at most {most} are accepted")
    if any(each.file_size > MOST_OPERATIONS for each in members if each.filename.endswith("data.pkl")):
        raise CheckpointError(f"{path}: its pickle has more than the {MOST_OPERATIONS} bytes that weights need")


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # given a path, torch.load looks at the suffix
            if file.read(len(ZIP)) == ZIP:  # not is_zipfile, which also takes an archive behind a pickle
                _check_archive(path)
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
        with _CountedReads(path) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: not a whole checkpoint ({printable(str(error))})") from error
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        asks = f"its pickle asks for {wanted.group(1)}" if wanted else "it is damaged, or its pickle asks for objects"
        raise CheckpointError(
            f"{path}: refused, nothing of it was executed: {asks}, and only tensors, numbers and text are safe to "
            "read. If you trust where it comes from, load it there and save only the state dict."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise CheckpointError(f"{path}: not a whole checkpoint ({type(error).__name__}: {reason})") from error


def _unwrap(content: Any, param_key: str | None, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The table of tensors in a .pth file's content, and the metadata beside it."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: a table of tensors is wanted, the file holds a {type(content).__name__}")
    beside = content.get(METADATA_KEY)
    metadata = {str(k): v for k, v in beside.items() if isinstance(v, str)} if isinstance(beside, Mapping) else {}
    candidates = PARAM_KEYS if param_key is None else (param_key,)
    for key in candidates:
        if isinstance(content.get(key), Mapping):
            return dict(content[key]), metadata
    if param_key is None and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content), {}
    wanted = f"no weights under {' or '.join(map(repr, candidates))}"
    raise CheckpointError(f"{path}: {wanted}; the file has {_some(content)}")


def _checked(tensors: dict[str, Any], path: Path, lightning: bool = False) -> dict[str, Tensor]:
    """The tensors under the network's own names, all of them real."""
    if not tensors:
        raise CheckpointError(f"{path}: the file holds no tensors")
    _check_count(tensors, path)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name!r} is a {type(tensor).__name__}, only tensors belong here")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{path}: {printable(name)} is sparse or quantised; save it as a plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            shape = list(tensor.shape)
            raise CheckpointError(f"{path}: {printable(name)} claims the shape {shape}, but the file stores less")
    names = unwrapped_names(tensors, lightning=lightning)
    if len(set(names.values())) < len(names):
        raise CheckpointError(f"{path}: some names are there both with and without {PARALLEL_PREFIX} or {COMPILED}")
    return {own: tensors[name] for name, own in names.items()}


def unwrapped_names(names: Iterable[str], *, lightning: bool = False) -> dict[str, str]:
    """Map names of tensors to the network's own, without the prefixes of what it was wrapped in when it was saved.

    Args:
        names: of all tensors. ``module.`` and ``_orig_mod.`` are dropped from each name. ``model.`` or ``net_g.`` is
            dropped where all names begin with it.
        lightning: the file is a checkpoint of Lightning: ``model.`` or ``net_g.`` is dropped where some names begin
            with it, and the others, which belong to losses and the like, are left out.
    """
    own = {name: _without_wrappers(name) for name in names}
    for prefix in MEMBER_PREFIXES:
        inside = {name: _without_wrappers(rest[len(prefix) :]) for name, rest in own.items() if rest.startswith(prefix)}
        numbered = any(NUMBERED.match(rest) for rest in inside.values())
        if inside and not numbered and (lightning or len(inside) == len(own)):
            own = inside
    return own


def _check_count(names: Sized, path: Path) -> None:
    if len(names) > MOST_TENSORS:
        raise CheckpointError(f"{path}: the file holds {len(names)} tensors, expected at most {MOST_TENSORS}")


def _without_wrappers(name: str) -> str:
    name = name.replace(COMPILED, "")
    while name.startswith(PARALLEL_PREFIX):
        name = name.removeprefix(PARALLEL_PREFIX)
    return name


def _refuse_nonfinite(checkpoint: Checkpoint) -> None:
    broken = [name for name, tensor in checkpoint.state_dict.items() if not _is_finite(tensor)]
    if broken:
        raise CheckpointError(
            f"{checkpoint.source}: NaN or infinite values in {_some(broken)}; a training that diverged writes such "
            "files, use an earlier one (allow_nonfinite=True reads them all the same)"
        )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_floating_point() and tensor.element_size() == 1:  # torch has no isfinite for float8
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def _some(names: Iterable[Any]) -> str:
    names = list(names)
    return printable(", ".join(map(str, names[:SHOWN]))) + (
        f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    )


def compare(net: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """What of ``state_dict`` does not fit ``net``; no tensor is read, either may lie on the meta device."""
    ours = net.state_dict()
    mismatched = [
        (name, _describe(ours[name]), _describe(tensor))
        for name, tensor in state_dict.items()
        if name in ours and not _fits(ours[name], tensor)
    ]
    return LoadReport(
        missing=[name for name in ours if name not in state_dict],
        unexpected=[name for name in state_dict if name not in ours],
        mismatched=mismatched,
    )


def _fits(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and ours.is_floating_point() == theirs.is_floating_point()


def _describe(tensor: Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{list(tensor.shape)}{kind}"


def load_weights(net: nn.Module, state_dict: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
    """Copy weights into a network, in the network's dtypes and on its devices.

    Args:
        net: the network; unchanged when an error is raised.
        state_dict: name -> tensor, as from ``read_checkpoint``.
        strict: everything must fit. Otherwise what fits is copied and the rest is left as it was.

    Returns:
        What did not fit (empty when strict).

    Raises:
        CheckpointError: strict, and something does not fit; all of it is listed.
    """
    report = compare(net, state_dict)
    if strict and report:
        raise CheckpointError(f"the weights do not fit {type(net).__name__}:\n{report}")
    left_out = {*report.unexpected, *(name for name, _, _ in report.mismatched)}
    net.load_state_dict({k: v for k, v in state_dict.items() if k not in left_out}, strict=False)
    return report


def write_checkpoint(
    path: str | PathLike[str],
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, all or nothing (never half a file).

    Args:
        path: .safetensors, or .pth / .pt / .ckpt, which become {"params": state_dict, "params_ema": average,
            "metadata": metadata} (the last two only where they are given) and can be read by BasicSR.
        state_dict: name -> tensor, any device; stored in their dtypes.
        metadata: text about the weights, as `network_metadata` gives it.
        average: the moving average of the weights; not for .safetensors, which hold one table.

    Raises:
        CheckpointError: another suffix, or an average for a .safetensors file.
        CheckpointWriteError: the disk is full or not writable.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        if average is not None:
            raise CheckpointError(f"{path}: a .safetensors file holds one table of weights, not an average, too")
        own = {name: tensor.clone() for name, tensor in _on_cpu(state_dict).items()}  # it refuses shared memory
        _write(path, lambda temporary: save_file(own, temporary, metadata=dict(metadata or {})))
    elif suffix in PICKLE_SUFFIXES:
        content: dict[str, Any] = {"params": _on_cpu(state_dict)}
        if average is not None:
            content[AVERAGE_KEY] = _on_cpu(average)
        if metadata:
            content[METADATA_KEY] = dict(metadata)
        write_state(path, content)
    else:
        raise CheckpointError(f"{path}: weights are written to {', '.join(SUFFIXES)} files, not to {path.suffix!r}")


def read_state(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a dictionary of tensors, numbers and text, such as a training state; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, holds other objects, or is no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    content = _read_pickle(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary, got a {type(content).__name__}")
    return content


def write_state(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a dictionary of tensors, numbers and text, all or nothing.

    Raises:
        CheckpointWriteError: the disk is full or not writable.
    """
    _write(Path(path), lambda temporary: torch.save(dict(content), temporary))


def network_metadata(arch: str, kwargs: Mapping[str, Any], task: str) -> dict[str, str]:
    """The metadata from which `mambair.load` rebuilds a network.

    Args:
        arch, kwargs: the registered class and its arguments.
        task: "sr" or "restoration", for people and other programs.
    """
    return {ARCH_KEY: arch, KWARGS_KEY: json.dumps(dict(kwargs), allow_nan=False), TASK_KEY: task}


def _on_cpu(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Write beside ``path`` and rename; on an error the file that was there is untouched."""
    try:
        with atomic_path(path) as temporary:
            save(temporary)
    # the writers of torch and safetensors turn the operating system's errors into their own
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointWriteError(f"{path}: {str(error).partition(chr(10))[0]}") from error
