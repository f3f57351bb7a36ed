"""Write docs/options.md and options/schema.json, all keys of an option file, from the schema that checks them."""

from __future__ import annotations

import argparse
import json
import sys
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENT = REPOSITORY / "docs" / "options.md"
SCHEMA = REPOSITORY / "options" / "schema.json"

PUBLISHED_KEYS = """\
Published option files pass these keys, which have no effect here. They are dropped with one warning, unless the class
at hand knows them; any other unknown key is an error. On a folder of clean images (`dataroot_lq` like `dataroot_gt`),
`task: denoising_color` with `noise` is run as `GaussianDenoisingDataset`; `denoising_gray` and `CAR` read grey images.

"""

INTRODUCTION = """\
# Option files

<!-- Made by scripts/generate_options_docs.py from the schema that checks option files; edit that, not this. -->

An option file says what to train (`python mambair/train.py -opt FILE`) or test (`python mambair/test.py -opt FILE`),
in the vocabulary of BasicSR. [options/train_SR_x4.yml](../options/train_SR_x4.yml) is one with every line explained.

**It is checked before anything starts.** Every unknown key, wrong type, missing folder, unpaired image and value that
does not fit another is listed at once, with file, line and what would be right; the exit code is 2. Nothing is
swallowed: `network_g`, losses, metrics and optimisers are checked against the real signatures of their classes.
Before a training makes its folder, everything is built and one step is tried; what fails there is reported alike.

**YAML.** Version 1.2: `1e-4` is a number; only `true` and `false` are flags (`yes`, `on` are text). A key may stand
only once. Tags that make Python objects are refused.

**Paths** to data and weights are relative to the current directory or, if nothing is there, to the repository (the
folder that holds the package `mambair`); `~` is the home folder. Results are written below the current directory:
`experiments/<name>`, `results/<name>`, `tb_logger/<name>`.

**One batch size.** `datasets.train.total_batch_size` is the number of images in one optimiser step, however many
processes share it. BasicSR's `batch_size_per_gpu` means that times the file's `num_gpu` (times the number of processes
with `auto`) times `train.accumulation`; the log states the total.

**Editors** with a YAML language server (VS Code with the YAML extension, Neovim, Emacs ...) complete keys, show what
they mean and underline errors: the first line of a file names [options/schema.json](../options/schema.json), which is
made from the same source as this page. In files of your own, write `# yaml-language-server: $schema=` and its path.

**Variants.** `base: other.yml` names an option file, relative to the one it stands in, whose keys hold where this file
does not state them (`options/train/train_MambaIR_SR_x3.yml` is one). Mappings are merged key by key; a mapping with
another `type` (a network, a loss, a schedule) replaces the one of the base, and so does any other value, lists too.
`key: ~` removes the key of the base, so that its default holds. A base may have a base, up to five files. Errors name
the file where the key stands; paths to data mean the same in either; an experiment keeps the merged file.

**From the command line**, single values are replaced by `--force_yml`, parsed and checked like the file:
`--force_yml train:total_iter=20 datasets:train:gt_size=64 train:optim_g:betas=[0.9,0.999]`.
"""


def main() -> int:
    """Write the files, or with ``--check`` say whether they are current (exit code 1 if not)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    arguments = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    from mambair.options.json_schema import option_file_schema

    schema = json.dumps(option_file_schema(), indent=1, ensure_ascii=False) + "\n"
    outdated = []
    for target, text in ((DOCUMENT, document()), (SCHEMA, schema)):
        if not arguments.check:
            target.write_text(text, encoding="utf-8", newline="\n")
        elif not target.is_file() or target.read_text(encoding="utf-8") != text:
            outdated.append(target)
            print(f"{target} is not current; run python scripts/generate_options_docs.py", file=sys.stderr)
    return 1 if outdated else 0


def document() -> str:
    """The text of docs/options.md."""
    from mambair.options import compat, schema
    from mambair.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

    parts = [INTRODUCTION, "\n## Top level\n\n", table(schema.Options)]
    parts += [
        "\n## `datasets.<phase>`\n\n",
        "For every data set, whatever its `type`:\n\n",
        table(schema.LoaderOptions),
    ]
    for name, dataset in DATASET_REGISTRY:
        summary = (dataset.__doc__ or "").strip().partition("\n\n")[0].replace("\n   ", "").replace("``", "`")
        parts += [
            f"\n### `type: {name}`\n\n",
            f"{summary}\n\n",
            table(dataset.Options, without=("type", "phase", "scale")),
        ]
    parts += ["\n## `network_g`\n\n", called("type", ARCH_REGISTRY)]
    parts += ["The other keys are the arguments of the class; its docstring explains them.\n"]
    parts += ["\n## `path`\n\n", table(schema.PathOptions), "\n## `train`\n\n", table(schema.TrainOptions)]
    parts += ["\n### `train.pixel_opt`\n\n", called("type", LOSS_REGISTRY)]
    parts += ["The other keys are the arguments of the class.\n"]
    for model in dict.fromkeys(schema.SCHEDULES.values()):
        names = " or ".join(f"`type: {name}`" for name, known in schema.SCHEDULES.items() if known is model)
        parts += [f"\n### `train.scheduler`, {names}\n\n", table(model)]
    parts += [
        "\n## `val`\n\n",
        table(schema.ValOptions),
        "\n### `val.metrics.<name>`\n\n",
        called("type", METRIC_REGISTRY),
    ]
    parts += ["The other keys are the arguments of the function, and `better`: `higher` (default) or `lower`.\n"]
    parts += [
        "\n## `logger`\n\n",
        table(schema.LoggerOptions),
        "\n## Keys of published files\n\n",
        PUBLISHED_KEYS,
        ignored(compat.IGNORED),
    ]
    return "".join(parts)


def table(model: type[BaseModel], without: Iterable[str] = ()) -> str:
    """The keys of a section as a Markdown table."""
    rows = ["| key | type | default | meaning |\n", "|---|---|---|---|\n"]
    for key, field in model.model_fields.items():
        if key not in without:
            default = "required" if field.is_required() else in_yaml(field.get_default(call_default_factory=True))
            rows.append(f"| `{key}` | {kind(field.annotation)} | {default} | {field.description} |\n")
    return "".join(rows) if len(rows) > 2 else "No further keys.\n"


def kind(annotation: Any) -> str:
    """A type in the words of the messages."""
    from pydantic import BaseModel

    from mambair.options.signatures import in_words

    choices = typing.get_args(annotation) or (annotation,)
    classes = [choice for choice in choices if typing.get_origin(choice) is None and isinstance(choice, type)]
    if any(issubclass(choice, BaseModel) for choice in classes):
        return "section"
    return in_words(annotation).removeprefix("a ").replace(" or a ", " or ").replace(" or null", "")


def in_yaml(value: Any) -> str:
    """A default as it would stand in an option file."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return "see below" if type(value).__module__.endswith("schema") else f"`{value.model_dump()}`".replace("'", "")
    if isinstance(value, bool) or value is None:
        return f"`{str(value).lower()}`".replace("none", "null")
    return f"`{value}`" if value != "" else "`''`"


def called(key: str, registry: Any) -> str:
    """Which names a registry knows."""
    names = ", ".join(f"`{name}`" for name in registry.keys())  # noqa: SIM118 - a Registry iterates over pairs
    return f"`{key}`: {names}; with basicsr installed also its own (`basicsr/NAME` where both have one).\n"


def ignored(keys: dict[str, frozenset[str]]) -> str:
    """The table of keys that are dropped with a warning."""
    rows = ["| section | keys |\n", "|---|---|\n"]
    for section, names in keys.items():
        rows.append(f"| {section or 'top level'} | {', '.join(f'`{name}`' for name in sorted(names))} |\n")
    return "".join(rows)


if __name__ == "__main__":
    sys.exit(main())
