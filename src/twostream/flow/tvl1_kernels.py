"""The loops of TV-L1, compiled by Numba; ``flow/tvl1.py`` says what they compute and in which order.

Each level of the pyramid has one flat array, in which the ten planes stand row by row side by side: row r of plane k
begins at ``((r + 1) * PLANES + k) * stride + LANES``. So the rows that an iteration works on are one block of memory,
whatever the height of the frame. Row -1 is zero, for divergences at the border. What stands before and behind a row
repeats its ends where a difference or the median filter looks there; else it is written over by whole vectors, and
never reaches the field.
"""

# Numba and llvmlite have no types, and neither has what they compile.
# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators, allow-subclassing-any

from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import float32, njit

from twostream.flow import lanes
from twostream.flow.compiled import OPTIONS, kernel
from twostream.flow.lanes import (
    LANES,
    in_fours,
    lane,
    load,
    load4,
    maximum,
    minimum,
    read,
    rounded_down,
    shifted_in,
    splat,
    splat4,
    square_root,
    store,
    store_in_fours,
    sum_of_fours,
    total,
    where_above,
    write,
)

PLANES = 10
U, V, PUX, PUY, PVX, PVY, IX, IY, RHO, INVERSE = range(PLANES)

# Rows of the small buffer that every function but the sweeps works in; the median filter's are wider.
BUFFER_ROWS = 13
_INDEX, _LINE, _FRACTION, _INSIDE, _VALUE, _COLUMN = range(4, 10)

_SOURCES = (Path(__file__), Path(lanes.__file__))
_INNER = {**OPTIONS, "forceinline": True}

# A squared gradient below this one has no direction; OpenCV's number, for images in 0 to 255.
_FLAT = float32(1.1920929e-07)


def row_stride(width: int) -> int:
    """Numbers from one row to the next: whole vectors, and some before them."""
    return int(-(-width // LANES) * LANES + LANES)


def level_size(width: int, height: int) -> int:
    """Numbers that a level takes, with the row above it."""
    return (height + 2) * PLANES * row_stride(width)


def buffer_size(width: int) -> int:
    """Numbers that the buffer takes."""
    return BUFFER_ROWS * (row_stride(width) + LANES)


def field_of(a: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """The planes U and V of a level as a view, (2, height, width)."""
    stride = row_stride(width)
    return a.reshape(height + 2, PLANES, stride)[1:-1, :2, LANES : LANES + width].transpose(1, 0, 2)


_stride = njit(**_INNER)(row_stride)


@njit(**_INNER)
def _end_row(a, row, width, stride):
    """Repeat the last column, so that a forward difference there is zero."""
    a[row + U * stride + width] = a[row + U * stride + width - 1]
    a[row + V * stride + width] = a[row + V * stride + width - 1]


@njit(**_INNER)
def _sweep_row(a, row, above, below, width, stride, limit, theta, step, dual, primal, measure):
    """The dual step of one row, and on its heels the primal step of the next iteration.

    ``row``, ``above`` and ``below`` are where the rows of plane 0 begin. The dual step needs the primal one of the row
    below, the primal one the dual one of the row above: so iteration k+1 can follow iteration k one row behind.
    """
    one, tiny = splat(float32(1)), splat(float32(1e-20))
    high, low = splat(limit), splat(-limit)
    coupling, rate = splat(theta), splat(step)
    pux_left = splat(float32(0))
    pvx_left = splat(float32(0))
    change = splat(float32(0))
    for x in range(0, width, LANES):
        i = row + x
        u = load(a, i + U * stride)
        v = load(a, i + V * stride)
        pux = load(a, i + PUX * stride)
        puy = load(a, i + PUY * stride)
        pvx = load(a, i + PVX * stride)
        pvy = load(a, i + PVY * stride)
        if dual:
            ux = load(a, i + U * stride + 1) - u
            vx = load(a, i + V * stride + 1) - v
            uy = load(a, below + x + U * stride) - u
            vy = load(a, below + x + V * stride) - v
            su = ux * ux + uy * uy + tiny
            sv = vx * vx + vy * vy + tiny
            du = one / (one + rate * (su * (one / square_root(su))))
            dv = one / (one + rate * (sv * (one / square_root(sv))))
            pux = (pux + rate * ux) * du
            puy = (puy + rate * uy) * du
            pvx = (pvx + rate * vx) * dv
            pvy = (pvy + rate * vy) * dv
            store(a, i + PUX * stride, pux)
            store(a, i + PUY * stride, puy)
            store(a, i + PVX * stride, pvx)
            store(a, i + PVY * stride, pvy)
        if primal:
            gx = load(a, i + IX * stride)
            gy = load(a, i + IY * stride)
            rho = load(a, i + RHO * stride) + gx * u + gy * v
            d = minimum(maximum(rho * load(a, i + INVERSE * stride), low), high)
            div_u = (pux - shifted_in(pux_left, pux)) + (puy - load(a, above + x + PUY * stride))
            div_v = (pvx - shifted_in(pvx_left, pvx)) + (pvy - load(a, above + x + PVY * stride))
            new_u = (u - d * gx) + coupling * div_u
            new_v = (v - d * gy) + coupling * div_v
            store(a, i + U * stride, new_u)
            store(a, i + V * stride, new_v)
            pux_left = pux
            pvx_left = pvx
            if measure:
                cu = new_u - u
                cv = new_v - v
                if x + LANES <= width:
                    change = change + (cu * cu + cv * cv)
                else:
                    squares = cu * cu + cv * cv
                    for k in range(width - x):
                        change = change + splat(lane(squares, k) * float32(1.0 / LANES))
    if primal:
        _end_row(a, row, width, stride)
    return total(change)


@kernel("float64(float32[::1],int64,int64,int64,float32,float32,float32,boolean)", *_SOURCES)
def iterate(a, width, height, iterations, limit, theta, step, measure):
    """So many iterations in one sweep over the rows; gives the sum of squared changes of the last primal step.

    Stage 0 is a primal step, stages 1 to n-1 a dual step with the next primal one, stage n a dual step; stage k works
    k rows behind stage 0, so the rows in use stay in the cache.
    """
    stride = _stride(width)
    block = PLANES * stride
    changed = 0.0
    for front in range(height + iterations):
        for k in range(max(0, front - height + 1), min(iterations, front) + 1):
            r = front - k
            row = (r + 1) * block + LANES
            above = row - block
            below = row + block if r + 1 < height else row
            if k == 0:
                if measure and iterations == 1:
                    changed += _sweep_row(a, row, above, below, width, stride, limit, theta, step, False, True, True)
                else:
                    _sweep_row(a, row, above, below, width, stride, limit, theta, step, False, True, False)
            elif k == iterations:
                _sweep_row(a, row, above, below, width, stride, limit, theta, step, True, False, False)
            elif measure and k == iterations - 1:
                changed += _sweep_row(a, row, above, below, width, stride, limit, theta, step, True, True, True)
            else:
                _sweep_row(a, row, above, below, width, stride, limit, theta, step, True, True, False)
    return changed


@njit(**_INNER)
def _sorted_pair(a, b):
    return minimum(a, b), maximum(a, b)


@njit(**_INNER)
def _ends_of_3(a, b, c):
    """The same numbers, the smallest first and the largest last; so for the next ones."""
    a, b = _sorted_pair(a, b)
    a, c = _sorted_pair(a, c)
    b, c = _sorted_pair(b, c)
    return a, b, c


@njit(**_INNER)
def _ends_of_4(a, b, c, d):
    a, b = _sorted_pair(a, b)
    c, d = _sorted_pair(c, d)
    a, c = _sorted_pair(a, c)
    b, d = _sorted_pair(b, d)
    return a, b, c, d


@njit(**_INNER)
def _ends_of_5(a, b, c, d, e):
    a, b, c, d = _ends_of_4(a, b, c, d)
    a, e = _sorted_pair(a, e)
    e, d = _sorted_pair(e, d)
    return a, b, c, e, d


@njit(**_INNER)
def _ends_of_6(a, b, c, d, e, f):
    a, d = _sorted_pair(a, d)
    b, e = _sorted_pair(b, e)
    c, f = _sorted_pair(c, f)
    a, b = _sorted_pair(a, b)
    a, c = _sorted_pair(a, c)
    d, f = _sorted_pair(d, f)
    e, f = _sorted_pair(e, f)
    return a, b, c, d, e, f


@njit(**_INNER)
def _ends_of_7(a, b, c, d, e, f, g):
    a, b, c, d, e, f = _ends_of_6(a, b, c, d, e, f)
    a, g = _sorted_pair(a, g)
    g, f = _sorted_pair(g, f)
    return a, b, c, d, e, g, f


@njit(**_INNER)
def _ends_of_8(a, b, c, d, e, f, g, h):
    a, b, c, d, e, f = _ends_of_6(a, b, c, d, e, f)
    g, h = _sorted_pair(g, h)
    a, g = _sorted_pair(a, g)
    f, h = _sorted_pair(f, h)
    return a, b, c, d, e, f, g, h


@njit(**_INNER)
def _median_of_13(a, b, c, d, e, f, g, h, i, j, k, m, n):
    """Forgets the smallest and the largest of more than half, takes one more, and so on."""
    a, b, c, d, e, f, g, h = _ends_of_8(a, b, c, d, e, f, g, h)
    b, c, d, e, f, g, h = _ends_of_7(b, c, d, e, f, g, i)
    c, d, e, f, g, h = _ends_of_6(c, d, e, f, g, j)
    d, e, f, g, h = _ends_of_5(d, e, f, g, k)
    e, f, g, h = _ends_of_4(e, f, g, m)
    f, g, h = _ends_of_3(f, g, n)
    return g


@njit(**_INNER)
def _three_largest(a, b, c, d, e):
    a, b, c, d, e = _ends_of_5(a, b, c, d, e)
    b, c = _sorted_pair(b, c)
    b, d = _sorted_pair(b, d)
    return c, d, e


@njit(**_INNER)
def _three_smallest(a, b, c, d, e):
    a, b, c, d, e = _ends_of_5(a, b, c, d, e)
    c, d = _sorted_pair(c, d)
    b, d = _sorted_pair(b, d)
    return a, b, c


@njit(**_INNER)
def _two_largest(a, b, c, d, e):
    a, b = _sorted_pair(a, b)
    c, d = _sorted_pair(c, d)
    a, c = _sorted_pair(a, c)
    b, d = _sorted_pair(b, d)
    # a is out; b and c may be the second
    b = maximum(b, c)
    b, e = _sorted_pair(b, e)
    d, e = _sorted_pair(d, e)
    return maximum(b, d), e


@njit(**_INNER)
def _two_smallest(a, b, c, d, e):
    a, b = _sorted_pair(a, b)
    c, d = _sorted_pair(c, d)
    a, c = _sorted_pair(a, c)
    b, d = _sorted_pair(b, d)
    b = minimum(b, c)
    e, b = _sorted_pair(e, b)
    e, a = _sorted_pair(e, a)
    return e, minimum(a, b)


@njit(**_INNER)
def _sort_columns_3(a, b, stride, width, r0, r1, r2):
    for x in range(-LANES, width + LANES, LANES):
        p, q, r = _ends_of_3(load(a, r0 + x), load(a, r1 + x), load(a, r2 + x))
        store(b, LANES + x, p)
        store(b, LANES + x + stride, q)
        store(b, LANES + x + 2 * stride, r)


@njit(**_INNER)
def _sort_columns_5(a, b, stride, width, r0, r1, r2, r3, r4):
    for x in range(-LANES, width + LANES, LANES):
        p, q, r, s, t = _ends_of_5(load(a, r0 + x), load(a, r1 + x), load(a, r2 + x), load(a, r3 + x), load(a, r4 + x))
        q, r, s = _ends_of_3(q, r, s)
        store(b, LANES + x, p)
        store(b, LANES + x + stride, q)
        store(b, LANES + x + 2 * stride, r)
        store(b, LANES + x + 3 * stride, s)
        store(b, LANES + x + 4 * stride, t)


@njit(**_INNER)
def _median_row_3(b, stride, out, width):
    for x in range(LANES, width + LANES, LANES):
        i = x
        low = maximum(maximum(load(b, i - 1), load(b, i)), load(b, i + 1))
        i += stride
        _, middle, _ = _ends_of_3(load(b, i - 1), load(b, i), load(b, i + 1))
        i += stride
        high = minimum(minimum(load(b, i - 1), load(b, i)), load(b, i + 1))
        _, middle, _ = _ends_of_3(low, middle, high)
        store(b, out + x, middle)


@njit(**_INNER)
def _median_row_5(b, stride, out, width):
    """Of 25 numbers sorted by columns and then by rows, these 13 can be in the middle."""
    for x in range(LANES, width + LANES, LANES):
        i = x
        a0, a1 = _two_largest(load(b, i - 2), load(b, i - 1), load(b, i), load(b, i + 1), load(b, i + 2))
        i += stride
        b0, b1, b2 = _three_largest(load(b, i - 2), load(b, i - 1), load(b, i), load(b, i + 1), load(b, i + 2))
        i += stride
        _, c0, c1, c2, _ = _ends_of_5(load(b, i - 2), load(b, i - 1), load(b, i), load(b, i + 1), load(b, i + 2))
        i += stride
        d0, d1, d2 = _three_smallest(load(b, i - 2), load(b, i - 1), load(b, i), load(b, i + 1), load(b, i + 2))
        i += stride
        e0, e1 = _two_smallest(load(b, i - 2), load(b, i - 1), load(b, i), load(b, i + 1), load(b, i + 2))
        middle = _median_of_13(a0, a1, b0, b1, b2, c0, c1, c2, d0, d1, d2, e0, e1)
        store(b, out + x, middle)


@kernel("void(float32[::1],float32[::1],int64,int64,int64,int64)", *_SOURCES)
def median(a, buffer, plane, width, height, size):
    """The median filter of one plane in place, 3x3 or 5x5, the border repeated.

    A row of the result waits in ``buffer`` until no row below it needs the old one.
    """
    stride = _stride(width) + LANES
    block = PLANES * _stride(width)
    first = block + LANES + plane * _stride(width)
    radius = size // 2
    for r in range(height):
        row = first + r * block
        for k in range(1, 3):
            a[row - k] = a[row]
            a[row + width - 1 + k] = a[row + width - 1]
    for r in range(height + radius):
        if r < height:
            row = first + r * block
            above = first + max(r - 1, 0) * block
            below = first + min(r + 1, height - 1) * block
            if size == 3:
                _sort_columns_3(a, buffer, stride, width, above, row, below)
            else:
                above2 = first + max(r - 2, 0) * block
                below2 = first + min(r + 2, height - 1) * block
                _sort_columns_5(a, buffer, stride, width, above2, above, row, below, below2)
        done = r - radius
        if done >= 0:
            source = (5 + done % 3) * stride + LANES
            target = first + done * block
            for x in range(0, width, LANES):
                store(a, target + x, load(buffer, source + x))
        if r < height:
            if size == 3:
                _median_row_3(buffer, stride, (5 + r % 3) * stride, width)
            else:
                _median_row_5(buffer, stride, (5 + r % 3) * stride, width)


@njit(**_INNER)
def _texture_row(a, row, above, below, width, stride, coupling, rate, momentum, dual, primal):
    """The dual step of one row of the structure, and the structure from it; see ``_sweep_row``.

    The image is in the plane RHO, the structure in U, the dual in PUX and PUY, the one ahead of it in PVX and PVY.
    """
    one, tiny = splat(float32(1)), splat(float32(1e-20))
    weight, step, ahead = splat(coupling), splat(rate), splat(momentum)
    x_left = splat(float32(0))
    for x in range(0, width, LANES):
        i = row + x
        qx = load(a, i + PVX * stride)
        qy = load(a, i + PVY * stride)
        if dual:
            s = load(a, i + U * stride)
            rx = qx + step * (load(a, i + U * stride + 1) - s)
            ry = qy + step * (load(a, below + x + U * stride) - s)
            shrink = minimum(one, one / square_root(rx * rx + ry * ry + tiny))
            rx = rx * shrink
            ry = ry * shrink
            qx = rx + ahead * (rx - load(a, i + PUX * stride))
            qy = ry + ahead * (ry - load(a, i + PUY * stride))
            store(a, i + PUX * stride, rx)
            store(a, i + PUY * stride, ry)
            store(a, i + PVX * stride, qx)
            store(a, i + PVY * stride, qy)
        if primal:
            div = (qx - shifted_in(x_left, qx)) + (qy - load(a, above + x + PVY * stride))
            store(a, i + U * stride, load(a, i + RHO * stride) + weight * div)
            x_left = qx
    if primal:
        a[row + U * stride + width] = a[row + U * stride + width - 1]


@kernel("void(float32[::1],float32[::1],int64,int64,float32,float32,float32[::1])", *_SOURCES)
def remove_structure(a, image, width, height, share, coupling, momenta):
    """Subtract a share of the image's structure, in place: what is left of it by total variation denoising.

    As many iterations as there are ``momenta``, each one row behind the one before. ``a`` is a zeroed level.

    Reference: Beck, Teboulle, *Fast Gradient-Based Algorithms for Constrained Total Variation Image Denoising and
    Deblurring Problems*, TIP 2009.
    """
    stride = _stride(width)
    block = PLANES * stride
    rate = float32(0.125) / coupling
    for r in range(height):
        row = (r + 1) * block + LANES
        for x in range(width):
            write(a, row + RHO * stride + x, read(image, r * width + x))
            write(a, row + U * stride + x, read(image, r * width + x))
        a[row + U * stride + width] = a[row + U * stride + width - 1]
    count = len(momenta)
    for front in range(height + count - 1):
        for k in range(max(0, front - height + 1), min(count - 1, front) + 1):
            r = front - k
            row = (r + 1) * block + LANES
            below = row + block if r + 1 < height else row
            _texture_row(a, row, row - block, below, width, stride, coupling, rate, momenta[k], True, True)
    for r in range(height):
        row = (r + 1) * block + LANES
        for x in range(width):
            left = read(image, r * width + x) - share * read(a, row + U * stride + x)
            write(image, r * width + x, left)


@njit(**_INNER)
def _copy_pixel(packed, target, source):
    store(packed, target, load4(packed, source))


@kernel("void(float32[::1],float32[::1],float32[::1],float32[::1],int64,int64,int64)", *_SOURCES)
def pack(image, plane, packed, buffer, width, height, points):
    """An image in rows of whole vectors, and once more with its derivatives, four numbers to a pixel.

    The packed one has a pixel more to the left and above and two to the right and below, copies of the border: what a
    bicubic sample inside the frame reads. ``points`` is 3 or 5, the width of the central difference; ``buffer`` is
    room for a row.
    """
    stride = _stride(width)
    line = (width + 3) * 4
    near = splat(float32(0.5) if points == 3 else float32(8 / 12))
    far = splat(float32(0) if points == 3 else float32(1 / 12))
    zero = splat(float32(0))
    for r in range(height):
        for x in range(width):
            write(plane, r * stride + x, read(image, r * width + x))
    for r in range(height):
        i = (r + 1) * line + 4
        row = r * stride
        up2, up = max(r - 2, 0) * stride, max(r - 1, 0) * stride
        down, down2 = min(r + 1, height - 1) * stride, min(r + 2, height - 1) * stride
        for x in range(width):
            write(buffer, x + LANES, read(plane, row + x))
        for k in range(1, 3):
            write(buffer, LANES - k, read(plane, row))
            write(buffer, LANES + width - 1 + k, read(plane, row + width - 1))
        for x in range(0, width, LANES):
            # The last vector ends with the row: what it shares with the one before is written twice.
            x = min(x, width - LANES)
            c = LANES + x
            dx = near * (load(buffer, c + 1) - load(buffer, c - 1))
            dx = dx - far * (load(buffer, c + 2) - load(buffer, c - 2))
            dy = near * (load(plane, down + x) - load(plane, up + x))
            dy = dy - far * (load(plane, down2 + x) - load(plane, up2 + x))
            store_in_fours(packed, i + 4 * x, load(plane, row + x), dx, dy, zero)
        _copy_pixel(packed, i - 4, i)
        _copy_pixel(packed, i + 4 * width, i + 4 * width - 4)
        _copy_pixel(packed, i + 4 * width + 4, i + 4 * width - 4)
    for k in range(0, line, 4):
        _copy_pixel(packed, k, line + k)
        _copy_pixel(packed, (height + 1) * line + k, height * line + k)
        _copy_pixel(packed, (height + 2) * line + k, height * line + k)


# Keys's cubic kernel with a = -3/4, which is OpenCV's: the weights of the four samples around the fraction t, by power.
_CUBIC = tuple(
    tuple(map(float32, row))
    for row in ((0, 1, 0, 0), (-0.75, 0, 0.75, 0), (1.5, -2.25, 1.5, -0.75), (-0.75, 1.25, -1.25, 0.75))
)


@kernel(
    "void(float32[::1],float32[::1],float32[::1],float32[::1],float32[::1],float32,int64,int64)",
    *_SOURCES,
)
def warp(a, plane, own, packed, buffer, blend, width, height):
    """The data term around the present field: gradients there, and the residual at zero flow.

    Args:
        a: the level; IX, IY, RHO and INVERSE are written.
        plane: the first image in rows of whole vectors.
        own: the first image, packed; read only where ``blend`` is not 0.
        packed: the second image.
        buffer: room for some rows.
        blend: share of the first image's gradient.
        width, height: of the level.
    """
    stride = _stride(width)
    block = PLANES * stride
    line = (width + 3) * 4
    zero, one = splat(float32(0)), splat(float32(1))
    right, bottom = splat(float32(width - 1)), splat(float32(height - 1))
    c0 = in_fours(*_CUBIC[0])
    c1 = in_fours(*_CUBIC[1])
    c2 = in_fours(*_CUBIC[2])
    c3 = in_fours(*_CUBIC[3])
    for x in range(width):
        write(buffer, _COLUMN * stride + x, float32(x))
    for r in range(height):
        row = (r + 1) * block + LANES
        for x in range(0, width, LANES):
            px = load(buffer, _COLUMN * stride + x) + load(a, row + U * stride + x)
            py = splat(float32(r)) + load(a, row + V * stride + x)
            cx = minimum(maximum(px, zero), right)
            cy = minimum(maximum(py, zero), bottom)
            inside = where_above(cx - px, zero, zero, one) * where_above(px - cx, zero, zero, one)
            inside = inside * where_above(cy - py, zero, zero, one) * where_above(py - cy, zero, zero, one)
            fx = rounded_down(cx)
            fy = rounded_down(cy)
            store(buffer, _INDEX * stride + x, fx)
            store(buffer, _LINE * stride + x, fy)
            store(buffer, _INSIDE * stride + x, inside)
            store(buffer, _FRACTION * stride + x, cx - fx)
            t = cy - fy
            for k in range(4):
                weight = splat(_CUBIC[2][k]) + splat(_CUBIC[3][k]) * t
                weight = splat(_CUBIC[0][k]) + (splat(_CUBIC[1][k]) + weight * t) * t
                store(buffer, k * stride + x, weight)
        for x in range(width):
            i = np.int64(read(buffer, _LINE * stride + x)) * line + np.int64(read(buffer, _INDEX * stride + x)) * 4
            # Four pixels of four numbers are one vector.
            down = splat(read(buffer, x)) * load(packed, i) + splat(read(buffer, stride + x)) * load(packed, i + line)
            i += 2 * line
            down = down + splat(read(buffer, 2 * stride + x)) * load(packed, i)
            down = down + splat(read(buffer, 3 * stride + x)) * load(packed, i + line)
            t = splat(read(buffer, _FRACTION * stride + x))
            s = sum_of_fours((c0 + (c1 + (c2 + c3 * t) * t) * t) * down)
            write(buffer, _VALUE * stride + x, lane(s, 0))
            if blend != 0:
                s = s + splat4(blend) * (load4(own, (r + 1) * line + 4 * x + 4) - s)
            write(a, row + IX * stride + x, lane(s, 1))
            write(a, row + IY * stride + x, lane(s, 2))
        for x in range(0, width, LANES):
            i = row + x
            inside = load(buffer, _INSIDE * stride + x)
            gx = load(a, i + IX * stride) * inside
            gy = load(a, i + IY * stride) * inside
            square = gx * gx + gy * gy
            rho = (load(buffer, _VALUE * stride + x) - load(plane, r * stride + x)) * inside
            rho = rho - gx * load(a, i + U * stride) - gy * load(a, i + V * stride)
            store(a, i + IX * stride, gx)
            store(a, i + IY * stride, gy)
            store(a, i + RHO * stride, rho)
            inverse = one / maximum(square, splat(_FLAT))
            store(a, i + INVERSE * stride, where_above(square, splat(_FLAT), inverse, zero))


@kernel(
    "void(float32[::1],float32[::1],float32[::1],float32[::1],float32[::1],float32,int64,int64,int64,int64,int64,int64,"
    "int64,float32,float32,float32,float64)",
    *_SOURCES,
)
def solve(
    a,
    plane,
    own,
    packed,
    buffer,
    blend,
    width,
    height,
    warps,
    outer,
    inner,
    at_once,
    median_size,
    limit,
    theta,
    step,
    enough,
):
    """All warps of one level, from the field in the planes U and V to the better one there.

    Args:
        a, plane, own, packed, buffer, blend, width, height: see :func:`warp`.
        warps, outer, inner: numbers of warps, of rounds in each, of iterations in each of these.
        at_once: iterations in one sweep over the rows, and so between two looks at the change.
        median_size: of the filter at the start of each round, 1 for none.
        limit, theta, step: lambda times theta; theta; tau by theta.
        enough: sum of squared changes at which a warp ends; below zero it is not looked at.
    """
    stride = _stride(width)
    block = PLANES * stride
    for _ in range(warps):
        warp(a, plane, own, packed, buffer, blend, width, height)
        change = np.inf
        for _ in range(outer):
            if change <= enough:
                break
            if median_size > 1:
                median(a, buffer, U, width, height, median_size)
                median(a, buffer, V, width, height, median_size)
            for r in range(height):
                _end_row(a, (r + 1) * block + LANES, width, stride)
            done = 0
            while done < inner and change > enough:
                count = min(at_once, inner - done)
                change = iterate(a, width, height, count, limit, theta, step, enough >= 0)
                done += count
                if enough < 0:
                    change = np.inf
