"""Parameters are stored the way they are used: a reshape or transpose of a state becomes part of how it is stored.

Optimizers work element by element, so they do not mind. The user's layout is restored at the door (State.moves).
"""

from __future__ import annotations

from ..graph import Graph
from ..ops.leaf import State
from ..ops.movement import Reshape, Transpose


def relay_states(graph: Graph) -> None:
    """Absorb the moves that are the only use of a state."""
    for name, value in list(graph.states.items()):
        while True:
            move = graph.sole_user(value)
            if move is None or not isinstance(move.op, Reshape | Transpose):
                break
            assert isinstance(value.op, State)
            with graph.at(value.node):
                stored = graph.apply(value.op.moved(move.op))
            graph.states[name] = stored
            graph.replace(move.outputs[0], stored)
            value = stored
