"""The schema of an option file: BasicSR's vocabulary as strict pydantic models; docs/options.md is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _integral(value: object) -> object:
    """``5e3`` is a whole number, as BasicSR's files write it (``!!float 5e3``)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_integral)]
Count = Annotated[int, BeforeValidator(_integral), Field(ge=1)]
NotNegative = Annotated[int, BeforeValidator(_integral), Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0)]
Part = dict[str, Any]  # checked against the signature of the class its `type` names
Losses = Part | list[Part] | None


class Section(BaseModel):
    """A mapping of the option file: unknown keys and values of another type are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class LoaderOptions(Section):
    """Keys of a data set (``datasets.train``, ``datasets.val``, ``datasets.test_1`` ...) that concern its loading."""

    total_batch_size: Count | None = Field(
        default=None, le=2**16, description="Images in one optimiser step, over all processes. Training only."
    )
    batch_size_per_gpu: Count | None = Field(
        default=None,
        le=2**16,
        description="BasicSR's spelling: the total is this times `num_gpu`. One of the two. Training only.",
    )
    num_worker_per_gpu: NotNegative = Field(
        default=0, le=1024, description="Processes that read images, for each training process."
    )
    dataset_enlarge_ratio: Count = Field(default=1, description="How often the data set is repeated in one epoch.")
    pin_memory: bool = Field(default=False, description="Page-locked host memory: faster copies to a GPU.")
    metrics: dict[str, Part] | None = Field(
        default=None,
        description="Metrics of this set in place of `val.metrics`, written alike. Validation and test only.",
    )


class PathOptions(Section):
    """Weights to start from, states to go on from, and where results are written."""

    pretrain_network_g: str | None = Field(
        default=None,
        description="Weights to start from or to test: a .pth or .safetensors file, or the name or address of "
        "published ones (docs/weights.md).",
    )
    strict_load_g: bool = Field(default=True, description="Every weight must fit; false skips the ones that do not.")
    param_key_g: str | None = Field(default=None, description="Which weights of a .pth file (params, params_ema).")
    pretrain_network_d: str | None = Field(
        default=None, description="Weights for the discriminator to start from; null is random."
    )
    pretrain_network_g_teacher: str | None = Field(
        default=None, description="Weights of a teacher, for `train.teacher_opt`."
    )
    strict_load_d: bool = Field(default=True, description="As `strict_load_g`, for the discriminator.")
    param_key_d: str | None = Field(default=None, description="As `param_key_g`, for the discriminator.")
    resume_state: str | None = Field(default=None, description="A training state (.state) to go on from.")
    experiments_root: str | None = Field(
        default=None,
        description="Folder of this experiment, inside the current directory; null is `experiments/<name>`.",
    )
    results_root: str | None = Field(
        default=None, description="Folder of the test results, inside the current directory; null is `results/<name>`."
    )


class ParameterGroup(Section):
    """A rule for some parameters of ``network_g``."""

    pattern: str = Field(min_length=1, description="Names of parameters; `*` stands for any text: `conv_first.*`.")
    lr_mult: float = Field(default=1.0, ge=0, description="Factor of the learning rate; 0 never trains them.")
    weight_decay: float | None = Field(default=None, ge=0, description="Their weight decay; null is the optimiser's.")
    freeze_until: NotNegative = Field(default=0, description="Iterations at the start in which they stay as they are.")


class MuonOptions(Section):
    """``type: Muon``: Muon for matrices, AdamW for the rest, at one learning rate."""

    lr: float = Field(gt=0, description="The learning rate; one that suits AdamW suits both.")
    weight_decay: float = Field(default=0.01, ge=0, description="Of parameters that decay.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="Of Muon.")
    nesterov: bool = Field(default=True, description="Of Muon.")
    ns_steps: Count = Field(default=5, description="Newton-Schulz iterations of Muon.")
    betas: list[float] = Field(default=[0.9, 0.99], min_length=2, max_length=2, description="Of AdamW.")
    eps: float = Field(default=1e-8, gt=0, description="Of AdamW.")


class TrainOptions(Section):
    """Optimiser, schedule and losses."""

    total_iter: Count = Field(description="Number of optimiser steps.")
    optim_g: Part = Field(
        description="Optimiser: `type` (Adam, AdamW, SGD, Muon; with the extra `[optimizers]` Adan, SOAP, "
        "ScheduleFreeAdamW) and the arguments of its class."
    )
    scheduler: Part | None = Field(
        default=None, description="Learning rate schedule: `type` and its keys; null is constant."
    )
    pixel_opt: Losses = Field(
        default=None,
        description="The loss: `type` and its arguments, or a list of such. Our models need this or another loss.",
    )
    fft_opt: Losses = Field(default=None, description="Loss on the spectra: `type: FFTLoss` and its arguments.")
    ssim_opt: Losses = Field(default=None, description="SSIMLoss or MSSSIMLoss and its arguments.")
    perceptual_opt: Losses = Field(default=None, description="PerceptualLoss and its arguments.")
    gan_opt: Part | None = Field(
        default=None, description="GANLoss and its arguments. Required where there is a discriminator, as `optim_d`."
    )
    ldl_opt: Part | None = Field(
        default=None,
        description="A pixel loss weighed by where artifacts are likely (LDL): with a discriminator and `ema_decay`.",
    )
    optim_d: Part | None = Field(default=None, description="Optimiser of the discriminator, written as `optim_g`.")
    param_groups: list[ParameterGroup] | None = Field(
        default=None,
        description="Rules for parameters of `network_g` that are trained otherwise; the first that fits counts.",
    )
    teacher_opt: Part | None = Field(
        default=None,
        description="The loss between the output and a teacher's (`path.pretrain_network_g_teacher`): `type` and its "
        "arguments.",
    )
    use_moa: bool = Field(default=False, description="Mix the images of each batch by one of `moa_augs`.")
    moa_augs: list[Literal["none", "mixup", "cutmix", "cutblur"]] = Field(
        default=["none", "mixup", "cutmix", "cutblur"], min_length=1, description="What is drawn from, for each step."
    )
    moa_probs: list[Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        description="How often each of `moa_augs` is drawn, relative to the others; null is equally often.",
    )
    net_d_iters: Count = Field(
        default=1, description="The network steps at every so many-th iteration, the discriminator at each."
    )
    net_d_init_iters: NotNegative = Field(
        default=0, description="Iterations at the start in which only the discriminator learns."
    )
    r1_reg_weight: float = Field(
        default=0.0, ge=0, description="Factor of R1 regularisation of the discriminator; 0 is none."
    )
    net_d_reg_every: Count = Field(default=16, description="Iterations from one R1 regularisation to the next.")
    warmup_iter: Whole = Field(
        default=-1, ge=-1, description="Steps of linear warm-up of the learning rate; -1 is none."
    )
    ema_decay: float = Field(default=0.0, ge=0, lt=1, description="Decay of the averaged weights; 0 keeps none.")
    ema_warmup: bool = Field(
        default=False,
        description="The decay starts low and rises: at step n it is at most (1 + n) / (10 + n), so that the averages "
        "of a short training do not remember its random start. BasicSR has no such thing.",
    )
    amp: Literal["off", "bf16", "fp16"] = Field(
        default="off", description="Mixed precision; the scan stays in float32."
    )
    channels_last: bool = Field(default=False, description="Weights in channels-last layout; often faster on GPUs.")
    compile: bool = Field(
        default=False, description="Compile the training step with torch.compile; the first steps take long."
    )
    accumulation: Count = Field(
        default=1, description="Parts in which a step's images go through the network: saves memory."
    )
    images_per_pass: Count | None = Field(
        default=None,
        description="Images that go through the network at once in one process, at most; `accumulation` then follows "
        "from the number of processes. A file with `batch_size_per_gpu` means that number.",
    )
    checkpoint_groups: NotNegative = Field(
        default=0,
        description="So many groups of the network, from the first, compute their activations again in the backward "
        "pass: less memory, more time. `network_g.use_checkpoint` does it in all.",
    )
    grad_clip: float | None = Field(default=None, gt=0, description="Largest norm of the gradient; null does not clip.")
    nonfinite_limit: Count = Field(
        default=20, description="So many steps in a row with NaN or infinity end the training."
    )


class MultiStepSchedule(Section):
    """``type: MultiStepLR`` (BasicSR's ``MultiStepRestartLR`` is the same)."""

    milestones: list[NotNegative] = Field(description="Steps after which the rate is multiplied by gamma.")
    gamma: float = Field(default=0.1, gt=0, description="The factor.")
    restarts: list[NotNegative] = Field(default=[0], description="Steps at which the rate starts again.")
    restart_weights: list[Positive] = Field(default=[1.0], description="Its factor at each restart.")


class CosineSchedule(Section):
    """``type: CosineAnnealingLR``."""

    T_max: Count | None = Field(
        default=None, description="Steps from the full rate to the lowest; null is `total_iter`."
    )
    eta_min: float = Field(default=0.0, ge=0, description="The lowest rate.")


class CosineRestartSchedule(Section):
    """``type: CosineAnnealingRestartLR``."""

    periods: list[Count] = Field(min_length=1, description="Steps of each cosine.")
    restart_weights: list[Positive] = Field(
        default=[1.0], description="Factor of the rate at the start of each cosine."
    )
    eta_min: float = Field(default=0.0, ge=0, description="The lowest rate.")


class CyclicCosineSchedule(Section):
    """``type: CosineAnnealingRestartCyclicLR``: a lowest rate for each cosine."""

    periods: list[Count] = Field(min_length=1, description="Steps of each cosine.")
    restart_weights: list[Positive] = Field(
        default=[1.0], description="Factor of the rate at the start of each cosine."
    )
    eta_mins: list[Rate] = Field(default=[0.0], description="The lowest rate of each cosine.")


class ConstantSchedule(Section):
    """``type: ConstantLR``: one rate throughout."""


SCHEDULES: dict[str, type[Section]] = {
    "MultiStepLR": MultiStepSchedule,
    "MultiStepRestartLR": MultiStepSchedule,
    "CosineAnnealingLR": CosineSchedule,
    "CosineAnnealingRestartLR": CosineRestartSchedule,
    "CosineAnnealingRestartCyclicLR": CyclicCosineSchedule,
    "ConstantLR": ConstantSchedule,
}


class ValOptions(Section):
    """Validation during training, and testing."""

    val_freq: Count | None = Field(
        default=None, description="Steps between two validations. Required for `datasets.val`."
    )
    save_img: bool = Field(default=False, description="Write the restored images.")
    suffix: str | None = Field(
        default=None, description="End of the names of written images; null is the experiment's name."
    )
    tile: NotNegative = Field(
        default=0, description="Largest side of blended tiles, in pixels of the input; 0: whole images."
    )
    overlap: NotNegative | None = Field(
        default=None,
        description="Pixels of the input that neighbouring tiles share at least; null: 32, or a quarter of a smaller "
        "tile.",
    )
    metrics: dict[str, Part] | None = Field(
        default=None,
        description="A name of your choice for each: `type` (calculate_psnr, calculate_ssim) and its arguments.",
    )


class WandbOptions(Section):
    """Weights & Biases (extra ``[wandb]``), in BasicSR's keys."""

    project: str | None = Field(default=None, description="Project the run belongs to; null is none.")
    resume_id: str | None = Field(default=None, description="Id of a run to go on with, which its log names.")


class LoggerOptions(Section):
    """What is written down while training."""

    print_freq: Count = Field(default=100, description="Steps between two progress lines.")
    save_checkpoint_freq: Count = Field(default=5000, description="Steps between two checkpoints.")
    keep_checkpoints: Count | None = Field(default=None, description="How many of the newest are kept; null keeps all.")
    use_tb_logger: bool = Field(
        default=False, description="Write TensorBoard files to `tb_logger/<name>`, if installed."
    )
    wandb: WandbOptions | None = Field(
        default=None,
        description="Draw in Weights & Biases, if installed: `project`, and `resume_id` of a run to go on with.",
    )


class Options(Section):
    """The top level."""

    name: str = Field(description="Name of the experiment: a plain folder name.")
    model_type: str = Field(description="What one training step is: RestorationModel, or its published names.")
    scale: Count = Field(description="Enlargement; 1 for denoising and the like.")
    num_gpu: NotNegative | Literal["auto"] = Field(
        default="auto", description="0 trains on the CPU; auto takes what is there."
    )
    manual_seed: NotNegative | None = Field(
        default=None, description="Seed of all randomness; null draws one and logs it."
    )
    datasets: dict[str, Part] = Field(description="`train`, `val`, `val_2` ... or `test_1`, `test_2` ...: see below.")
    network_g: Part | None = Field(
        default=None,
        description="The network: `type` and the arguments of its class. Testing without it takes the network that "
        "belongs to the weights.",
    )
    network_d: Part | None = Field(
        default=None,
        description="The discriminator of adversarial training (SRGANModel, ESRGANModel and their like): `type` "
        "(UNetDiscriminatorSN, VGGStyleDiscriminator) and the arguments of its class.",
    )
    network_g_teacher: Part | None = Field(
        default=None,
        description="The teacher's network, written as `network_g`; null recognises it by its weights.",
    )
    path: PathOptions = Field(default_factory=PathOptions, description="See below.")
    train: TrainOptions | None = Field(default=None, description="See below. Training only, and required there.")
    val: ValOptions = Field(default_factory=ValOptions, description="See below.")
    logger: LoggerOptions = Field(default_factory=LoggerOptions, description="See below.")
