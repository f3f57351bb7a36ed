"""The four operators of ``ops/operators.py`` by these kernels; contracts there and in the public functions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from mambair.ops import torch_private
from mambair.ops.operators import STATE_CHUNK
from mambair.ops.triton_kernels import launch
from mambair.ops.triton_kernels.launch import Inputs, Sizes

Optional = Tensor | None


def _on(t: Tensor) -> AbstractContextManager[object]:
    """Launches go to the device of the tensor, not to the current one."""
    return torch.cuda.device(t.device) if t.is_cuda else nullcontext()


def _image(t: Tensor) -> tuple[int, int, int, int]:
    """Strides of image, row, column and sequence of [B, H, W, D], the same for every direction."""
    return (*t.stride()[:3], 0)  # type: ignore[return-value]


def _of_directions(t: Tensor) -> tuple[int, int, int, int]:
    """The same of [B, H, W, K, P]."""
    return t.stride()[:4]  # type: ignore[return-value]


def _sequence(t: Tensor, channels: int) -> tuple[int, int, int, int]:
    """The same of [B, L, K * channels]: an image of one row."""
    return (t.stride(0), 0, t.stride(1), channels)


def _of_groups(t: Tensor) -> tuple[int, int, int, int]:
    """The same of [B, L, K, N]."""
    return (t.stride(0), 0, t.stride(1), t.stride(2))


def _image_inputs(
    x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, directions: Sequence[int]
) -> Inputs:
    if len(directions) > launch.MOST_DIRECTIONS:
        raise ValueError(
            f"directions: on a GPU at most {launch.MOST_DIRECTIONS} at once; found {len(directions)}. "
            "Add the results of several scans"
        )
    batch, height, width, channels = x.shape
    count, _, state_size = A.shape
    sizes = Sizes(batch, count, height, width, channels, state_size, dt_weight.shape[2], tuple(directions))
    x, projection = launch.dense_rows(x), launch.dense_rows(projection)
    packed = launch.pack(sizes, [(projection, _of_directions(projection))], None)
    weight = dt_weight.float().transpose(1, 2).contiguous()
    return Inputs(sizes, x, _image(x), packed, launch.by_rate(A), weight, dt_bias.float().contiguous(),
                  D.float().contiguous())  # fmt: skip


def _places(sizes: Sizes, count: int) -> tuple[int, int, int]:
    """Strides of image, pixel and sequence of a dense [B, count, H, W, D]."""
    pixels = sizes.length * sizes.channels
    return count * pixels, sizes.channels, pixels if count > 1 else 0


def _image_states(sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Shape and strides (image, sequence, chunk, state) of the saved states [B, K, chunks, N, D]."""
    chunks = -(-sizes.length // STATE_CHUNK)
    one = sizes.state_size * sizes.channels
    shape = (sizes.batch, sizes.count, chunks, sizes.state_size, sizes.channels)
    return shape, (sizes.count * chunks * one, chunks * one, one, sizes.channels)


def ss2d_scan(
    x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor,
    directions: Sequence[int], save_states: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    y, states = x.new_empty(x.shape), x.new_empty((0,), dtype=torch.float32)
    with _on(x):
        if x.numel() == 0:
            return y, states.new_zeros(_empty_states(x, A, len(directions))) if save_states else states
        inputs = _image_inputs(x, projection, dt_weight, dt_bias, A, D, directions)
        sizes = inputs.sizes
        shape, strides = _image_states(sizes)
        states = states.new_empty(shape) if save_states else states
        together = sizes.count == 1
        parts = y if together else x.new_empty((sizes.batch, sizes.count, *x.shape[1:]), dtype=torch.float32)
        slots = sizes.slots(x)
        launch.scan(inputs, slots, parts, _places(sizes, sizes.count), states if save_states else None, strides)
        if not together:
            launch.add_directions(parts, y)
    return y, states


def _empty_states(x: Tensor, A: Tensor, count: int) -> tuple[int, ...]:
    length = x.shape[1:-1].numel()
    return (x.shape[0], count, -(-length // STATE_CHUNK), A.shape[2], x.shape[-1])


def ss2d_scan_backward(
    grad_y: Tensor, x: Tensor, projection: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor,
    states: Tensor, directions: Sequence[int],
) -> tuple[Tensor, ...]:  # fmt: skip
    tensors = (x, projection, dt_weight, dt_bias, A, D)
    if x.numel() == 0:
        return tuple(t.new_zeros(t.shape) for t in tensors)
    with _on(x):
        inputs = _image_inputs(*tensors, directions)
        sizes = inputs.sizes
        grad_x = x.new_empty(x.shape)
        together = sizes.count == 1
        parts = grad_x if together else x.new_empty((sizes.batch, sizes.count, *x.shape[1:]), dtype=torch.float32)
        grads = launch.new_gradients(inputs, parts, _places(sizes, sizes.count))
        grad_y, states = launch.dense_rows(grad_y), states.contiguous()
        launch.scan_backward(inputs, grad_y, _image(grad_y), states, _image_states(sizes)[1], sizes.slots(x), grads)
        if not together:
            launch.add_directions(parts, grad_x)
        grad_projection = projection.new_empty(projection.shape)
        launch.unpack(sizes, grads.packed, [(grad_projection, _of_directions(grad_projection))], None)
        sums = (grads.weight(sizes), grads.bias(), grads.rates(sizes), grads.skip())
    return (grad_x, grad_projection, *(g.to(t.dtype) for g, t in zip(sums, tensors[2:], strict=True)))


def _sequence_inputs(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, z: Optional, delta_bias: Optional,
    index: Optional, delta_softplus: bool,
) -> Inputs:  # fmt: skip
    batch, length, channels = u.shape
    count, state_size = B.shape[2], A.shape[1]
    each = channels // count
    sizes = Sizes(batch, count, 1, length, each, state_size, 0, (0,))
    u, delta, B, C = (launch.dense_rows(t) for t in (u, delta, B, C))
    z = None if z is None else launch.dense_rows(z)
    if index is not None:
        low, high = torch.aminmax(index)
        message = "index must hold every number from 0 to L - 1 once"
        torch_private.assert_on_device((low >= 0) & (high < length), message)
        index = index.contiguous()
    packed = launch.pack(sizes, [(B, _of_groups(B)), (C, _of_groups(C))], index)
    bias, skip = (None if t is None else t.float().contiguous() for t in (delta_bias, D))
    return Inputs(sizes, u, _sequence(u, each), packed, launch.by_rate(A.unflatten(0, (count, each))), None, bias,
                  skip, delta, z, index, delta_softplus)  # fmt: skip


def _sequence_states(sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Shape and strides (sample, group, chunk, state) of the saved states [B, chunks, N, all channels]."""
    chunks, channels = -(-sizes.length // STATE_CHUNK), sizes.count * sizes.channels
    one = sizes.state_size * channels
    return (sizes.batch, chunks, sizes.state_size, channels), (chunks * one, sizes.channels, one, channels)


def _in_place(sizes: Sizes) -> tuple[int, int, int]:
    """Strides of sample, token and group of a dense [B, L, all channels]."""
    channels = sizes.count * sizes.channels
    return sizes.length * channels, channels, sizes.channels


def _by_slot(state: Tensor, sizes: Sizes) -> Tensor:
    """State [B, all channels, N] -> [B, K, N, D] as in a slot."""
    return state.unflatten(1, (sizes.count, sizes.channels)).transpose(2, 3)


def _from_slot(slot: Tensor) -> Tensor:
    """The opposite, as a copy."""
    return slot.transpose(2, 3).flatten(1, 2).contiguous()


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional, z: Optional, delta_bias: Optional,
    initial_state: Optional, index: Optional, delta_softplus: bool, save_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, length, channels = u.shape
    states = u.new_empty((0,), dtype=torch.float32)
    if u.numel() == 0:
        last = states.new_zeros((batch, channels, A.shape[1])) if initial_state is None else initial_state.float()
        chunks = -(-length // STATE_CHUNK)
        shape = (batch, chunks, A.shape[1], channels) if save_states else (0,)
        return u.new_empty(u.shape), last.clone(), states.new_zeros(shape)
    with _on(u):
        inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, index, delta_softplus)
        sizes = inputs.sizes
        shape, strides = _sequence_states(sizes)
        states = states.new_empty(shape) if save_states else states
        y, slots = u.new_empty(u.shape), sizes.slots(u)
        if initial_state is not None:
            slots[:, :, 0].copy_(_by_slot(initial_state, sizes))
        launch.scan(inputs, slots, y, _in_place(sizes), states if save_states else None, strides)
        return y, _from_slot(slots[:, :, -1]), states


def selective_scan_backward(
    grad_y: Tensor, grad_last_state: Optional, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Optional,
    z: Optional, delta_bias: Optional, initial_state: Optional, index: Optional, states: Tensor, delta_softplus: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if u.numel() == 0:
        return _empty_gradients(tensors, grad_last_state)
    with _on(u):
        inputs = _sequence_inputs(u, delta, A, B, C, D, z, delta_bias, index, delta_softplus)
        sizes, slots = inputs.sizes, inputs.sizes.slots(u)
        if grad_last_state is not None:
            slots[:, :, -1].copy_(_by_slot(grad_last_state, sizes))
        grad_u, grad_delta, grad_B, grad_C = (t.new_empty(t.shape) for t in (u, delta, B, C))
        grad_z = None if z is None else z.new_empty(z.shape)
        grads = launch.new_gradients(inputs, grad_u, _in_place(sizes), grad_delta, grad_z)
        grad_y, states = launch.dense_rows(grad_y), states.contiguous()
        launch.scan_backward(inputs, grad_y, _sequence(grad_y, sizes.channels), states, _sequence_states(sizes)[1],
                             slots, grads)  # fmt: skip
        launch.unpack(sizes, grads.packed, [(grad_B, _of_groups(grad_B)), (grad_C, _of_groups(grad_C))], index)
        none = u.new_empty((0,))
        return (
            grad_u, grad_delta, grads.rates(sizes).flatten(0, 1).to(A.dtype), grad_B, grad_C,
            none if D is None else grads.skip().flatten().to(D.dtype),
            none.clone() if grad_z is None else grad_z,
            none.clone() if delta_bias is None else grads.bias().flatten().to(delta_bias.dtype),
            none.clone() if initial_state is None else _from_slot(slots[:, :, 0]).to(initial_state.dtype),
        )  # fmt: skip


def _empty_gradients(tensors: Sequence[Optional], grad_last_state: Optional) -> tuple[Tensor, ...]:
    """No tokens: the last state is the first one, and nothing else has an effect."""
    first = tensors[0]
    assert first is not None
    grads = [first.new_empty((0,)) if t is None else t.new_zeros(t.shape) for t in tensors]
    if grad_last_state is not None and tensors[8] is not None:
        grads[8] = grad_last_state.to(tensors[8].dtype).clone()
    return tuple(grads)
