"""The graph: order, uses, and the moves by which passes edit it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.catalogue import array
from helpers.graphs import operations, trace
from hypothesis import given
from hypothesis import strategies as st

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn.graph import FixedNodes, Graph
from pycl_cnn.ops.leaf import State
from pycl_cnn.ops.pointwise import Activation, Binary, Unary

RELU, NEG = Unary(Activation("relu")), Unary(Activation("neg"))


def uses_agree(graph):
    """Every value's users are exactly the nodes that read it, once for each time."""
    nodes = graph.nodes()
    for node in nodes:
        for output in node.outputs:
            reads = [reader for reader in nodes for value in reader.inputs if value is output]
            assert sorted(map(id, output.users)) == sorted(map(id, reads))


def diamond():
    graph = Graph()
    x = graph.input("x", (3,))
    left, right = graph.apply(RELU, x), graph.apply(NEG, x)
    graph.outputs = [graph.apply(Binary("add"), left, right)]
    return graph, x, left, right


def test_nodes_come_after_what_they_read():
    graph, *_ = diamond()
    assert operations(graph) == ["Unary", "Unary", "Binary"]
    seen = set()
    for node in graph.nodes():
        assert all(value.node in seen for value in node.inputs)
        seen.add(node)
    uses_agree(graph)


def test_what_no_root_needs_is_not_there():
    graph, x, left, _ = diamond()
    graph.apply(NEG, left)
    assert len(operations(graph)) == 3
    graph.prune()
    uses_agree(graph)
    assert len(x.users) == 2


def test_replace_redirects_every_reader_and_result():
    graph, x, left, right = diamond()
    new = graph.apply(NEG, x)
    graph.replace(left, new)
    graph.replace(right, new)
    (total,) = graph.outputs
    assert total.node.inputs == (new, new) and new.users == [total.node, total.node]
    graph.replace(total, new)
    assert graph.outputs == [new]
    uses_agree(graph)


def test_replace_with_a_value_computed_from_the_old_one():
    """As when something is inserted behind a value: the inserted node goes on reading the old one."""
    graph, _, left, _ = diamond()
    inserted = graph.apply(NEG, left)
    graph.replace(left, inserted)
    assert inserted.node.inputs == (left,) and graph.outputs[0].node.inputs[0] is inserted
    uses_agree(graph)


def test_a_value_read_twice_or_handed_out_has_no_sole_user():
    graph = Graph()
    x = graph.input("x", (3,))
    a = graph.apply(RELU, x)
    graph.outputs = [graph.apply(Binary("mul"), a, a), x]
    assert graph.sole_user(a) is None and graph.sole_user(x) is None
    assert graph.is_root(x) and not graph.is_root(a)


def test_match_finds_chains_whose_links_have_one_reader():
    graph = Graph()
    x = graph.input("x", (3,))
    first = graph.apply(Binary("add"), x, x)
    second = graph.apply(Binary("add"), x, first)
    graph.outputs = [graph.apply(RELU, first), graph.apply(RELU, second)]
    found = list(graph.match(Binary, Unary))
    assert [chain[0].outputs[0] for chain in found] == [second]


def test_rewire_and_extend_keep_the_uses():
    graph, x, left, right = diamond()
    node = graph.outputs[0].node
    graph.rewire(node, 1, left)
    assert node.inputs == (left, left) and right.users == []
    graph.extend(node, x)
    assert node.inputs == (left, left, x) and node in x.users


def test_a_state_appears_once():
    graph = Graph()
    state = State.plain("w", (3,), True)
    assert graph.state(state) is graph.state(State.plain("w", (3,), True))
    assert list(graph.states) == ["w"]


def test_scopes_name_the_module_that_asked():
    graph = Graph()
    x = graph.input("x", (3,))
    with graph.scope("block.conv"):
        y = graph.apply(RELU, x)
    with graph.at(y.node):
        z = graph.apply(NEG, x)
    assert y.node.scope == z.node.scope == "block.conv" and y.node.label == "block.conv:Unary"
    assert z.node.order[0] == y.node.order[0] and graph.apply(NEG, x).node.scope == ""


def test_a_node_inserted_at_another_stands_where_that_one_stood():
    graph = Graph()
    x = graph.input("x", (3,))
    first = graph.apply(RELU, x)
    second = graph.apply(NEG, first)
    with graph.at(first.node):
        inserted = graph.apply(NEG, x)
    graph.outputs = [second, inserted]
    assert [node.outputs[0] for node in graph.nodes() if node.inputs] == [first, inserted, second]


@given(data=st.data())
def test_random_edits_keep_uses_and_order(data):
    graph = Graph()
    values = [graph.input("x", (2,))]
    for _ in range(data.draw(st.integers(1, 8))):
        picked = [data.draw(st.sampled_from(values)) for _ in range(2)]
        values.append(graph.apply(Binary("add"), *picked) if data.draw(st.booleans()) else graph.apply(NEG, picked[0]))
    graph.outputs = [values[-1]]
    graph.prune()
    inner = [value for value in values[1:-1] if value.node in graph.nodes()]
    if inner:
        graph.replace(data.draw(st.sampled_from(inner)), values[0])
    graph.prune()
    uses_agree(graph)


def test_what_is_fixed_is_asked_for_deep_chains_too():
    """Deeper than Python's stack; what an input reaches is not fixed, nor is a state that runs update."""
    graph = Graph()
    constant, state, x = graph.constant(np.ones(2, np.float32)), graph.state(State("w", (2,), (2,))), graph.input("x", (2,))
    chains = [constant, state, x]
    for _ in range(3000):
        chains = [graph.apply(Unary(Activation("relu")), value) for value in chains]
    graph.outputs = chains
    assert [value.node in FixedNodes(graph) for value in chains] == [True, True, False]
    graph.updates[state] = chains[0]
    assert [value.node in FixedNodes(graph) for value in chains] == [True, False, False]


def test_a_symbol_has_a_shape_but_no_elements():
    def function(x):
        assert (x.shape, x.ndim, len(x), x.size(1)) == ((2, 3), 2, 2, 3)
        assert repr(x) == "Symbol(float32[2, 3])"
        with pytest.raises(TypeError, match="no truth value"):
            bool(x)
        with pytest.raises(TypeError, match=r"use pycl_cnn\.functional instead of NumPy"):
            np.asarray(x)
        return np.ones((2, 3), np.float32) - x.transpose(0, 1).reshape(2, 3)

    (y,) = trace(function, array(2, 3)).reference()
    np.testing.assert_allclose(y, 1 - array(2, 3).T.reshape(2, 3))


def test_a_foreign_parameter_is_refused_in_a_trace():
    stray = pc.nn.Parameter(array(3))

    class Model(pc.nn.Module):
        def __init__(self):
            self.hidden = [stray]  # a list hides it from the model

        def forward(self, x):
            return F.mul(x, self.hidden[0])

    with pytest.raises(pc.ShapeError, match="belongs to no module of the traced model"):
        Model()(array(2, 3), device="reference")
