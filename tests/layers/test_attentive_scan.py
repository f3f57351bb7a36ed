from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mambair.layers.attentive_scan import AttentiveStateSpace, _sort_stably, gumbel_noise, placed_noise


def build(case) -> tuple[AttentiveStateSpace, torch.Tensor, torch.Tensor]:
    kwargs = {name: value for name, value in case.kwargs.items() if name != "input_resolution"}
    layer = AttentiveStateSpace(**kwargs).eval()
    layer.load_state_dict(case.weights)
    x = case.arrays["input"].unflatten(1, tuple(case.facts["x_size"]))
    return layer, x, case.arrays["token_weight"]


@pytest.mark.parametrize(("noise", "output"), [("gumbel_0", "output"), (None, "output_nonoise")])
def test_published_output(noise, output, module_case):
    case = module_case("mambairv2_assm")
    layer, x, basis = build(case)
    y = layer(x, basis, None if noise is None else case.arrays[noise])
    torch.testing.assert_close(y.flatten(1, 2), case.arrays[output], atol=1e-5, rtol=0)


def test_samples_of_a_batch_do_not_mix(module_case):
    case = module_case("mambairv2_assm")
    layer, x, basis = build(case)
    noise = case.arrays["gumbel_0"]
    both = layer(x, basis, noise)
    for i in range(2):
        torch.testing.assert_close(layer(x[i : i + 1], basis, noise[i : i + 1]), both[i : i + 1], atol=1e-6, rtol=0)


def test_noise_is_what_torch_draws(module_case):
    case = module_case("mambairv2_assm")
    shape = case.arrays["gumbel_0"].shape
    generator = torch.Generator().manual_seed(case.facts["gumbel_seed"])
    noise = gumbel_noise(shape, torch.device("cpu"), generator)
    torch.testing.assert_close(noise, case.arrays["gumbel_0"], atol=1e-5, rtol=1e-5)
    torch.manual_seed(5)
    expected = -torch.empty(shape).exponential_().log()
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(gumbel_noise(shape, torch.device("cpu")), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.rand(3), after)


def official_choice(scores: torch.Tensor, noise: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The one-hot product of the published network, with given noise, and its permutation by a loop."""
    soft = (scores.log_softmax(-1) + noise).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    prompt = (hard - soft.detach() + soft) @ table
    order = torch.sort(soft.argmax(-1), stable=True).indices
    at_pixel = torch.zeros_like(prompt)
    for t in range(order.shape[1]):
        for b in range(order.shape[0]):
            at_pixel[b, order[b, t]] = prompt[b, t]
    return at_pixel


def test_choice_and_its_gradients_equal_the_straight_through_product():
    torch.manual_seed(0)
    layer = AttentiveStateSpace(6, 3, num_tokens=5, inner_rank=4)
    basis = torch.randn(4, 3, requires_grad=True)
    scores, noise = torch.randn(2, 12, 5, requires_grad=True), gumbel_noise((2, 12, 5), torch.device("cpu"))
    weight = torch.randn(2, 12, 3)
    prompt, index = layer._choose(scores + noise, basis)
    inputs = (scores, basis, layer.embeddingB.weight)
    ours = torch.autograd.grad((prompt * weight).sum(), inputs)
    expected = official_choice(scores, noise, layer.embeddingB.weight @ basis)
    theirs = torch.autograd.grad((expected * weight).sum(), inputs)
    torch.testing.assert_close(prompt, expected, atol=1e-6, rtol=0)
    assert torch.equal(index, torch.sort((scores + noise).argmax(-1), stable=True).indices)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("batch", "length", "classes"), [(1, 1, 1), (3, 50, 4), (600, 7, 64)], ids=str)
def test_sort_keeps_raster_order_within_a_class(batch, length, classes):
    choice = torch.randint(classes, (batch, length), generator=torch.Generator().manual_seed(0))
    order, place = _sort_stably(choice, classes)
    expected = torch.sort(choice, stable=True).indices + length * torch.arange(batch)[:, None]
    assert torch.equal(order.view(batch, length), expected)
    assert torch.equal(place[order], torch.arange(batch * length))


def test_training_reaches_every_parameter():
    torch.manual_seed(0)
    layer = AttentiveStateSpace(8, 4, num_tokens=6, inner_rank=5)
    basis = torch.nn.Parameter(torch.randn(5, 4))
    noise = gumbel_noise((2, 20, 6), torch.device("cpu"))
    F.mse_loss(layer(torch.randn(2, 4, 5, 8), basis, noise), torch.randn(2, 4, 5, 8)).backward()
    for name, parameter in [*layer.named_parameters(), ("basis", basis)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def placed(sides, *, batch=1, classes=16, seed=0, layer=0, origin=None):
    origin = None if origin is None else torch.tensor(origin)
    cpu = torch.device("cpu")
    noise = placed_noise(batch, sides, classes, seed=seed, layer=layer, origin=origin, device=cpu)
    return noise.view(batch, *sides, classes)


def test_placed_noise_is_the_same_in_every_tile_and_batch():
    whole = placed((40, 30))
    tiles = placed((10, 12), batch=2, origin=[[30, 18], [5, 7]])
    assert torch.equal(tiles[0], whole[0, 30:, 18:])
    assert torch.equal(tiles[1], whole[0, 5:15, 7:19])


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": -1}, {"seed": 2**32}, {"layer": 1}, {"origin": [[0, 64]]}])
def test_placed_noise_of_another_seed_layer_or_place_is_independent(other):
    pair = torch.stack([placed((64, 64)).flatten(), placed((64, 64), **other).flatten()])
    assert pair.corrcoef()[0, 1].abs() < 0.02  # five deviations of the correlation of 65536 independent pairs


def test_placed_noise_has_the_gumbel_distribution_in_every_direction():
    noise = placed((128, 128))
    uniform = torch.exp(-torch.exp(-noise.double()))
    expected = torch.arange(1, noise.numel() + 1) / noise.numel()
    assert (uniform.flatten().sort().values - expected).abs().max() < 0.005  # Kolmogorov: 0.0038 at one in a thousand
    for axis in (1, 2, 3):
        pair = torch.stack([uniform.narrow(axis, 0, 15).flatten(), uniform.narrow(axis, 1, 15).flatten()])
        assert pair.corrcoef()[0, 1].abs() < 0.03  # five deviations of the correlation of 30720 independent pairs
    counts = noise.argmax(-1).flatten().bincount(minlength=16)
    assert ((counts - 1024).abs() < 160).all()  # five deviations of the count of each class
