"""What is computed from nothing is known: the sum over no images is zero, the weight gradient of an empty batch as well.

So backends never meet an operation without input elements (those without output elements have no step in a plan).
"""

from __future__ import annotations

import numpy as np

from ..graph import Graph
from ..ops.leaf import Constant


def fold_empty(graph: Graph) -> None:
    """Replace results of operations whose inputs are all without elements by constants."""
    for node in graph.nodes():
        if node.inputs and all(value.nbytes == 0 for value in node.inputs) and any(output.nbytes for output in node.outputs):
            arrays = (value.op.array if isinstance(value.op, Constant) else np.zeros(value.shape, value.dtype) for value in node.inputs)
            with np.errstate(all="ignore"):
                results = node.op.reference(*arrays)
            with graph.at(node):
                for old, result in zip(node.outputs, results, strict=True):
                    graph.replace(old, graph.constant(np.asarray(result, old.dtype)))
