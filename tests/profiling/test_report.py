"""The table of a profile: its lines add up, its JSON is complete, and sizes are said as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mambair.profiling.counting import count_parameters
from mambair.profiling.forward_pass import ForwardPass, Settings
from mambair.profiling.report import Profile, as_json, as_text, input_size, profile
from mambair.profiling.target import Target, find_target
from mambair.system.errors import RequestError

SMALL = Target("small", "MambaIR", {"embed_dim": 12, "depths": [2, 1], "upsampler": "pixelshuffledirect", "upscale": 2})
SMALL_V2 = Target("v2", "MambaIRv2", {"embed_dim": 12, "depths": [1], "num_heads": [2]})


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("target", [SMALL, SMALL_V2], ids=["v1", "v2"])
def test_lines_add_up_to_the_whole(target: Target, depth: int) -> None:
    found = profile(target, (64, 32), depth=depth)
    assert sum(row.parameters for row in found.rows) == found.parameters == count_parameters(target.build())
    assert sum(row.macs for row in found.rows) == found.count.total
    assert len({row.module for row in found.rows}) == len(found.rows)


@pytest.mark.parametrize(
    ("size", "upscale", "expected"),
    [((1280, 720), 2, (640, 360)), ((1280, 720), 3, (426, 240)), ((1280, 720), 1, (1280, 720)), ((1, 1), 4, (1, 1))],
)
def test_input_of_an_output(size: tuple[int, int], upscale: int, expected: tuple[int, int]) -> None:
    assert input_size(size, upscale) == expected


def test_size_of_the_input_or_of_the_output() -> None:
    by_output, by_input = profile(SMALL, (64, 32)), profile(SMALL, (32, 16), of_output=False)
    assert by_output.input_size == by_input.input_size == (32, 16)
    assert by_output.count.total == by_input.count.total
    assert by_output.output_size == (64, 32)


def test_the_printed_figure_stands_beside_ours_at_its_size_only() -> None:
    target = find_target("mambair-light-X4")
    assert "printed: 84.6 G, ours +0.06%" in as_text(profile(target, (1280, 720)))
    assert "printed" not in as_text(profile(target, (640, 720)))


def with_pass(size: tuple[int, int]) -> Profile:
    found = profile(SMALL, (64, 32))
    settings = Settings((1, 3, size[1], size[0]), repeats=2)
    return Profile(**{**vars(found), "settings": settings, "forward": ForwardPass(0.5, 0.6, 3 << 20, 2, "native")})


def test_a_time_of_another_size_says_so() -> None:
    same, other = as_text(with_pass((32, 16))), as_text(with_pass((8, 8)))
    assert "0.500 s" in same and "3 MiB" in same and "NOT" not in same
    assert "NOT the size of the MACs: input 8x8 -> output 16x16; best of 2" in other


def test_json_holds_everything() -> None:
    content = json.loads(as_json(with_pass((8, 8))))
    assert content["parameters"] == sum(row["parameters"] for row in content["modules"])
    assert content["macs"] == sum(content["macs_by_kind"].values())
    assert content["forward_pass"] == {
        "seconds": 0.5,
        "median": 0.6,
        "peak_bytes": 3 << 20,
        "threads": 2,
        "backend": "native",
        "input_size": [8, 8],
        "dtype": "float32",
        "device": "cpu",
        "repeats": 2,
    }
    assert set(content["definitions"]) == {"macs", "as_published", "peak_memory"}
    assert json.loads(as_json(profile(SMALL, (64, 32))))["forward_pass"] is None


def test_targets(repository: Path) -> None:
    weights = find_target(str(repository / "mambair/weights/mambair_small_x4.safetensors"))
    assert (weights.arch, weights.kwargs["upscale"], weights.published) == ("MambaIR", 4, None)
    options = find_target(str(repository / "options/test/test_MambaIR_lightSR_x2.yml"))
    assert count_parameters(options.build(device="meta")) == 905016
    assert find_target("MambaIR", {"embed_dim": 12}).kwargs == {"embed_dim": 12}
    assert find_target("MambaIRUNet").published == "MambaIRUNet-real-dn"
    assert find_target("MambaIRUNet", {"dim": 8}).published is None
    assert find_target("VSSMUNet").arch == "VSSMUNet"


@pytest.mark.parametrize(
    ("text", "kwargs", "message"),
    [
        ("MambaIR-light-x5", {}, "there is no such file, and no published network is named 'MambaIR-light-x5'"),
        ("nothing.pth", {}, "registered classes: "),
        ("MambaIR-light-x2", {"embed_dim": 2}, "arguments are for a registered class"),
    ],
    ids=["factor", "file", "arguments"],
)
def test_targets_that_mean_nothing(text: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match="(?s)" + message.replace("(", r"\(")):
        find_target(text, kwargs)


def test_arguments_a_class_does_not_take() -> None:
    with pytest.raises(RequestError, match=r"MambaIR\(embed_dims=12\) cannot be built"):
        find_target("MambaIR", {"embed_dims": 12}).build()


def test_an_option_file_without_a_network(tmp_path: Path, repository: Path) -> None:
    path = tmp_path / "options.yml"
    path.write_text("name: x\nscale: 4\nnum_gpu: 0\ndatasets: {}\npath: {pretrain_network_g: x.pth}\n", "utf-8")
    with pytest.raises(ValueError, match=r"network_g|datasets"):
        find_target(str(path))
