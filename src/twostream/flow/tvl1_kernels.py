"""The loops of TV-L1, compiled by Numba; ``flow/tvl1.py`` says what they compute and in which order.

Each level of the pyramid has one flat array, in which the ten planes stand row by row side by side: row r of plane k
begins at ``((r + 1) * PLANES + k) * stride + LANES``. So the rows that an iteration works on are one block of memory,
whatever the height of the frame. Row -1 and the LANES numbers before each row are zero, for divergences at the border.
What stands to the right of a row is written over by whole vectors and never reaches the field.
"""

import numpy as np
from numba import float32, njit

from twostream.flow.lanes import (
    LANES,
    lane,
    load,
    load4,
    maximum,
    minimum,
    rounded_down,
    shifted_in,
    splat,
    splat4,
    square_root,
    store,
    total,
    where_above,
)

PLANES = 10
U, V, PUX, PUY, PVX, PVY, IX, IY, RHO, INVERSE = range(PLANES)

_OPTIONS = {"nogil": True, "fastmath": True, "error_model": "numpy", "boundscheck": False}
_ROW = {**_OPTIONS, "forceinline": True}

# A squared gradient below this one has no direction; OpenCV's number, for images in 0 to 255.
_FLAT = float32(1.1920929e-07)


@njit(**_ROW)
def row_stride(width):
    """Numbers from one row to the next: whole vectors and the zeros before them."""
    return (width + LANES - 1) // LANES * LANES + LANES


@njit(**_ROW)
def _end_row(a, row, width, stride):
    """Repeat the last column, so that a forward difference there is zero."""
    a[row + U * stride + width] = a[row + U * stride + width - 1]
    a[row + V * stride + width] = a[row + V * stride + width - 1]


@njit(**_ROW)
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


@njit("float64(float32[::1],int64,int64,int64,float32,float32,float32,boolean)", **_OPTIONS)
def iterate(a, width, height, iterations, limit, theta, step, measure):
    """So many iterations in one sweep over the rows; gives the sum of squared changes of the last primal step.

    Stage 0 is a primal step, stages 1 to n-1 a dual step with the next primal one, stage n a dual step; stage k works
    k rows behind stage 0, so the rows in use stay in the cache.
    """
    stride = row_stride(width)
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


@njit(**_ROW)
def _sorted_pair(a, b):
    return minimum(a, b), maximum(a, b)


@njit(**_ROW)
def _ends_of_3(a, b, c):
    """The same numbers, the smallest first and the largest last; so for the next ones."""
    a, b = _sorted_pair(a, b)
    a, c = _sorted_pair(a, c)
    b, c = _sorted_pair(b, c)
    return a, b, c


@njit(**_ROW)
def _ends_of_4(a, b, c, d):
    a, b = _sorted_pair(a, b)
    c, d = _sorted_pair(c, d)
    a, c = _sorted_pair(a, c)
    b, d = _sorted_pair(b, d)
    return a, b, c, d


@njit(**_ROW)
def _ends_of_5(a, b, c, d, e):
    a, b, c, d = _ends_of_4(a, b, c, d)
    a, e = _sorted_pair(a, e)
    e, d = _sorted_pair(e, d)
    return a, b, c, e, d


@njit(**_ROW)
def _ends_of_6(a, b, c, d, e, f):
    a, d = _sorted_pair(a, d)
    b, e = _sorted_pair(b, e)
    c, f = _sorted_pair(c, f)
    a, b = _sorted_pair(a, b)
    a, c = _sorted_pair(a, c)
    d, f = _sorted_pair(d, f)
    e, f = _sorted_pair(e, f)
    return a, b, c, d, e, f


@njit(**_ROW)
def _ends_of_7(a, b, c, d, e, f, g):
    a, b, c, d, e, f = _ends_of_6(a, b, c, d, e, f)
    a, g = _sorted_pair(a, g)
    g, f = _sorted_pair(g, f)
    return a, b, c, d, e, g, f


@njit(**_ROW)
def _ends_of_8(a, b, c, d, e, f, g, h):
    a, b, c, d, e, f = _ends_of_6(a, b, c, d, e, f)
    g, h = _sorted_pair(g, h)
    a, g = _sorted_pair(a, g)
    f, h = _sorted_pair(f, h)
    return a, b, c, d, e, f, g, h


@njit(**_ROW)
def _median_of_13(a, b, c, d, e, f, g, h, i, j, k, l, m):
    """Forgets the smallest and the largest of more than half, takes one more, and so on."""
    a, b, c, d, e, f, g, h = _ends_of_8(a, b, c, d, e, f, g, h)
    b, c, d, e, f, g, h = _ends_of_7(b, c, d, e, f, g, i)
    c, d, e, f, g, h = _ends_of_6(c, d, e, f, g, j)
    d, e, f, g, h = _ends_of_5(d, e, f, g, k)
    e, f, g, h = _ends_of_4(e, f, g, l)
    f, g, h = _ends_of_3(f, g, m)
    return g


@njit(**_ROW)
def _three_largest(a, b, c, d, e):
    a, b, c, d, e = _ends_of_5(a, b, c, d, e)
    b, c = _sorted_pair(b, c)
    b, d = _sorted_pair(b, d)
    return c, d, e


@njit(**_ROW)
def _three_smallest(a, b, c, d, e):
    a, b, c, d, e = _ends_of_5(a, b, c, d, e)
    c, d = _sorted_pair(c, d)
    b, d = _sorted_pair(b, d)
    return a, b, c


@njit(**_ROW)
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


@njit(**_ROW)
def _two_smallest(a, b, c, d, e):
    a, b = _sorted_pair(a, b)
    c, d = _sorted_pair(c, d)
    a, c = _sorted_pair(a, c)
    b, d = _sorted_pair(b, d)
    b = minimum(b, c)
    e, b = _sorted_pair(e, b)
    e, a = _sorted_pair(e, a)
    return e, minimum(a, b)


@njit(**_ROW)
def _sort_columns_3(a, b, stride, width, r0, r1, r2):
    for x in range(-LANES, width + LANES, LANES):
        p, q, r = _ends_of_3(load(a, r0 + x), load(a, r1 + x), load(a, r2 + x))
        store(b, LANES + x, p)
        store(b, LANES + x + stride, q)
        store(b, LANES + x + 2 * stride, r)


@njit(**_ROW)
def _sort_columns_5(a, b, stride, width, r0, r1, r2, r3, r4):
    for x in range(-LANES, width + LANES, LANES):
        p, q, r, s, t = _ends_of_5(load(a, r0 + x), load(a, r1 + x), load(a, r2 + x), load(a, r3 + x), load(a, r4 + x))
        q, r, s = _ends_of_3(q, r, s)
        store(b, LANES + x, p)
        store(b, LANES + x + stride, q)
        store(b, LANES + x + 2 * stride, r)
        store(b, LANES + x + 3 * stride, s)
        store(b, LANES + x + 4 * stride, t)


@njit(**_ROW)
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


@njit(**_ROW)
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


@njit("void(float32[::1],float32[::1],int64,int64,int64,int64)", **_OPTIONS)
def median(a, buffer, plane, width, height, size):
    """The median filter of one plane in place, 3x3 or 5x5, the border repeated.

    A row of the result waits in ``buffer`` until no row below it needs the old one.
    """
    stride = row_stride(width) + LANES
    block = PLANES * row_stride(width)
    first = block + LANES + plane * row_stride(width)
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


@njit("void(float32[:,:],float32[::1])", **_OPTIONS)
def pack(image, packed):
    """An image with its central differences side by side, four numbers to a pixel, the border repeated.

    One pixel more to the left and above, two to the right and below: what a bicubic sample inside the frame reads.
    """
    height, width = image.shape
    i = 0
    for y in range(-1, height + 2):
        r = min(max(y, 0), height - 1)
        up, down = max(r - 1, 0), min(r + 1, height - 1)
        for x in range(-1, width + 2):
            c = min(max(x, 0), width - 1)
            packed[i] = image[r, c]
            packed[i + 1] = float32(0.5) * (image[r, min(c + 1, width - 1)] - image[r, max(c - 1, 0)])
            packed[i + 2] = float32(0.5) * (image[down, c] - image[up, c])
            packed[i + 3] = float32(0)
            i += 4


@njit(**_ROW)
def _weights(buffer, first, stride, x, t):
    """Keys's cubic weights with a = -3/4, OpenCV's, of the four samples around fraction ``t``."""
    a = splat(float32(-0.75))
    one = splat(float32(1))
    two = splat(float32(2))
    three = splat(float32(3))
    s = one - t
    t1 = t + one
    w0 = ((a * t1 - splat(float32(5)) * a) * t1 + splat(float32(8)) * a) * t1 - splat(float32(4)) * a
    w1 = ((a + two) * t - (a + three)) * t * t + one
    w2 = ((a + two) * s - (a + three)) * s * s + one
    store(buffer, first * stride + x, w0)
    store(buffer, (first + 1) * stride + x, w1)
    store(buffer, (first + 2) * stride + x, w2)
    store(buffer, (first + 3) * stride + x, one - w0 - w1 - w2)


@njit("void(float32[::1],float32[:,:],float32[::1],float32[::1],int64,int64)", **_OPTIONS)
def warp(a, image, packed, buffer, width, height):
    """The data term around the present field: gradients of the second image there, and the residual at zero flow."""
    stride = row_stride(width)
    block = PLANES * stride
    line = (width + 3) * 4
    zero = splat(float32(0))
    one = splat(float32(1))
    right = splat(float32(width - 1))
    bottom = splat(float32(height - 1))
    for r in range(height):
        row = (r + 1) * block + LANES
        for x in range(0, width, LANES):
            px = load(buffer, 13 * stride + x) + load(a, row + U * stride + x)
            py = splat(float32(r)) + load(a, row + V * stride + x)
            cx = minimum(maximum(px, zero), right)
            cy = minimum(maximum(py, zero), bottom)
            inside = where_above(cx - px, zero, zero, one) * where_above(px - cx, zero, zero, one)
            inside = inside * where_above(cy - py, zero, zero, one) * where_above(py - cy, zero, zero, one)
            fx = rounded_down(cx)
            fy = rounded_down(cy)
            store(buffer, 8 * stride + x, fx)
            store(buffer, 9 * stride + x, fy)
            store(buffer, 10 * stride + x, inside)
            _weights(buffer, 0, stride, x, cx - fx)
            _weights(buffer, 4, stride, x, cy - fy)
        for x in range(width):
            i = np.int64(buffer[9 * stride + x]) * line + np.int64(buffer[8 * stride + x]) * 4
            w0 = splat4(buffer[x])
            w1 = splat4(buffer[stride + x])
            w2 = splat4(buffer[2 * stride + x])
            w3 = splat4(buffer[3 * stride + x])
            s = splat4(float32(0))
            for k in range(4):
                j = i + k * line
                t = w0 * load4(packed, j) + w1 * load4(packed, j + 4)
                t = t + (w2 * load4(packed, j + 8) + w3 * load4(packed, j + 12))
                s = s + splat4(buffer[(4 + k) * stride + x]) * t
            buffer[11 * stride + x] = lane(s, 0)
            a[row + IX * stride + x] = lane(s, 1)
            a[row + IY * stride + x] = lane(s, 2)
        for x in range(width):
            buffer[12 * stride + x] = image[r, x]
        for x in range(0, width, LANES):
            i = row + x
            inside = load(buffer, 10 * stride + x)
            gx = load(a, i + IX * stride) * inside
            gy = load(a, i + IY * stride) * inside
            square = gx * gx + gy * gy
            rho = load(buffer, 11 * stride + x) - load(buffer, 12 * stride + x)
            rho = rho * inside - gx * load(a, i + U * stride) - gy * load(a, i + V * stride)
            store(a, i + IX * stride, gx)
            store(a, i + IY * stride, gy)
            store(a, i + RHO * stride, rho)
            inverse = one / maximum(square, splat(_FLAT))
            store(a, i + INVERSE * stride, where_above(square, splat(_FLAT), inverse, zero))


@njit(
    "void(float32[::1],float32[:,:],float32[::1],float32[::1],int64,int64,int64,int64,int64,int64,int64,"
    "float32,float32,float32,float64)",
    **_OPTIONS,
)
def solve(a, image, packed, buffer, width, height, warps, outer, inner, check, median_size, limit, theta, step, enough):
    """All warps of one level, from the field in the planes U and V to the better one there.

    ``enough`` is the sum of squared changes at which a warp ends; below zero it is not looked at.
    """
    stride = row_stride(width)
    block = PLANES * stride
    for _ in range(warps):
        warp(a, image, packed, buffer, width, height)
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
                count = min(check, inner - done)
                change = iterate(a, width, height, count, limit, theta, step, enough >= 0)
                done += count
                if enough < 0:
                    change = np.inf
