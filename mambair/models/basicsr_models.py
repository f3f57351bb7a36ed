"""Models of BasicSR in this engine: the options they read, and what they leave to others that our model does."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mambair.models.start_weights import read_start_weights
from mambair.options.errors import SettingError
from mambair.registry import BASICSR_PREFIX
from mambair.weights.file_format import weights_format

logger = logging.getLogger(__name__)

SCHEDULES = ("MultiStepLR", "MultiStepRestartLR", "CosineAnnealingRestartLR")


def prepared(opt: dict[str, Any]) -> dict[str, Any]:
    """Options as BasicSR's classes read them: its registries know their names without ``basicsr/``.

    Raises:
        SettingError: start weights that cannot be read, also by BasicSR alone; a schedule that it does not have.
    """
    param_key = opt["path"].get("param_key_g")
    _require_pickles(opt["path"])
    read_start_weights(opt, param_key if str(opt["path"].get("pretrain_network_g")).endswith(".pth") else None)
    if opt["is_train"]:
        found = (opt["train"].get("scheduler") or {}).get("type")
        if found not in SCHEDULES:
            text = f"found {found or 'none'}; models of basicsr need one of {', '.join(SCHEDULES)}"
            raise SettingError(("train", "scheduler"), text)
    return _without_prefix(opt)


def _require_pickles(paths: Mapping[str, Any]) -> None:
    for key in ("pretrain_network_g", "pretrain_network_d"):
        path = paths.get(key)
        if path and Path(path).is_file() and weights_format(Path(path)) == "safetensors":
            text = f"{path} is a safetensors file; models of basicsr read .pth files: run scripts/convert_checkpoint.py"
            raise SettingError(("path", key), text)


def _without_prefix(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prefix(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _without_prefix(item) for key, item in value.items()}
    if isinstance(plain.get("type"), str):
        plain["type"] = plain["type"].removeprefix(BASICSR_PREFIX)
    return plain


def recall_best(
    model: Any, names: Iterable[str], metrics: Mapping[str, Any], validations: Iterable[Mapping[str, Any]]
) -> None:
    """Give a resumed model its best values again, which BasicSR's training states do not hold.

    Args:
        names: of the validation sets, in the order of the option file.
        metrics: ``val.metrics`` of the options.
        validations: records of metrics.jsonl up to the iteration that the training goes on from.
    """
    best: dict[str, dict[str, dict[str, Any]]] = {}
    for name in names:
        best[name] = {}
        for metric, options in metrics.items():
            better = options.get("better", "higher")
            best[name][metric] = {"better": better, "val": -math.inf if better == "higher" else math.inf, "iter": -1}
    for record in validations:
        for metric, kept in best.get(record["validation"], {}).items():
            value = record.get(metric)
            if isinstance(value, float) and (
                value >= kept["val"] if kept["better"] == "higher" else value <= kept["val"]
            ):
                kept |= {"val": value, "iter": record["iter"]}
    model.best_metric_results = best


def report_validation(model: Any, dataset: str, iteration: int) -> None:
    """Log a validation as our model does; weights that lead by the first metric of the first set become ``best``.

    Args:
        model: keeps its best values in ``best_metric_results``, as SRModel and its subclasses do; others are left out.
        dataset: name of the set that was validated last.
        iteration: steps done.
    """
    best: Mapping[str, Any] = getattr(model, "best_metric_results", {})
    records = best.get(dataset, {})
    parts = [
        f"{metric} {value:.4f} (best {records[metric]['val']:.4f} at {records[metric]['iter']})"
        for metric, value in getattr(model, "metric_results", {}).items()
        if metric in records
    ]
    if not parts:
        return
    logger.info("validation of %s at iter %d: %s", dataset, iteration, ", ".join(parts))
    leads = dataset == next(iter(best)) and next(iter(records.values()))["iter"] == iteration
    if leads and hasattr(model, "net_g") and hasattr(model, "save_network"):
        nets = {"params": model.net_g}
        if hasattr(model, "net_g_ema"):
            nets["params_ema"] = model.net_g_ema
        model.save_network(list(nets.values()), "net_g", "best", param_key=list(nets))
