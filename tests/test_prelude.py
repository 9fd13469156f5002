"""What depends on weights alone is computed by the native backend, and OpenCL compiles no kernel for it."""

import numpy as np
import pytest
from helpers.catalogue import array

import pycl_cnn as pc
import pycl_cnn.functional as F
from pycl_cnn import nn
from pycl_cnn.backends.prelude import cut_off
from pycl_cnn.graph import Graph
from pycl_cnn.ops.leaf import State
from pycl_cnn.ops.movement import Reshape, Transpose
from pycl_cnn.ops.pointwise import Binary


class Scaled(nn.Module):
    """A result that depends on a weight alone, beside one that depends on the input."""

    def __init__(self):
        self.weight = nn.Parameter(array(3, 4))

    def forward(self, x):
        return F.matmul(x, F.tanh(self.weight)), F.exp(self.weight)


def folded():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    model.load_state_dict({name: array(*value.shape, seed=len(name), low=0.5) for name, value in model.state_dict().items()})
    return model


def test_weights_are_prepared_on_the_host_and_packed_on_the_device(device):
    if device.backend != "opencl":
        pytest.skip("a backend that compiles nothing prepares weights itself")
    program = pc.compile(folded(), (1, 3, 6, 6), device=device)
    operations = {type(step.node.op).__name__ for step in program.plan.setup}
    assert operations <= {"PackPanels", "TransformFilters"}, operations
    assert {"Binary mul", "Transpose"} <= {step.operation for step in program.setup_steps}
    assert all(name.startswith("prelude.") for name in program.plan.graph.states)


def test_results_that_depend_on_weights_alone(device):
    model, x = Scaled(), array(2, 3)
    program = pc.compile(model, x.shape, device=device)
    product, power = program.clone().run(x)
    np.testing.assert_allclose(product, x @ np.tanh(model.weight.data), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(power, np.exp(model.weight.data), rtol=1e-5)
    program.load({"weight": 0 * model.weight.data})
    product, power = program.run(x)
    assert (product == 0).all() and (power == 1).all()


@pytest.mark.parametrize("fault", ["missing", "must keep its shape"])
def test_a_weight_that_does_not_fit_is_named(device, fault):
    program = pc.compile(folded(), (1, 3, 6, 6), device=device)
    states = dict(folded().state_dict())
    states["1.running_var"] = np.zeros(7, np.float32)
    if fault == "missing":
        del states["1.running_var"]
    with pytest.raises(pc.ShapeError, match=rf"1\.running_var.*{fault}"):
        program.load(states)


def test_views_and_updated_states_stay():
    graph = Graph()
    x = graph.input("x", (6,))
    viewed, moved, updated = (graph.state(State.plain(name, (2, 3))) for name in ("viewed", "moved", "updated"))
    flat = [graph.apply(Reshape((6,)), value) for value in (viewed, graph.apply(Transpose((1, 0)), moved), updated)]
    graph.outputs = [graph.apply(Binary("add"), x, value) for value in flat]
    graph.updates[updated] = graph.apply(Binary("add"), updated, updated)
    prelude = cut_off(graph)
    assert prelude is not None and set(prelude.states) == {"viewed", "moved"}
    assert set(graph.states) == {"updated", *prelude.names}
    results = prelude.results({"viewed": np.ones((2, 3)), "moved": np.arange(6.0).reshape(2, 3), "updated": None})
    np.testing.assert_array_equal(np.sort(np.concatenate(list(results.values()))), [0, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 5])


def test_nothing_is_cut_off_where_weights_are_used_as_they_are():
    graph = Graph()
    graph.outputs = [graph.apply(Binary("add"), graph.input("x", (3,)), graph.state(State.plain("w", (3,))))]
    assert cut_off(graph) is None and set(graph.states) == {"w"}
