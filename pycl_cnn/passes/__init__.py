"""Rewrites of the graph, one per file, and the order in which they are applied.

Two stages, because gradients are taken between them: `canonical` settles layouts while the graph is still the user's,
`optimised` folds and fuses what is left.
"""

from __future__ import annotations

from ..graph import Graph
from .fold_affine import fold_affine
from .fold_empty import fold_empty
from .fuse_activation import fuse_activation
from .fuse_epilogue import fuse_epilogue
from .layout import fold_flatten, settle_layout
from .states import relay_states


def canonical(graph: Graph, training: bool = False) -> Graph:
    """Channels last throughout. Before gradients are taken.

    For `training` parameters are stored as they are used, so that no step moves them; otherwise the moves are done once, when
    weights are loaded, by the device.
    """
    if training:
        relay_states(graph)
    settle_layout(graph, redraw=True)
    fold_flatten(graph)
    if training:
        relay_states(graph)
    graph.prune()
    return graph


def optimised(graph: Graph) -> Graph:
    """Fold and fuse. After gradients are taken, before a backend lowers the graph."""
    graph.prune()
    settle_layout(graph, redraw=False)
    fold_empty(graph)
    fold_affine(graph)
    fuse_epilogue(graph)
    fuse_activation(graph)
    graph.prune()
    return graph
