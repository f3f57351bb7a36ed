"""RestorationModel: one training step and one validation of a network that turns an image into a better one."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mambair.archs import build
from mambair.evaluation.candidates import Candidate, FunctionCandidate, InputCandidate, input_of
from mambair.evaluation.distributed import measure_shared
from mambair.evaluation.evaluate import Storage
from mambair.evaluation.results import SetResult, metrics_for
from mambair.inference.tiling import default_overlap, tiled_forward
from mambair.layers.activation_checkpoint import groups_of, recompute_groups
from mambair.losses import build_loss
from mambair.models.batch_mixing import BatchMixing
from mambair.models.ema import MovingAverage, ScheduleFreeAverage, build_average
from mambair.models.nonfinite_guard import NonFiniteGuard
from mambair.models.optimizers import build_optimizer
from mambair.models.schedules import build_schedule, warmed_up
from mambair.models.start_weights import read_start_weights
from mambair.models.step_parts import images_of, number_of
from mambair.models.teacher import Teacher
from mambair.options.errors import SettingError, made_of
from mambair.registry import MODEL_REGISTRY, arguments_of, join_basicsr_log
from mambair.system.cache_folder import use_private_compile_caches
from mambair.system.distributed import Processes
from mambair.weights.checkpoint import (
    AVERAGE_KEY,
    CheckpointError,
    load_weights,
    network_metadata,
    write_checkpoint,
    write_state,
)

logger = logging.getLogger(__name__)

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# the loss blocks of an option file, and BasicSR's names for their values
LOSSES = {"pixel_opt": "l_pix", "perceptual_opt": "l_percep", "fft_opt": "l_fft", "ssim_opt": "l_ssim"}
DEFAULT_NONFINITE_LIMIT = 20


@MODEL_REGISTRY.register()
class RestorationModel:
    """Trains ``network_g`` with the sum of its losses and validates it with image metrics.

    It speaks BasicSR's model protocol, so BasicSR's own training pipeline can run it, and it lives in the dictionary
    that BasicSR's option files describe. Losses and gradients are in float32 whatever ``train: amp`` says.

    Args:
        opt: checked options; ``rank``, ``world_size`` and ``local_rank`` are set by the engine (alone without them).

    Attributes:
        net_g: the bare network, whatever wraps it while it trains.
        average: the moving average of its weights, or None.
        metric_results: means of the last validation; a metric that could not be measured on every image is absent.
        baselines: {data set: {"name": "bicubic", metric: mean}} of the unrestored input.
        best_metric_results: {data set: {metric: {"better", "val", "iter"}}}, as BasicSR keeps them.
    """

    trains_discriminator = False

    def __init__(self, opt: dict[str, Any]) -> None:
        join_basicsr_log()
        self.opt = opt
        self.is_train = bool(opt["is_train"])
        self.processes = Processes(opt.get("rank", 0), opt.get("world_size", 1), opt.get("local_rank", 0))
        self.device = torch.device("cuda" if opt.get("num_gpu", 0) != 0 and torch.cuda.is_available() else "cpu")
        with made_of("network_g"):
            self.net_g = build(opt["network_g"]["type"], arguments_of(opt["network_g"])).to(self.device)
        self.average: MovingAverage | ScheduleFreeAverage | None = None
        self.metric_results: dict[str, float] = {}
        self.best_metric_results: dict[str, dict[str, dict[str, Any]]] = {}
        self.baselines: dict[str, dict[str, Any]] = {}
        self._reported: set[str] = set()
        count = sum(parameter.numel() for parameter in self.net_g.parameters())
        logger.info("%s with %s parameters on %s", type(self.net_g).__name__, f"{count:,}", self.device)
        has_average = self._load_pretrained(self.net_g, opt["path"].get("param_key_g"))
        if self.is_train:
            self._prepare_training(opt["train"], has_average)

    def _load_pretrained(self, net: nn.Module, param_key: str | None, label: str = "g") -> bool:
        """Load ``path.pretrain_network_<label>`` into ``net``, if one is named; returns whether it has an average."""
        checkpoint = read_start_weights(self.opt, param_key, label)
        if checkpoint is None:
            return False
        with made_of("path", f"pretrain_network_{label}"):
            strict = self.opt["path"].get(f"strict_load_{label}", True)
            report = load_weights(net, checkpoint.state_dict, strict=strict)
            if len(report.unexpected) + len(report.mismatched) == len(checkpoint.state_dict):
                raise CheckpointError(f"no weight of {checkpoint.source} fits {type(net).__name__}:\n{report}")
        logger.info("weights of %s loaded%s", checkpoint.source, f", except\n{report}" if report else "")
        return checkpoint.has_average

    def _prepare_training(self, train_opt: Mapping[str, Any], has_average: bool) -> None:
        self.net_g.train()
        if train_opt.get("checkpoint_groups"):
            with made_of("train", "checkpoint_groups"):
                count = recompute_groups(self.net_g, train_opt["checkpoint_groups"])
            logger.info("%d of %d groups compute their activations again", count, len(groups_of(self.net_g)))
        self.criteria = nn.ModuleDict(self._build_losses(train_opt)).to(self.device)
        with made_of("train", "optim_g"):
            self.optimizer_g = build_optimizer(train_opt["optim_g"], self.net_g, train_opt.get("param_groups") or ())
        is_random = not self.opt["path"].get("pretrain_network_g")
        self.average = build_average(train_opt, self.net_g, self.optimizer_g, is_random=is_random)
        if self.average is not None and has_average:
            self._load_pretrained(self.average.net, AVERAGE_KEY)
        self.teacher = Teacher(self.opt).to(self.device) if train_opt.get("teacher_opt") else None
        self.mixing = None
        if train_opt.get("use_moa"):
            with made_of("train", "moa_augs"):
                self.mixing = BatchMixing(train_opt["moa_augs"], train_opt.get("moa_probs"))
        self.trained: list[tuple[torch.optim.Optimizer, nn.Module]] = [(self.optimizer_g, self.net_g)]
        self.base_rates = [group["lr"] for group in self.optimizer_g.param_groups]
        with made_of("train", "scheduler"):
            self.schedule = build_schedule(train_opt.get("scheduler"), int(train_opt["total_iter"]))
        self.autocast_type = AMP_TYPES[train_opt.get("amp", "off")]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast_type is torch.float16)
        self.grad_clip = train_opt.get("grad_clip") or float("inf")
        self.accumulation = int(train_opt.get("accumulation", 1))
        self.guard = self._build_guard(train_opt)
        self._losses: dict[str, Tensor] = {}
        self._wrap(train_opt)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All optimisers, that of ``net_g`` first."""
        return [optimizer for optimizer, _ in self.trained]

    def _build_losses(self, train_opt: Mapping[str, Any]) -> dict[str, nn.Module]:
        """The losses by their labels in the log; those of a list are numbered from the second on."""
        losses: dict[str, nn.Module] = {}
        for key, label in LOSSES.items():
            found = train_opt.get(key) or []
            for index, loss_opt in enumerate(found if isinstance(found, list) else [found]):
                with made_of("train", key):
                    losses[f"{label}_{index + 1}" if index else label] = build_loss(loss_opt)
        if not losses:
            raise SettingError(("train",), f"there is no loss to train with; write one of {', '.join(LOSSES)}")
        return losses

    def _build_guard(self, train_opt: Mapping[str, Any]) -> NonFiniteGuard:
        root = self.opt["path"].get("experiments_root")
        origin = {"seed": self.opt.get("manual_seed"), "rank": self.processes.rank}
        limit = train_opt.get("nonfinite_limit", DEFAULT_NONFINITE_LIMIT)
        return NonFiniteGuard(limit, Path(root) if root else None, origin)

    def _wrap(self, train_opt: Mapping[str, Any]) -> None:
        """Make ``training_net``, what a training step calls: ``net_g``, perhaps synchronised and compiled."""
        if train_opt.get("channels_last"):
            self.net_g.to(memory_format=torch.channels_last)
        self._synchronised: nn.parallel.DistributedDataParallel | None = None
        if self.processes.distributed:
            gpu = [self.processes.local_rank] if self.device.type == "cuda" else None
            self._synchronised = nn.parallel.DistributedDataParallel(self.net_g, device_ids=gpu)
        net: nn.Module = self._synchronised or self.net_g
        if train_opt.get("compile"):
            use_private_compile_caches()
        self.training_net = torch.compile(net) if train_opt.get("compile") else net

    # -- one training step -------------------------------------------------------------------------------------------

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch: ``lq`` [B, C, h, w] and, for training, ``gt`` [B, C, H, W], RGB float in [0, 1]."""
        self.lq: Tensor = data["lq"].to(self.device, non_blocking=True)
        self.gt: Tensor | None = data["gt"].to(self.device, non_blocking=True) if "gt" in data else None
        # what a discriminator takes for real, where that is another image
        self.gt_gan: Tensor | None = data["gt_gan"].to(self.device) if "gt_gan" in data else self.gt
        self.files: list[str] = list(data.get("lq_path", ()))

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimiser step on the fed batch, in ``train: accumulation`` equal parts; non-finite steps are skipped.

        Raises:
            TrainingDiverged: too many skipped steps in a row.
            ValueError: the batch cannot be split into so many equal parts.
        """
        if self.gt is None:
            raise ValueError("training needs 'gt' in every batch; the data set gave only 'lq'")
        if len(self.lq) % self.accumulation:
            raise ValueError(
                f"a batch of {len(self.lq)} cannot be split into accumulation={self.accumulation} equal parts"
            )
        if self.mixing is not None:
            self.lq, self.gt, self.gt_gan = self.mixing.with_real(self.lq, self.gt, self.gt_gan)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        parts = list(zip(*(images.chunk(self.accumulation) for images in (self.lq, self.gt, self.gt_gan)), strict=True))
        for index, part in enumerate(parts):
            for name, loss in self._accumulate(*part, current_iter, last=index == len(parts) - 1).items():
                sums[name] = sums[name] + loss if name in sums else loss
        self._losses = sums
        self._step(current_iter)

    def _accumulate(self, lq: Tensor, gt: Tensor, real: Tensor, current_iter: int, *, last: bool) -> dict[str, Tensor]:
        """Add the gradients of one part; returns its share of each loss. Gradients are exchanged at the last part."""
        with self._alone(self._synchronised, last):
            self.output = images_of(self.net_g, self._autocast(self.training_net, lq))
            losses = self._losses_of_output(self.output, lq, gt, real)
            self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _losses_of_output(self, output: Tensor, lq: Tensor, gt: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The share of one part in each loss of ``net_g``."""
        losses: dict[str, Tensor] = {}
        for name, criterion in self.criteria.items():
            # processes are averaged, so a sum over all images needs their number
            is_sum = getattr(criterion, "reduction", "mean") == "sum"
            share = float(self.processes.world_size) if is_sum else 1.0 / self.accumulation
            block = next(key for key, label in LOSSES.items() if name.startswith(label))
            losses[name] = number_of(criterion, criterion(output.float(), gt), block) * share
        if self.teacher is not None:
            losses["l_teacher"] = self.teacher(output.float(), lq) / self.accumulation
        return losses

    def _autocast(self, net: nn.Module, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.autocast_type, enabled=self.autocast_type is not None):
            return net(images)

    @staticmethod
    def _alone(
        synchronised: nn.parallel.DistributedDataParallel | None, last: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """The context of a backward pass: gradients stay in this process until the last part."""
        return contextlib.nullcontext() if last or synchronised is None else synchronised.no_sync()

    def _stepping(self, current_iter: int) -> list[tuple[torch.optim.Optimizer, nn.Module]]:
        """The optimisers that step at this iteration, each with its network."""
        return self.trained

    def _step(self, current_iter: int) -> None:
        """Clip, and step unless something is not finite; every process decides alike."""
        stepping, norms = self._stepping(current_iter), []
        for optimizer, net in stepping:
            self.scaler.unscale_(optimizer)
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), self.grad_clip))
        finite_loss = torch.isfinite(torch.stack(list(self._losses.values()))).all()
        if self.processes.any_true(not bool(finite_loss & torch.isfinite(torch.stack(norms)).all())):
            only_scale = self.scaler.is_enabled() and not self.processes.any_true(not bool(finite_loss))
            self.scaler.update()
            if only_scale:
                self.guard.scale_lowered(current_iter, self.scaler.get_scale())
            else:
                self.guard.step_skipped(current_iter, self.get_current_log(), self.files)
            return
        for optimizer, _ in stepping:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.guard.step_taken()
        if self.average is not None and stepping[0][0] is self.optimizer_g:
            self.average.update(self.net_g, current_iter)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the rate of iteration ``current_iter`` (counted from 1): the schedule's, scaled during warm-up."""
        for group, base in zip(self._parameter_groups(), self.base_rates, strict=True):
            frozen = current_iter <= group.get("freeze_until", 0)
            rate = warmed_up(self.schedule(current_iter - 1, base), current_iter, warmup_iter)
            group["lr"] = 0.0 if frozen else rate

    def get_current_learning_rate(self) -> list[float]:
        """The rate of every parameter group."""
        return [group["lr"] for group in self._parameter_groups()]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def get_current_log(self) -> dict[str, float]:
        """The losses of the last step, means over processes: every process must call it."""
        if not self._losses:
            return {}
        values = self.processes.mean(torch.stack(list(self._losses.values())))
        return dict(zip(self._losses, values.tolist(), strict=True))

    # -- validation --------------------------------------------------------------------------------------------------

    def restore(self, lq: Tensor) -> Tensor:
        """Run the averaged network (without averaging the trained one) on [B, C, h, w], without gradients.

        In blended tiles of at most ``val: tile`` input pixels, if that is set.
        """
        net = self.net_g if self.average is None else self.average.net
        was_training = net.training
        tile, overlap = self.opt["val"].get("tile") or 0, self.opt["val"].get("overlap")
        grid = {
            "scale": self.opt["scale"],
            "tile": tile,
            "overlap": default_overlap(tile) if overlap is None else overlap,
            "multiple": int(getattr(net, "tile_multiple", 1)),
        }
        lq = lq.to(self.device)
        net.eval()
        with torch.no_grad():
            restored = tiled_forward(net, lq, **grid) if tile else net(lq)
        net.train(was_training)
        return images_of(net, restored)

    def test(self) -> None:
        """Restore the fed batch; see `get_current_visuals`."""
        self.output = self.restore(self.lq)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """``lq``, ``result`` and, if fed, ``gt`` on the CPU."""
        visuals = {"lq": self.lq, "result": self.output}
        if self.gt is not None:
            visuals["gt"] = self.gt
        return {name: image.detach().cpu() for name, image in visuals.items()}

    def validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        """Measure on ``dataloader.dataset``, shared out over the processes; log the metrics, remember the best.

        An image or a metric that fails is reported in the log, and the others are measured. The unrestored input is
        measured beside the network the first time, and again while one of its values is NaN.

        Args:
            dataloader: anything with a ``dataset``; images are taken from that one by one.
            current_iter: for the log and the images' names.
            tb_logger: a SummaryWriter or None.
            save_img: write the restored images to ``path.visualization``.
        """
        dataset = dataloader.dataset
        asked = dataset.opt.get("metrics") or self.opt["val"].get("metrics") or {}
        name, metrics = dataset.opt["name"], metrics_for(dataset, asked)
        network = FunctionCandidate("network", self.restore)
        candidates: list[Candidate] = [network]
        if metrics and any(value != value for value in self.baselines.get(name, {"": math.nan}).values()):
            candidates.append(input_of(dataset.opt.get("type", ""), self.opt.get("scale", 1)))

        def picture_name(candidate: str, image: str) -> str | None:
            return f"{image}_{current_iter}.png" if save_img and candidate == network.name else None

        storage = Storage(Path(self.opt["path"]["visualization"]) / name, picture_name)
        empty = SetResult(name, dataset, metrics, self.opt.get("scale", 1))
        result = measure_shared(empty, candidates, self.processes, storage=storage)
        for candidate in candidates:
            if isinstance(candidate, InputCandidate):
                self.baselines[name] = {"name": candidate.name, **result.whole_mean(candidate.name)}
        self.metric_results = result.whole_mean(network.name)
        self._report_failures(name, result)
        self._remember_best(name, metrics, current_iter)
        self._log_validation(name, metrics, current_iter, tb_logger)

    def _report_failures(self, dataset: str, result: SetResult) -> None:
        """Log why something could not be measured; each line once in a training, by one process."""
        for line in result.failed:
            if line not in self._reported and self.processes.is_main:
                logger.warning("validation of %s: not measured: %s", dataset, line)
        self._reported.update(result.failed)

    def _remember_best(self, dataset: str, metrics: Mapping[str, Any], current_iter: int) -> None:
        """Keep the best values; weights that lead by the first metric of the first data set become net_g_best.pth.

        NaN is never the best, and is replaced where a training state holds it.
        """
        records = self.best_metric_results.setdefault(dataset, {})
        for metric, value in self.metric_results.items():
            better = metrics.get(metric, {}).get("better", "higher")
            best = records.get(metric, {}).get("val", math.nan)
            is_better = math.isnan(best) or (value >= best if better == "higher" else value <= best)
            if is_better and not math.isnan(value):
                records[metric] = {"better": better, "val": value, "iter": current_iter}
        leading_dataset, leading_metric = next(iter(self.best_metric_results)), next(iter(metrics), "")
        leads = leading_dataset == dataset and records.get(leading_metric, {}).get("iter") == current_iter
        if self.is_train and leads:
            self.save_network("best")

    def _log_validation(self, dataset: str, metrics: Mapping[str, Any], current_iter: int, tb_logger: Any) -> None:
        """Write each metric with its best value and that of the unrestored input to the log and TensorBoard."""
        records, baseline = self.best_metric_results[dataset], self.baselines.get(dataset, {})
        parts = []
        for metric, value in self.metric_results.items():
            beside = []
            if metric in records:
                beside.append(f"best {records[metric]['val']:.4f} at {records[metric]['iter']}")
            if metric in baseline:
                beside.append(f"{baseline['name']} {baseline[metric]:.4f}")
            parts.append(f"{metric} {value:.4f} ({', '.join(beside)})" if beside else f"{metric} {value:.4f}")
        told = ", ".join(parts) or ("no metric could be measured" if metrics else "no metrics asked for")
        logger.info("validation of %s at iter %d: %s", dataset, current_iter, told)
        for metric, value in self.metric_results.items() if tb_logger is not None else ():
            tb_logger.add_scalar(f"metrics/{dataset}/{metric}", value, current_iter)
            if metric in baseline:
                tb_logger.add_scalar(
                    f"metrics/{dataset}/{metric} of {baseline['name']}", baseline[metric], current_iter
                )

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the weights and then, as the mark that both are complete, the training state; -1 writes ``latest``."""
        self.save_network("latest" if current_iter == -1 else current_iter)
        self.save_training_state(epoch, current_iter)

    def save_network(self, label: int | str) -> None:
        """Write ``models/net_g_<label>.pth`` as BasicSR does: {"params": ..., "params_ema": ... if averaging}."""
        if not self.processes.is_main:
            return
        task = "sr" if self.opt.get("scale", 1) > 1 else "restoration"
        write_checkpoint(
            Path(self.opt["path"]["models"]) / f"net_g_{label}.pth",
            self.net_g.state_dict(),
            network_metadata(self.opt["network_g"]["type"], arguments_of(self.opt["network_g"]), task),
            average=None if self.average is None else self.average.net.state_dict(),
        )

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``training_states/<iter>.state``, tensors and numbers only, so that a safe load reads it; -1: none."""
        if current_iter == -1 or not self.processes.is_main:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "seed": self.opt.get("manual_seed"),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [],
            "scaler": self.scaler.state_dict(),
            "best_metric_results": self.best_metric_results,
        }
        write_state(Path(self.opt["path"]["training_states"]) / f"{current_iter}.state", state)

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Go on from a training state; the weights come with ``path.pretrain_network_g``.

        Raises:
            ValueError: the state belongs to another optimiser or network.
        """
        states = resume_state["optimizers"]
        if len(states) != len(self.optimizers):
            raise ValueError(f"the training state has {len(states)} optimisers, this model {len(self.optimizers)}")
        for optimizer, state in zip(self.optimizers, states, strict=True):
            kind, groups = type(optimizer).__name__, state["param_groups"]
            # those of pytorch-optimizer count their steps in the group, from the first on
            if (groups[0].keys() ^ optimizer.param_groups[0].keys()) - {"step"}:
                raise ValueError(f"the training state is of another optimiser than {kind} of train.optim_g")
            try:
                optimizer.load_state_dict(state)
            except ValueError as error:
                raise ValueError(f"the training state is of another network: {error}") from error
        if self.scaler.is_enabled() and resume_state.get("scaler"):
            self.scaler.load_state_dict(resume_state["scaler"])
        self.best_metric_results = resume_state.get("best_metric_results", {})
