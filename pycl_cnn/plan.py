"""The plan: steps in order, and where every value lives. Peak memory is known before a byte is allocated.

Steps that depend only on constants and on states that no run updates (folded batch norms, packed weights) are done once, in
`setup`; the others are done at every run. What lives only within a run shares one arena: a value's place is free again after
its last reader, views share their source's place, and an operation may take over the place of an input it reads last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from .graph import FixedNodes, Graph, Node, Value
from .ops.leaf import Constant, Input, State
from .ops.movement import Copy, Reshape

ALIGNMENT = 64


class Kind(Enum):
    """Where a value's storage comes from."""

    INPUT = "input"  # given at every run
    OUTPUT = "output"  # handed out at every run
    STATE = "state"  # kept between runs
    CONSTANT = "constant"  # known when the program is made
    SETUP = "setup"  # computed once by the setup steps
    SCRATCH = "scratch"  # read by setup steps only, given back afterwards
    ARENA = "arena"  # shared within a run


@dataclass(eq=False)
class Storage:
    """A piece of memory that one or several values (views, in-place results) live in."""

    kind: Kind
    nbytes: int
    value: Value  # the first to live there
    arena: int = 0  # which of the arenas it lies in,
    offset: int = 0  # and where, in bytes
    first: int = -1  # step that writes it
    last: int = -1  # step that reads it last


@dataclass(eq=False)
class Step:
    """One node to be executed, with its workspace."""

    node: Node
    workspace: Storage | None = None
    follows: bool = False  # goes on with what the step before does, piece by piece

    @property
    def once(self) -> bool:
        """Whether the host does it when weights are loaded (Algorithm.once)."""
        return self.node.algorithm is not None and bool(self.node.algorithm.once)


@dataclass(eq=False)
class Plan:
    """See the module's docstring."""

    graph: Graph
    setup: list[Step] = field(default_factory=list)
    run: list[Step] = field(default_factory=list)
    places: dict[Value, Storage] = field(default_factory=dict)
    #: Bytes of every arena: one, or as many as pieces of limited size make necessary.
    arenas: list[int] = field(default_factory=list)
    setup_arenas: list[int] = field(default_factory=list)  # of the setup steps, given back afterwards

    @property
    def arena_bytes(self) -> int:
        return sum(self.arenas)

    @property
    def setup_bytes(self) -> int:
        return sum(self.setup_arenas)

    @property
    def storages(self) -> list[Storage]:
        return list(dict.fromkeys(self.places.values()))

    def nbytes(self, *kinds: Kind) -> int:
        """Bytes of all storage of these kinds; the arena counts once."""
        total = sum(storage.nbytes for storage in self.storages if storage.kind in kinds and storage.kind is not Kind.ARENA)
        return total + (self.arena_bytes if Kind.ARENA in kinds else 0)


def protect(graph: Graph) -> None:
    """Copy what must not share its place: before algorithms are chosen, since a copy is a node like any other.

    A result must not be a view of an input, a state, what is computed once, something updated in place, or another result. An
    operation that updates in place gets a copy to write to, unless what it updates is a state that the run leaves so.
    """
    in_place: set[Value] = set()
    for state, new in graph.updates.items():
        while new is not state and new.index in new.op.aliases:  # a batch norm applied twice updates twice
            in_place.add(new)
            new = new.node.inputs[new.op.aliases[new.index]]
    for node in graph.nodes():
        for output, source in node.op.aliases.items():
            if node.outputs[output] not in in_place:
                with graph.at(node):
                    graph.rewire(node, source, graph.apply(Copy(), node.inputs[source]))
    taken: set[Value] = set()
    fixed = FixedNodes(graph)
    for index, value in enumerate(graph.outputs):
        root = _root(value)
        if isinstance(root.op, Input | State) or root.node in fixed or root in taken or root.index in root.op.aliases:
            with graph.at(value.node):
                graph.outputs[index] = graph.apply(Copy(), value)
        taken.add(root)


def followed(node: Node) -> Node | None:
    """The node that `node` would like to follow at once (Algorithm.follows)."""
    return node.algorithm.follows(node) if node.algorithm is not None else None


def ordered_steps(graph: Graph) -> list[Node]:
    """Nodes in execution order: what follows a node's work comes at once where it can; an update in place waits for every other reader of its state,
    and then comes at once."""
    nodes = [node for node in graph.nodes() if node.inputs]
    writers = {node: [node.inputs[source] for source in node.op.aliases.values()] for node in nodes if node.op.aliases}
    readers: dict[Node, set[Node]] = {}
    for node, states in writers.items():
        readers[node] = {user for state in states for user in _readers(state) if user is not node}
    done: set[Node] = set()
    ordered: list[Node] = []
    waiting: list[Node] = []

    known = set(nodes)
    followers: dict[Node, Node] = {}
    for node in nodes:
        leader = followed(node)
        if leader is not None:
            followers.setdefault(leader, node)

    def blocked(node: Node) -> bool:
        return node in writers and any(reader in known and reader not in done for reader in readers[node])

    def emit(node: Node) -> None:
        ordered.append(node)
        done.add(node)
        follower = followers.get(node)
        if follower is not None and not blocked(follower) and all(v.node in done or v.node not in known for v in follower.inputs):
            emit(follower)

    for node in nodes:
        if node in done:
            continue
        if blocked(node):
            waiting.append(node)
            continue
        emit(node)
        for held in [w for w in waiting if not blocked(w)]:
            waiting.remove(held)
            emit(held)
    if waiting:
        raise AssertionError(f"updates wait for each other: {[node.label for node in waiting]}")
    return ordered


def _readers(state: Value) -> list[Node]:
    """Nodes that read a state, directly or through views."""
    found: list[Node] = []
    for user in state.users:
        found.append(user)
        if isinstance(user.op, Reshape):
            found.extend(_readers(user.outputs[0]))
    return found


def does_work(node: Node) -> bool:
    """Whether there is anything to do for `node`: it is neither a leaf nor a view, and its results have elements."""
    return bool(node.inputs) and not isinstance(node.op, Reshape) and any(output.nbytes for output in node.outputs)


def make_plan(graph: Graph, workspace: Callable[[Node], int], largest: int = 0) -> Plan:
    """Order the nodes of a protected graph, find every value a place, lay out the arena. `workspace` gives a node's extra bytes.

    With `largest` no piece of memory that several values share is longer than that many bytes: there may be several arenas.
    """
    plan = Plan(graph)
    known = FixedNodes(graph)
    results = {_root(value).node for value in graph.outputs}  # copies of what is computed once are made at every run
    fixed = {node for node in graph.nodes() if node in known and node not in results}
    nodes = ordered_steps(graph)
    for node in nodes:
        if does_work(node):
            (plan.setup if node in fixed else plan.run).append(Step(node))
    _place(plan, fixed, nodes)
    for index, step in enumerate(plan.run):
        step.follows = index > 0 and followed(step.node) is plan.run[index - 1].node
        extra = workspace(step.node)
        if extra:
            step.workspace = Storage(Kind.ARENA, extra, step.node.outputs[0], first=index - step.follows, last=index)
    for index, step in enumerate(plan.setup):
        extra = workspace(step.node)
        if extra:
            step.workspace = Storage(Kind.SCRATCH, extra, step.node.outputs[0], first=index, last=index)
    plan.arenas = _lay_out([s for s in plan.storages if s.kind is Kind.ARENA] + [s.workspace for s in plan.run if s.workspace], largest)
    computed = [s for s in plan.storages if s.kind is Kind.SCRATCH and s.value.node.inputs]
    plan.setup_arenas = _lay_out(computed + [s.workspace for s in plan.setup if s.workspace], largest)
    return plan


def _place(plan: Plan, fixed: set[Node], nodes: Sequence[Node]) -> None:
    graph = plan.graph
    places = plan.places
    for value in [*graph.inputs, *graph.states.values()]:
        kind = Kind.INPUT if isinstance(value.op, Input) else Kind.STATE
        places[value] = Storage(kind, value.nbytes, value)
    for node in graph.nodes():
        if isinstance(node.op, Constant):
            places[node.outputs[0]] = Storage(Kind.CONSTANT, node.outputs[0].nbytes, node.outputs[0])
    position = {step.node: index for index, step in enumerate(plan.run)}
    last_read = _last_reads(plan.run)
    setup_position = {step.node: index for index, step in enumerate(plan.setup)}
    setup_read = _last_reads(plan.setup)
    output_roots = {_root(value) for value in graph.outputs}
    for node in nodes:
        if isinstance(node.op, Reshape):
            places[node.outputs[0]] = places[node.inputs[0]]
            continue
        for output in node.outputs:
            if output.index in node.op.aliases:
                places[output] = places[node.inputs[node.op.aliases[output.index]]]
                continue
            if node in fixed:
                kind = Kind.SETUP if output in last_read else Kind.SCRATCH
                first = setup_position.get(node, 0)  # likewise without work below
                storage = _taken_over(node, output, places, first, kind) if output.index == 0 and kind is Kind.SCRATCH else None
                if storage is None:
                    storage = Storage(kind, output.nbytes, output, first=first)
                storage.last = max(storage.last, setup_read.get(output, first), first)
                places[output] = storage
                continue
            index = position.get(node, 0)  # without work it has no step, and its results no bytes
            last = max(last_read.get(output, index), index)
            if output in output_roots:
                places[output] = Storage(Kind.OUTPUT, output.nbytes, output)
                continue
            storage = _taken_over(node, output, places, index, Kind.ARENA) if output.index == 0 else None
            if storage is None:
                storage = Storage(Kind.ARENA, output.nbytes, output, first=index)
            storage.last = max(storage.last, last)
            places[output] = storage
    # A state that only setup steps read need not stay on the device.
    for value in graph.states.values():
        if value not in graph.updates and value not in last_read:
            places[value].kind = Kind.SCRATCH
    for value, storage in places.items():
        if isinstance(value.op, Constant) and value not in last_read:
            storage.kind = Kind.SCRATCH


def _root(value: Value) -> Value:
    while isinstance(value.op, Reshape):
        value = value.node.inputs[0]
    return value


def _last_reads(steps: Sequence[Step]) -> dict[Value, int]:
    """For every root value the last of the steps that reads it, through views as well."""
    last: dict[Value, int] = {}
    for index, step in enumerate(steps):
        for value in step.node.inputs:
            last[_root(value)] = index
    return last


def _taken_over(node: Node, output: Value, places: dict[Value, Storage], index: int, kind: Kind) -> Storage | None:
    """The storage of an input, of this kind, that `node` is the last to read and may write over."""
    for source in node.op.reuses:
        if source >= len(node.inputs):
            continue
        storage = places[node.inputs[source]]
        others = [places[value] for i, value in enumerate(node.inputs) if i != source]
        if storage.kind is kind and storage.nbytes == output.nbytes and storage.last == index and storage not in others:
            return storage
    return None


def _lay_out(storages: list[Storage], largest: int) -> list[int]:
    """Places in shared arenas, largest storage first, each into the smallest gap that it fits; every arena's bytes.

    (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020: greedy by size.)
    """
    arenas: list[list[Storage]] = []
    for storage in sorted(storages, key=lambda s: (-s.nbytes, s.first)):
        places = ((number, _gap(storage, placed)) for number, placed in enumerate(arenas))
        fitting = ((number, offset) for number, offset in places if not largest or _aligned(offset + storage.nbytes) <= largest)
        storage.arena, storage.offset = next(fitting, (len(arenas), 0))
        if storage.arena == len(arenas):
            arenas.append([])
        arenas[storage.arena].append(storage)
    return [max(_aligned(storage.offset + storage.nbytes) for storage in placed) for placed in arenas]


def _gap(storage: Storage, placed: Sequence[Storage]) -> int:
    """Where `storage` fits best among others, or behind them."""
    overlapping = sorted((p for p in placed if p.first <= storage.last and storage.first <= p.last), key=lambda p: p.offset)
    best, best_gap, position = None, None, 0
    for other in overlapping:
        gap = other.offset - position
        if gap >= storage.nbytes and (best_gap is None or gap < best_gap):
            best, best_gap = position, gap
        position = max(position, _aligned(other.offset + other.nbytes))
    return position if best is None else best


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
