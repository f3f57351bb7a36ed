from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mambair.inference.tiling import Span, tile_count, tile_spans, tiled_forward, tiled_strips


def replicate(scale: int):
    """A network that repeats each pixel: whatever the tiles, the output is known exactly."""

    def net(image: Tensor) -> Tensor:
        return image.repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)

    return net


SIZES = [(1, 1), (1, 200), (65, 1), (63, 64), (64, 64), (65, 64), (127, 300), (251, 129)]


@pytest.mark.parametrize("scale", [1, 3, 4])
@pytest.mark.parametrize("height, width", SIZES)
def test_a_constant_comes_out_exactly(height: int, width: int, scale: int) -> None:
    image = torch.full((1, 3, height, width), 77 / 255)
    output = tiled_forward(replicate(scale), image, scale=scale, tile=64, overlap=16)
    assert output.shape == (1, 3, height * scale, width * scale)
    assert torch.equal(output, replicate(scale)(image))


@pytest.mark.parametrize("overlap", [0, 1, 7, 16, 32])
@pytest.mark.parametrize("height, width", SIZES)
def test_a_ramp_comes_out_exactly(height: int, width: int, overlap: int) -> None:
    ramp = torch.linspace(0, 1, height * width).reshape(1, 1, height, width)
    output = tiled_forward(replicate(2), ramp, scale=2, tile=64, overlap=overlap)
    # blended as old + weight * (new - old), tiles that agree give what they agree on, to the last bit
    assert torch.equal(output, replicate(2)(ramp))


def test_noise_through_a_local_network_is_exact_in_half_precision_too() -> None:
    image = torch.rand(2, 3, 90, 130, generator=torch.Generator().manual_seed(0)).bfloat16()
    output = tiled_forward(replicate(2), image, scale=2, tile=32, overlap=8)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, replicate(2)(image))


def test_the_input_is_never_written_to() -> None:
    image = torch.rand(1, 3, 200, 40)
    before = image.clone()
    marks = itertools.count()
    # a network that gives back views of its input, moved differently per tile, so that blending has work to do
    tiled_forward(lambda tile: tile if next(marks) % 2 else tile.clone() + 1, image, scale=1, tile=64, overlap=16)
    assert torch.equal(image, before)


@pytest.mark.parametrize("height, width", [(64, 64), (5, 64), (64, 1)])
def test_an_image_that_fits_is_one_call_on_the_whole(height: int, width: int) -> None:
    image, seen = torch.rand(1, 3, height, width), []
    tiled_forward(lambda tile: (seen.append(tile), tile)[1], image, scale=1, tile=64, overlap=16)
    assert len(seen) == 1
    assert seen[0] is image or torch.equal(seen[0], image)


def test_tile_zero_is_the_whole_image() -> None:
    image, seen = torch.rand(1, 1, 90, 500), []
    tiled_forward(lambda tile: (seen.append(tile.shape), tile)[1], image, scale=1, tile=0, overlap=32)
    assert seen == [image.shape]


@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize("overlap", [0, 3, 24, 32])
@pytest.mark.parametrize("length", [*range(1, 200, 7), 65, 1000, 4097])
def test_spans_are_equal_cover_everything_and_overlap_enough(length: int, overlap: int, multiple: int) -> None:
    spans = tile_spans(length, tile=70, overlap=overlap, multiple=multiple)
    sizes = {span.stop - span.start for span in spans}
    assert spans[0].start == 0 and spans[-1].stop == length and len(sizes) == 1
    size = sizes.pop()
    assert size <= 70
    if len(spans) == 1:
        assert length <= 70
    else:
        assert size % multiple == 0
        for left, right in itertools.pairwise(spans):
            assert right.start > left.start
            assert left.stop - right.start >= overlap


def test_all_tiles_have_one_size_and_are_batched_across_rows() -> None:
    shapes: list[tuple[int, ...]] = []

    def net(tile: Tensor) -> Tensor:
        shapes.append(tuple(tile.shape))
        return tile

    image = torch.rand(1, 3, 100, 230)
    batched = tiled_forward(net, image, scale=1, tile=64, overlap=16, batch=3)
    assert torch.equal(batched, image)
    assert {shape[1:] for shape in shapes} == {(3, 58, 59)}
    assert [shape[0] for shape in shapes] == [3, 3, 3, 1]
    assert sum(shape[0] for shape in shapes) == tile_count(100, 230, tile=64, overlap=16)


def test_a_batch_of_images_keeps_its_order_when_tiles_are_batched() -> None:
    image = torch.rand(3, 2, 50, 150)
    assert torch.equal(tiled_forward(replicate(2), image, scale=2, tile=48, overlap=8, batch=2), replicate(2)(image))


def test_the_seam_between_disagreeing_tiles_is_smooth_and_monotone() -> None:
    values = iter([0.0, 1.0])
    output = tiled_forward(
        lambda tile: torch.full_like(tile, next(values)), torch.zeros(1, 1, 1, 112), scale=1, tile=64, overlap=16
    )
    profile = output[0, 0, 0]
    steps = profile.diff()
    assert profile[0] == 0 and profile[-1] == 1
    assert (steps >= 0).all()
    # a raised cosine over 16 pixels rises by at most pi / 2 / 16 per pixel
    assert steps.max() < 0.1
    # the mean of the blend is the middle: both tiles count the same
    assert profile[48:64].mean() == pytest.approx(0.5, abs=1e-6)


def test_three_tiles_over_one_pixel_are_still_a_mean() -> None:
    spans = tile_spans(75, tile=32, overlap=16)
    assert any(third.start < first.stop for first, third in zip(spans, spans[2:], strict=False)), spans
    image = torch.rand(1, 1, 75, 75)
    assert torch.equal(tiled_forward(replicate(1), image, scale=1, tile=32, overlap=16), image)


def faded(line: list[Tensor], spans: list[Span], axis: int) -> Tensor:
    """The definition: along one axis each tile is faded in over what is there, along a raised cosine."""
    whole = line[0]
    for previous, span, tile in zip(spans[:-1], spans[1:], line[1:], strict=True):
        covered = previous.stop - span.start
        weight = 0.5 - 0.5 * torch.cos((torch.arange(covered, dtype=torch.float64) + 0.5) * torch.pi / covered)
        weight = weight if axis == -1 else weight[:, None]
        old, new = whole.narrow(axis, span.start, covered), tile.narrow(axis, 0, covered)
        rest = tile.narrow(axis, covered, tile.shape[axis] - covered)
        whole = torch.cat([whole.narrow(axis, 0, span.start), old + weight * (new - old), rest], dim=axis)
    return whole


@pytest.mark.parametrize("size, tile, overlap", [((100, 130), 48, 24), ((65, 129), 64, 16), ((90, 40), 48, 23)])
def test_tiles_that_disagree_are_blended_as_defined(size: tuple[int, int], tile: int, overlap: int) -> None:
    image = torch.rand(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def net(x: Tensor) -> Tensor:  # tells where in its tile a pixel lies
        return x + torch.arange(x.shape[-1]) + 100.0 * torch.arange(x.shape[-2])[:, None]

    rows, columns = (tile_spans(side, tile=tile, overlap=overlap) for side in size)
    lines = [
        faded([net(image[..., row.start : row.stop, c.start : c.stop]) for c in columns], columns, -1) for row in rows
    ]
    found = tiled_forward(net, image, scale=1, tile=tile, overlap=overlap, batch=2)
    torch.testing.assert_close(found, faded(lines, rows, -2), rtol=1e-12, atol=1e-12)


def test_strips_come_in_order_as_soon_as_they_are_finished() -> None:
    calls: list[int] = []

    def net(tile: Tensor) -> Tensor:
        calls.append(tile.shape[-1])
        return replicate(2)(tile)

    image = torch.rand(1, 3, 300, 90)
    strips = tiled_strips(net, image, scale=2, tile=64, overlap=16)
    first = next(strips)
    assert len(calls) == 2, "the first strip needs the first row of tiles only"
    rest = list(strips)
    assert max(strip.shape[-2] for strip in [first, *rest]) <= 2 * 64
    assert torch.equal(torch.cat([first, *rest], dim=-2), replicate(2)(image))


def test_memory_does_not_grow_with_the_height() -> None:
    alive = 0
    for strip in tiled_strips(replicate(2), torch.zeros(1, 1, 20_000, 16), scale=2, tile=32, overlap=8):
        storage = strip.untyped_storage().nbytes()
        alive = max(alive, storage)
    assert alive <= 4 * (2 * 32) * (2 * 16)


def test_repeated_runs_are_identical() -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv2d(3, 3, 5, padding=2)
    image = torch.rand(1, 3, 100, 100)
    with torch.no_grad():
        first, second = (tiled_forward(net, image, scale=1, tile=40, overlap=8) for _ in range(2))
        whole = net(image)
    assert torch.equal(first, second)
    # zero padding at tile edges is the only difference, and the fade hides most of it
    assert (first - whole).abs().max() < 0.2 * whole.abs().max()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tile": -1, "overlap": 0}, "tile: must be a number of pixels, or 0 for the whole image, got -1"),
        ({"tile": 64, "overlap": -1}, "overlap: must be 0 or more pixels, got -1"),
        ({"tile": 64, "overlap": 33}, "overlap: must be at most half of the tile of 64 pixels, got 33"),
        ({"tile": 15, "overlap": 0, "multiple": 16}, "windows of 16 pixels, got a tile of 15"),
        ({"tile": 64, "overlap": 0, "multiple": 0}, "multiple: must be at least 1, got 0"),
        ({"tile": 64, "overlap": 0, "batch": 0}, "batch=0"),
        ({"tile": 64, "overlap": 0, "scale": 0}, "scale=0"),
    ],
    ids=["tile", "negative-overlap", "large-overlap", "window", "multiple", "batch", "scale"],
)
def test_wrong_settings_say_the_rule_and_what_was_found(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiled_strips(replicate(1), torch.zeros(1, 1, 4, 4), **{"scale": 1, **settings})


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 0, 4)], ids=["three-axes", "empty"])
def test_wrong_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image: must be a non-empty"):
        tiled_forward(replicate(1), torch.zeros(shape), scale=1, tile=8, overlap=0)


def test_a_network_of_another_scale_is_named() -> None:
    with pytest.raises(ValueError, match=r"scale 4 the output must be \[1, C, 32, 32\], got \[1, 3, 16, 16\]"):
        tiled_forward(replicate(2), torch.zeros(1, 3, 8, 8), scale=4, tile=64, overlap=8)
