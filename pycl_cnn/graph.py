"""The graph: values computed by nodes, single assignment, static shapes and dtypes.

A value is written by exactly one node. Nodes without inputs are the leaves: an input of the program, a constant, or a
state (an array that the program keeps between runs: a parameter, a running statistic, an optimizer's slot). What a run
leaves behind in a state is named in `updates`.
Passes edit a graph by the moves `add`, `replace` and `match`; whatever no output or update needs any more is not there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .ops.base import Op, Spec
from .ops.leaf import Constant, Input, State


@dataclass(eq=False)
class Value:
    """One array in the graph."""

    shape: tuple[int, ...]
    dtype: np.dtype
    node: Node
    index: int
    users: list[Node] = field(default_factory=list)  # a node once for each time it reads the value

    @property
    def spec(self) -> Spec:
        return Spec(self.shape, self.dtype)

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    @property
    def op(self) -> Op:
        """What computes the value."""
        return self.node.op

    def __repr__(self) -> str:
        return f"<{self.node.label}{'' if self.index == 0 else f'.{self.index}'} {self.dtype}{list(self.shape)}>"


@dataclass(eq=False)
class Node:
    """One application of an operation."""

    op: Op
    inputs: tuple[Value, ...]
    order: tuple[float, int]  # where the node prefers to stand among those that are ready
    scope: str  # the module that asked for it, e.g. "layer1.0.conv1"
    outputs: tuple[Value, ...] = ()
    algorithm: Any = None  # chosen when a backend lowers the graph
    reason: str = ""  # why that one
    settled: Any = None  # what the algorithm chose for this node once and for all

    @property
    def label(self) -> str:
        name = type(self.op).__name__
        return f"{self.scope}:{name}" if self.scope else name


class Graph:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.states: dict[str, Value] = {}
        self.updates: dict[Value, Value] = {}
        self._serial = 0
        self._scope = ""
        self._order: float | None = None
        self._edits = 0
        self._ordered: tuple[tuple[int, list[Value], list[Value]], list[Node]] | None = None

    @property
    def serial(self) -> int:
        """How many nodes were ever added: the last one's serial number, ``node.order[1]``."""
        return self._serial

    # ---- building -------------------------------------------------------------------------------------------------

    def add(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Append a node; its outputs. The operation checks the inputs' shapes."""
        specs = op.infer(*(value.spec for value in inputs))
        self._serial += 1
        order = (self._serial if self._order is None else self._order, self._serial)
        node = Node(op, inputs, order, self._scope)
        node.outputs = tuple(Value(spec.shape, spec.dtype, node, index) for index, spec in enumerate(specs))
        for value in inputs:
            value.users.append(node)
        self._edits += 1
        return node.outputs

    def apply(self, op: Op, *inputs: Value) -> Value:
        """Append a node with one output; that output."""
        return self.add(op, *inputs)[0]

    def input(self, name: str, shape: Sequence[int], dtype: Any = np.float32) -> Value:
        value = self.apply(Input(name, tuple(shape), np.dtype(dtype).name))
        self.inputs.append(value)
        return value

    def constant(self, array: Any) -> Value:
        return self.apply(Constant(np.asarray(array)))

    def state(self, state: State) -> Value:
        """The value of `state`, one per name."""
        if state.label not in self.states:
            self.states[state.label] = self.apply(state)
        return self.states[state.label]

    @contextmanager
    def at(self, node: Node) -> Iterator[None]:
        """Nodes added inside stand where `node` stands and belong to its scope: for passes."""
        saved = self._scope, self._order
        self._scope, self._order = node.scope, node.order[0]
        try:
            yield
        finally:
            self._scope, self._order = saved

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes added inside belong to the module `name`."""
        saved = self._scope
        self._scope = name
        try:
            yield
        finally:
            self._scope = saved

    # ---- reading --------------------------------------------------------------------------------------------------

    def roots(self) -> list[Value]:
        """The values that the program is run for."""
        return [*self.outputs, *self.updates.values()]

    def nodes(self) -> list[Node]:
        """All nodes that a root needs, inputs before users; among ready nodes the one with the least `order` first."""
        state = (self._edits, self.roots(), list(self.inputs))
        if self._ordered is None or self._ordered[0] != state:
            self._ordered = state, self._sorted()
        return list(self._ordered[1])

    def _sorted(self) -> list[Node]:
        needed: dict[Node, None] = {}
        stack = [value.node for value in [*self.roots(), *self.inputs]]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed[node] = None
                stack.extend(value.node for value in node.inputs)
        missing = {node: len(node.inputs) for node in needed}
        users: dict[Node, list[Node]] = {node: [] for node in needed}
        for node in needed:
            for value in node.inputs:
                users[value.node].append(node)
        ready = [(node.order, node) for node, count in missing.items() if count == 0]
        heapq.heapify(ready)
        ordered = []
        while ready:
            _, node = heapq.heappop(ready)
            ordered.append(node)
            for user in users[node]:
                missing[user] -= 1
                if missing[user] == 0:
                    heapq.heappush(ready, (user.order, user))
        return ordered

    def is_root(self, value: Value) -> bool:
        return any(value is root for root in self.roots())

    def sole_user(self, value: Value) -> Node | None:
        """The one node that reads `value` once, when nothing else does and it is no result."""
        if len(value.users) == 1 and not self.is_root(value):
            return value.users[0]
        return None

    def match(self, *kinds: type[Op]) -> Iterator[tuple[Node, ...]]:
        """Chains of nodes of these kinds in which each link is read by the next one alone, through any of its inputs."""
        for node in self.nodes():
            chain = [node]
            for kind, following in zip(kinds, [*kinds[1:], None], strict=True):
                if not isinstance(chain[-1].op, kind):
                    break
                if following is None:
                    yield tuple(chain)
                    break
                user = self.sole_user(chain[-1].outputs[0])
                if user is None:
                    break
                chain.append(user)

    # ---- editing --------------------------------------------------------------------------------------------------

    def replace(self, old: Value, new: Value) -> None:
        """Let everything that reads `old` read `new`."""
        if old is new:
            return
        self._edits += 1
        for user in list(dict.fromkeys(old.users)):
            if user is new.node:
                continue
            count = sum(value is old for value in user.inputs)
            user.inputs = tuple(new if value is old else value for value in user.inputs)
            new.users.extend([user] * count)
            old.users = [other for other in old.users if other is not user]
        self.outputs = [new if value is old else value for value in self.outputs]
        self.updates = {state: new if value is old else value for state, value in self.updates.items()}
        self.states = {name: new if value is old else value for name, value in self.states.items()}
        if not old.users:
            self.release(old.node)

    def rewire(self, node: Node, index: int, value: Value) -> None:
        """Let `node` read `value` as its input `index`, in the form that its algorithm wants (packed, padded)."""
        self._edits += 1
        node.inputs[index].users.remove(node)
        node.inputs = (*node.inputs[:index], value, *node.inputs[index + 1 :])
        value.users.append(node)

    def extend(self, node: Node, *values: Value) -> None:
        """Give `node` further inputs, which its algorithm reads (tables)."""
        self._edits += 1
        node.inputs = (*node.inputs, *values)
        for value in values:
            value.users.append(node)

    def prune(self) -> None:
        """Forget every node that no root needs."""
        needed = self.nodes()
        for node in needed:
            for output in node.outputs:
                output.users = []
        for node in needed:
            for value in node.inputs:
                value.users.append(node)
        self.states = {name: value for name, value in self.states.items() if value.users or self.is_root(value)}

    def release(self, node: Node) -> None:
        """Forget a node that nothing reads any more, and what only it needed."""
        stack = [node]
        while stack:
            node = stack.pop()
            if any(output.users or self.is_root(output) for output in node.outputs) or isinstance(node.op, Input | State):
                continue
            for value in dict.fromkeys(node.inputs):
                value.users = [user for user in value.users if user is not node]
                stack.append(value.node)
            node.inputs = ()
            self._edits += 1


class FixedNodes:
    """The nodes that depend only on constants and on states that no run updates: what can be computed once.

    ``node in fixed`` also answers for nodes that are added later.
    """

    def __init__(self, graph: Graph) -> None:
        self._updates = graph.updates
        self._known: dict[Node, bool] = {}

    def __contains__(self, node: Node) -> bool:
        open_nodes, known = [node], self._known
        while open_nodes:
            top = open_nodes[-1]
            unknown = [value.node for value in top.inputs if value.node not in known]
            if unknown and top not in known:
                open_nodes.extend(unknown)
                continue
            open_nodes.pop()
            if top in known:
                continue
            if isinstance(top.op, State):
                known[top] = top.outputs[0] not in self._updates
            else:
                known[top] = isinstance(top.op, Constant) or (bool(top.inputs) and all(known[value.node] for value in top.inputs))
        return known[node]
