"""Places in images: regions, boxes, grids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..node import Call
from .pointwise import wide
from .resize import cubic
from .table import evaluated

#: Regions that RoiAlign takes one by one; detectors propose a thousand.
MOST_REGIONS = 1 << 15


def _inside(place: np.ndarray, n: int, mode: str, corners: bool) -> np.ndarray:
    """Whole-numbered places brought into the image for reflection and border; unchanged for zeros."""
    if mode == "border":
        return place.clip(0, n - 1)
    if mode != "reflection":
        return place
    low, high = (0.0, n - 1.0) if corners else (-0.5, n - 0.5)
    span = high - low
    if span == 0:
        return np.zeros_like(place)
    beyond = np.abs(place - low) % (2 * span)
    return low + np.where(beyond > span, 2 * span - beyond, beyond)


def _pick(x: np.ndarray, places: list[np.ndarray], mode: str, corners: bool) -> np.ndarray:
    """x[n,c,...] at whole-numbered places [n, ...]: [n,c,...]; zero outside."""
    batch = np.arange(x.shape[0]).reshape(-1, *(1,) * (places[0].ndim - 1))
    inside = np.ones(places[0].shape, bool)
    at = []
    for axis, place in enumerate(places):
        n = x.shape[2 + axis]
        place = _inside(place, n, mode, corners)
        inside &= (place >= 0) & (place <= n - 1)
        at.append(place.clip(0, n - 1).astype(np.int64))
    index: tuple[Any, ...] = (batch, *at)
    values = np.moveaxis(x, 1, -1)[index]
    return np.moveaxis(np.where(inside[..., None], values, 0), -1, 1)


@evaluated("GridSample")
def grid_sample(call: Call, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
    rank, dtype = x.ndim - 2, x.dtype
    call.require(rank > 0 and grid.ndim == x.ndim and grid.shape[-1] == rank and grid.shape[0] == x.shape[0], "the grid must be [n, ..., axes of space]", input=x.shape, grid=grid.shape)
    call.bounded((*x.shape[:2], *grid.shape[1:-1]))
    mode, padding, corners = call.text("mode", "linear"), call.text("padding_mode", "zeros"), bool(call.integer("align_corners", 0))
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    call.require(mode in ("linear", "nearest", "cubic") and padding in ("zeros", "border", "reflection"), "unknown mode", mode=mode, padding_mode=padding)
    places = []
    for axis in range(rank):  # the grid has columns first
        g, n = grid[..., rank - 1 - axis].astype(np.float64), x.shape[2 + axis]
        place = (g + 1) / 2 * (n - 1) if corners else ((g + 1) * n - 1) / 2
        places.append(_inside(place, n, padding, corners) if mode != "cubic" else place)
    source = wide(x)
    if mode == "nearest":
        return _pick(source, [np.rint(place) for place in places], padding, corners).astype(dtype)
    lows = [np.floor(place) for place in places]
    reach = (0, 2) if mode == "linear" else (-1, 3)
    keys = np.vectorize(lambda d: cubic(-0.75, d), otypes=[np.float64])
    result: Any = 0
    for steps in np.ndindex(*(reach[1] - reach[0],) * rank):
        weight: Any = 1.0
        taken = []
        for place, low, step in zip(places, lows, steps, strict=True):
            at = low + step + reach[0]
            distance = np.abs(place - at)
            weight = weight * (np.maximum(0, 1 - distance) if mode == "linear" else keys(distance))
            taken.append(at)
        result = result + weight[:, None] * _pick(source, taken, padding, corners)
    return result.astype(dtype)


@evaluated("RoiAlign")
def roi_align(call: Call, x: np.ndarray, rois: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """He et al., "Mask R-CNN", 2017: means or maxima of samples inside the cells of each region."""
    call.require(x.ndim == 4 and rois.ndim == 2 and rois.shape[1] == 4 and batch.shape == rois.shape[:1], "shapes must fit", input=x.shape, rois=rois.shape, batch_indices=batch.shape)
    rows, cols = call.integer("output_height", 1), call.integer("output_width", 1)
    ratio, scale, mode = call.integer("sampling_ratio", 0), call.number("spatial_scale", 1.0), call.text("mode", "avg")
    half = call.text("coordinate_transformation_mode", "half_pixel" if call.opset >= 16 else "output_half_pixel") == "half_pixel"
    call.bounded((rois.shape[0], x.shape[1], rows, cols))
    call.require(len(rois) <= MOST_REGIONS, "more regions than are looked at", rois=rois.shape, most=MOST_REGIONS)
    y = np.zeros((rois.shape[0], x.shape[1], rows, cols), np.float64)
    for index, (roi, image) in enumerate(zip(rois.astype(np.float64), batch.tolist(), strict=True)):
        call.require(0 <= image < x.shape[0], "batch_indices must lie inside the batch", batch_indices=image, input=x.shape)
        left, top, right, bottom = roi * scale - (0.5 if half else 0.0)
        width, height = right - left, bottom - top
        if not half:
            width, height = max(width, 1.0), max(height, 1.0)
        cell_h, cell_w = height / rows, width / cols
        samples_h, samples_w = (ratio or max(math.ceil(cell), 1) for cell in (cell_h, cell_w))
        call.summed(math.prod(call.bounded((rows * samples_h, cols * samples_w, x.shape[1]))), 4)
        ys = top + (np.arange(rows * samples_h) + 0.5) * cell_h / samples_h
        xs = left + (np.arange(cols * samples_w) + 0.5) * cell_w / samples_w
        parts = _corners(x[image].astype(np.float64), ys, xs)
        shape = (x.shape[1], rows, samples_h, cols, samples_w)
        if mode == "max":  # the largest of the four weighted corners of every sample
            y[index] = np.max(parts, 0).reshape(shape).max((2, 4))
        else:
            y[index] = np.sum(parts, 0).reshape(shape).mean((2, 4))
    return y.astype(x.dtype)


def _corners(image: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> list[np.ndarray]:
    """The four neighbours [c, len(ys), len(xs)] of every sample, each with its weight; zero for samples outside."""
    axes = []
    for place, n in ((ys, image.shape[1]), (xs, image.shape[2])):
        inside = (place >= -1) & (place <= n)
        place = np.maximum(place, 0)
        low = np.minimum(place.astype(np.int64), n - 1)
        high = np.minimum(low + 1, n - 1)
        fraction = np.where(low >= n - 1, 0.0, place - low)
        axes.append(((low, (1 - fraction) * inside), (high, fraction * inside)))
    return [image[:, r[:, None], c] * (wr[:, None] * wc) for r, wr in axes[0] for c, wc in axes[1]]


@evaluated("NonMaxSuppression", values=(2, 3, 4), dynamic=True)
def non_max_suppression(call: Call, boxes: np.ndarray, scores: np.ndarray, most: Any = None, overlap: Any = None, least: Any = None) -> np.ndarray:
    """For every image and class the best boxes, none of which overlaps a better one by more than the threshold (IoU)."""
    call.require(boxes.ndim == scores.ndim == 3 and boxes.shape[2] == 4 and boxes.shape[0] == scores.shape[0] and boxes.shape[1] == scores.shape[2], "boxes must be [n,boxes,4], scores [n,classes,boxes]", boxes=boxes.shape, scores=scores.shape)
    count = 0 if most is None else int(call.scalar(most, "max_output_boxes_per_class"))
    limit = 0.0 if overlap is None else float(call.scalar(overlap, "iou_threshold"))
    threshold = None if least is None else float(call.scalar(least, "score_threshold"))
    if call.integer("center_point_box", 0):
        centre, size = boxes[..., :2], boxes[..., 2:]
        low, high = centre - size / 2, centre + size / 2
    else:
        low, high = np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])
    areas = np.prod(high - low, -1)
    found = []
    for image in range(scores.shape[0]):
        for category in range(scores.shape[1]):
            order = np.argsort(-scores[image, category], kind="stable")
            if threshold is not None:
                order = order[scores[image, category][order] > threshold]
            taken = 0
            while len(order) and taken < count:
                best, order = order[0], order[1:]
                found.append((image, category, int(best)))
                taken += 1
                call.summed(len(order), 32)
                shared = np.prod(np.maximum(np.minimum(high[image, best], high[image, order]) - np.maximum(low[image, best], low[image, order]), 0), -1)
                union = areas[image, best] + areas[image, order] - shared
                order = order[~(shared > limit * union)] if len(order) else order
    return np.array(found, np.int64).reshape(-1, 3)
