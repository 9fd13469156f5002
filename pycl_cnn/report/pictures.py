"""Pictures of a training: curve, filters, feature maps, confusion matrix, predictions. Drawn with matplotlib, which is an extra.

Every `draw_...` fills one axes or one part of a figure; `overview` puts all of them on one page.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PyclError
from ..training.history import History

INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e8ee"
TRAINING, HELD_OUT, WRONG = "#2f6fb2", "#e0792b", "#c8342b"
SHADES = "Blues"

#: Filters and feature maps stand in so many rows.
TILE_ROWS = 4

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.grid": False,
    "grid.color": GRID,
    "legend.frameon": False,
}


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise PyclError('pictures are drawn with matplotlib, which is not installed: pip install "pycl_cnn[demo]"') from error
    return matplotlib


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true class, predicted class]."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def mosaic(tiles: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images [n,h,w] side by side in rows of `columns`, NaN (left blank) between them.

    Each is scaled to 0..1 by itself; where some of it is negative, so that 0 becomes the middle, 0.5.
    """
    n, h, w = tiles.shape
    rows = -(-n // columns)
    page = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap), np.nan)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (h + gap), index % columns * (w + gap)
        high = float(np.abs(tile).max())
        low = -high if tile.min() < 0 else float(tile.min())
        page[top : top + h, left : left + w] = (tile - low) / (high - low) if high > low else 0.0
    return page


def draw_loss(axes: Any, history: History) -> None:
    """Loss of every step, and per epoch on the held-out images, on a logarithmic scale."""
    steps = np.arange(1, len(history.step_loss) + 1)
    ends = np.linspace(0, len(steps), len(history) + 1)[1:]
    axes.plot(steps, history.step_loss, color=TRAINING, alpha=0.25, linewidth=0.8)
    axes.plot((ends + np.r_[0, ends[:-1]]) / 2, history.loss, color=TRAINING, linewidth=2, marker="o", markersize=4, label="training")
    if None not in history.validation_loss:
        axes.plot(ends, history.validation_loss, color=HELD_OUT, linewidth=2, marker="o", markersize=4, label="held out")
    axes.set(title="Loss", xlabel="step", yscale="log", xlim=(0, len(steps)))
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")


def draw_accuracy(axes: Any, history: History) -> None:
    """Accuracy per epoch in per cent."""
    lowest = 100.0
    for values, colour, label in ((history.accuracy, TRAINING, "training"), (history.validation_accuracy, HELD_OUT, "held out")):
        percent = [100 * value for value in values if value is not None]
        if percent:
            axes.plot(range(1, len(percent) + 1), percent, color=colour, linewidth=2, marker="o", markersize=4, label=label)
            lowest = min(lowest, *percent)
    axes.set(title="Accuracy, %", xlabel="epoch", ylim=(np.floor(lowest / 5) * 5 - 1, 100.8), xticks=range(1, len(history) + 1))
    axes.grid(True, axis="y")
    axes.legend(loc="lower right")


def draw_tiles(axes: Any, tiles: np.ndarray, columns: int, title: str, shades: str) -> None:
    """Images [n,h,w] as one mosaic."""
    axes.imshow(mosaic(tiles, columns), cmap=shades, interpolation="nearest", vmin=0, vmax=1)
    axes.set_anchor("W")
    axes.set_title(title)
    axes.axis("off")


def draw_confusion(axes: Any, counts: np.ndarray) -> None:
    """Counts in their cells; mistakes in red."""
    classes = len(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap=SHADES, vmin=0, vmax=1.25)
    axes.set_anchor("E")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if row == column and share[row, column] > 0.6 else WRONG if row != column else INK
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9, fontweight="bold" if row != column else "normal")
    axes.set(title="Confusion matrix, held-out images", xlabel="predicted", ylabel="true", xticks=range(classes), yticks=range(classes))
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color=GRID, linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_prediction(image_axes: Any, bar_axes: Any, image: np.ndarray, label: int, probabilities: np.ndarray) -> None:
    """One image with the three most probable classes; red where the first is wrong."""
    order = np.argsort(-probabilities, kind="stable")[:3]
    right = int(order[0]) == label
    image_axes.imshow(image, cmap="gray_r", interpolation="nearest")
    image_axes.set_title(f"{order[0]}" if right else f"{order[0]}, not {label}", loc="center", color=INK if right else WRONG)
    image_axes.axis("off")
    places = np.arange(len(order))
    bar_axes.barh(places, np.ones(len(order)), color=GRID, height=0.62)
    bar_axes.barh(places, probabilities[order], color=[TRAINING if right else WRONG, MUTED, MUTED], height=0.62)
    for place, index in enumerate(order):
        bar_axes.text(-0.08, place, str(index), ha="right", va="center", fontsize=9)
        bar_axes.text(1.06, place, f"{100 * probabilities[index]:.1f}", ha="left", va="center", fontsize=9, color=MUTED)
    bar_axes.set(xlim=(-0.3, 1.62), ylim=(2.6, -0.6))
    bar_axes.axis("off")


def overview(
    path: str | os.PathLike[str],
    title: str,
    subtitle: str,
    history: History,
    filters: np.ndarray,
    image: np.ndarray,
    feature_maps: Sequence[tuple[str, np.ndarray]],
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    shown: Sequence[tuple[str, Sequence[int]]],
) -> None:
    """One page, 1500 x 1180 pixels, as PNG.

    filters [n,r,s]; `image` [h,w] and its feature maps, (title, [n,h,w]) per layer; held-out images [n,h,w] with labels and
    probabilities [n,classes]; `shown` are groups, (title, numbers), of those whose predictions are drawn, ten or so in all.
    """
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 11.8), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        figure.text(0.04, 0.965, title, fontsize=19, fontweight="bold", va="center")
        figure.text(0.04, 0.938, subtitle, fontsize=11, color=MUTED, va="center")

        top = figure.add_gridspec(1, 3, left=0.065, right=0.97, top=0.885, bottom=0.60, wspace=0.2, width_ratios=(1.15, 0.85, 1))
        draw_loss(figure.add_subplot(top[0]), history)
        draw_accuracy(figure.add_subplot(top[1]), history)
        draw_confusion(figure.add_subplot(top[2]), confusion_matrix(labels, probabilities.argmax(1), probabilities.shape[1]))

        mosaics = [("Learned filters, first layer", filters, "RdBu_r"), *((name, maps, "viridis") for name, maps in feature_maps)]
        mosaics.insert(1, ("One image", image[None], "gray_r"))
        columns = [-(-len(tiles) // TILE_ROWS) for _, tiles, _ in mosaics]
        shares = [count / min(len(tiles), TILE_ROWS) for count, (_, tiles, _) in zip(columns, mosaics, strict=True)]
        middle = figure.add_gridspec(1, len(mosaics), left=0.04, right=0.97, top=0.515, bottom=0.315, wspace=0.22, width_ratios=shares)
        for place, (name, tiles, shades) in enumerate(mosaics):
            draw_tiles(figure.add_subplot(middle[place]), tiles, columns[place], name, shades)

        total = sum(len(group) for _, group in shown)
        bottom = figure.add_gridspec(2, total, left=0.035, right=0.975, top=0.225, bottom=0.03, height_ratios=(2, 1), wspace=0.12, hspace=0.1)
        column = 0
        for name, group in shown:
            figure.text(0.04 + 0.94 * column / total, 0.262, name, fontsize=11, fontweight="bold")
            for index in group:
                above, below = figure.add_subplot(bottom[0, column]), figure.add_subplot(bottom[1, column])
                draw_prediction(above, below, images[index], int(labels[index]), probabilities[index])
                column += 1
        figure.savefig(path, format="png")
