"""Triton kernels of fusion: GroupNorm with SiLU in both memory layouts, and GEGLU with the exact gelu; both directions.

Why our own. PyTorch's GroupNorm and SiLU are two operators, and on CUDA before 2.14 the first answers NHWC with NCHW.
liger-kernel (0.8.5) has a GroupNorm without SiLU, for NCHW alone, whose weight gradients add up by atomics, in an order
that changes from run to run; its GEGLU has the tanh form of gelu, where diffusers' GEGLU has erf: another function.
Apex' group_norm serves NHWC alone, and is built from source. Inductor makes such kernels, but only where it compiles.

How. A tensor (samples, channels, pixels) is read by its strides, so that one code serves both layouts; only the tile
differs: long in pixels for NCHW, 64 channels wide for NHWC. Sums over a group come in two stages without atomics:

    moments      each program: some channels, some of the pixels -> per channel its mean and its squared deviations
    statistics   each program: one group of one sample           -> mean and 1/std, by Chan's pairwise formula
    forward      each program: one tile                          -> silu(normalised * weight + bias)

(or, where a group fits the registers of one program, as most do below 32x32 pixels, in one launch),

and backward alike (sums of dz and dz * normalised per channel; per group; then dx), the weights' gradients being sums
of the same per-channel sums. All arithmetic is in fp32, every order of addition is fixed: equal inputs give equal bits.
The backward needs the input, mean and 1/std; the plain pair keeps the norm's output, too. x is read twice and y written
once, the least that statistics over more than a multiprocessor's registers allow.

GEGLU reads both halves of its projection once: value * gate * (1 + erf(gate / sqrt 2)) / 2.

fused_operators.py cuts tensors into tiles and makes operators of the kernels.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# (Triton compiles functions by their text, without types)

import triton
import triton.language as tl


@triton.jit
def group_norm_silu_moments(
    x_ptr, mean_ptr, square_ptr, channels, pixels, step_n, step_c, step_p, chunk,
    block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations of each channel over a chunk of pixels: [sample, chunk, channel]."""
    split, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    has_c, start = c < channels, split * chunk
    end = tl.minimum(start + chunk, pixels)
    base = x_ptr + n * step_n + c.to(tl.int64) * step_c
    # Deviations from the first pixel instead of from 0: no cancellation where the mean is far from 0.
    pivot = tl.load(base + start * step_p, mask=has_c, other=0.0).to(tl.float32)
    total = tl.zeros((block_c, block_p), tl.float32)
    square = tl.zeros((block_c, block_p), tl.float32)
    for first in range(start, end, block_p):
        p = first + tl.arange(0, block_p)
        mask = has_c[:, None] & (p < end)[None, :]
        x = tl.load(base[:, None] + (p.to(tl.int64) * step_p)[None, :], mask=mask, other=0.0).to(tl.float32)
        deviation = tl.where(mask, x - pivot[:, None], 0.0)
        total += deviation
        square += deviation * deviation
    sums, count = tl.sum(total, 1), (end - start).to(tl.float32)
    out = (n * tl.num_programs(1) + split) * channels + c
    tl.store(mean_ptr + out, pivot + sums / count, mask=has_c)
    tl.store(square_ptr + out, tl.sum(square, 1) - sums * sums / count, mask=has_c)


@triton.jit
def group_norm_silu_statistics(
    mean_in_ptr, square_ptr, mean_ptr, rstd_ptr, channels, pixels, chunk, splits, eps,
    per_group: tl.constexpr, block_c: tl.constexpr, block_s: tl.constexpr,
):  # fmt: skip
    """Mean and 1/std of one group of one sample: [sample, group]."""
    row = tl.program_id(0)
    groups = channels // per_group
    n, group = row // groups, row % groups
    c, s = tl.arange(0, block_c), tl.arange(0, block_s)
    mask = (s < splits)[:, None] & (c < per_group)[None, :]
    place = (n * splits + s)[:, None] * channels + group * per_group + c[None, :]
    means = tl.load(mean_in_ptr + place, mask=mask, other=0.0)
    squares = tl.load(square_ptr + place, mask=mask, other=0.0)
    count = tl.where(mask, tl.minimum(chunk, pixels - s * chunk)[:, None].to(tl.float32), 0.0)
    size = per_group * 1.0 * pixels  # no .to(): an argument of 1 is a constant here
    mean = tl.sum(tl.sum(count * means, 1), 0) / size
    away = means - mean
    variance = tl.sum(tl.sum(squares + count * away * away, 1), 0) / size
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def group_norm_silu_forward(
    x_ptr, y_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, channels, pixels, step_n, step_c, step_p, per_group,
    block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    p = tl.program_id(1) * block_p + tl.arange(0, block_p)
    n = tl.program_id(2).to(tl.int64)
    has_c = c < channels
    group = n * (channels // per_group) + c // per_group
    mean = tl.load(mean_ptr + group, mask=has_c, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=has_c, other=0.0)
    weight = tl.load(weight_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    place = n * step_n + (c.to(tl.int64) * step_c)[:, None] + (p.to(tl.int64) * step_p)[None, :]
    mask = has_c[:, None] & (p < pixels)[None, :]
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    z = (x - mean[:, None]) * (rstd * weight)[:, None] + bias[:, None]
    tl.store(y_ptr + place, (z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def group_norm_silu_forward_small(
    x_ptr, y_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, channels, pixels, step_n, step_c, step_p, eps,
    per_group: tl.constexpr, block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    """All of it in one launch, a group of a sample in the registers of one program."""
    row = tl.program_id(0)
    groups = channels // per_group
    group = row % groups
    inside, p = tl.arange(0, block_c), tl.arange(0, block_p)
    c, has_c = group * per_group + inside, inside < per_group
    mask = has_c[:, None] & (p < pixels)[None, :]
    start = (row // groups).to(tl.int64) * step_n
    place = start + (c.to(tl.int64) * step_c)[:, None] + (p.to(tl.int64) * step_p)[None, :]
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    size = per_group * 1.0 * pixels
    mean = tl.sum(tl.sum(x, 1), 0) / size
    away = tl.where(mask, x - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(tl.sum(away * away, 1), 0) / size + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    weight = tl.load(weight_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    z = away * (rstd * weight)[:, None] + bias[:, None]
    tl.store(y_ptr + place, (z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _through_silu(x, dy, mean, rstd, weight, bias):
    """The normalised input, and the gradient before the SiLU."""
    normal = (x - mean[:, None]) * rstd[:, None]
    z = normal * weight[:, None] + bias[:, None]
    gate = tl.sigmoid(z)
    return normal, dy * gate * (1.0 + z * (1.0 - gate))


@triton.jit
def group_norm_silu_backward_sums(
    x_ptr, dy_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, sum_ptr, channels, pixels, step_n, step_c, step_p,
    per_group, chunk, block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    """Sums of dz and of dz * normalised of each channel over a chunk of pixels: [2, sample, chunk, channel]."""
    split, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    has_c, start = c < channels, split * chunk
    end = tl.minimum(start + chunk, pixels)
    group = n * (channels // per_group) + c // per_group
    mean = tl.load(mean_ptr + group, mask=has_c, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=has_c, other=0.0)
    weight = tl.load(weight_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    base = n * step_n + c.to(tl.int64) * step_c
    total = tl.zeros((block_c, block_p), tl.float32)
    product = tl.zeros((block_c, block_p), tl.float32)
    for first in range(start, end, block_p):
        p = first + tl.arange(0, block_p)
        mask = has_c[:, None] & (p < end)[None, :]
        place = base[:, None] + (p.to(tl.int64) * step_p)[None, :]
        x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + place, mask=mask, other=0.0).to(tl.float32)  # 0 beyond the edge, and so is dz
        normal, dz = _through_silu(x, dy, mean, rstd, weight, bias)
        total += dz
        product += dz * normal
    out = (n * tl.num_programs(1) + split) * channels + c
    second = tl.num_programs(2).to(tl.int64) * tl.num_programs(1) * channels
    tl.store(sum_ptr + out, tl.sum(total, 1), mask=has_c)
    tl.store(sum_ptr + second + out, tl.sum(product, 1), mask=has_c)


@triton.jit
def group_norm_silu_backward_statistics(
    sum_ptr, weight_ptr, out_ptr, channels, pixels, splits, second,
    per_group: tl.constexpr, block_c: tl.constexpr, block_s: tl.constexpr,
):  # fmt: skip
    """Means over one group of one sample of weight * dz and weight * dz * normalised: [2, sample, group]."""
    row = tl.program_id(0)
    groups = channels // per_group
    n, group = row // groups, row % groups
    c, s = tl.arange(0, block_c), tl.arange(0, block_s)
    mask = (s < splits)[:, None] & (c < per_group)[None, :]
    place = (n * splits + s)[:, None] * channels + group * per_group + c[None, :]
    weight = tl.load(weight_ptr + group * per_group + c, mask=c < per_group, other=0.0).to(tl.float32)[None, :]
    total = tl.load(sum_ptr + place, mask=mask, other=0.0) * weight
    product = tl.load(sum_ptr + second + place, mask=mask, other=0.0) * weight
    size = per_group * 1.0 * pixels
    tl.store(out_ptr + row, tl.sum(tl.sum(total, 1), 0) / size)
    tl.store(out_ptr + tl.num_programs(0) + row, tl.sum(tl.sum(product, 1), 0) / size)


@triton.jit
def group_norm_silu_backward(
    x_ptr, dy_ptr, dx_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, mean_dz_ptr, mean_product_ptr, channels, pixels,
    step_n, step_c, step_p, per_group, block_c: tl.constexpr, block_p: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0) * block_c + tl.arange(0, block_c)
    p = tl.program_id(1) * block_p + tl.arange(0, block_p)
    n = tl.program_id(2).to(tl.int64)
    has_c = c < channels
    group = n * (channels // per_group) + c // per_group
    mean = tl.load(mean_ptr + group, mask=has_c, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=has_c, other=0.0)
    mean_dz = tl.load(mean_dz_ptr + group, mask=has_c, other=0.0)
    mean_product = tl.load(mean_product_ptr + group, mask=has_c, other=0.0)
    weight = tl.load(weight_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=has_c, other=0.0).to(tl.float32)
    place = n * step_n + (c.to(tl.int64) * step_c)[:, None] + (p.to(tl.int64) * step_p)[None, :]
    mask = has_c[:, None] & (p < pixels)[None, :]
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + place, mask=mask, other=0.0).to(tl.float32)
    normal, dz = _through_silu(x, dy, mean, rstd, weight, bias)
    dx = rstd[:, None] * (weight[:, None] * dz - mean_dz[:, None] - normal * mean_product[:, None])
    tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def geglu_forward(x_ptr, y_ptr, size, width: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask, place = i < size, i + i // width * width  # rows of x are two widths long: values, then gates
    value = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + place + width, mask=mask, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    tl.store(y_ptr + i, (value * gate * share).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def geglu_backward(x_ptr, dy_ptr, dx_ptr, size, width: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask, place = i < size, i + i // width * width
    value = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + place + width, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + i, mask=mask, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    slope = share + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    tl.store(dx_ptr + place, (dy * gate * share).to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dx_ptr + place + width, (dy * value * slope).to(dx_ptr.dtype.element_ty), mask=mask)
