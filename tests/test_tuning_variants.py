"""Search spaces of OpenCL kernels: their rules, and that every variant gives right results."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from helpers.tolerance import assert_within, sum_bound
from helpers.tuning import CPU, FAMILIES, GPU, SMALL_GPU, limits_of
from hypothesis import given
from hypothesis import strategies as st

from pycl_cnn.backends import backend
from pycl_cnn.backends.opencl.call import device_context
from pycl_cnn.backends.opencl.conv_weight_gradient import WEIGHT_GRADIENT
from pycl_cnn.backends.opencl.tiles import PRODUCT, product_problem
from pycl_cnn.geometry import ConvGeometry
from pycl_cnn.graph import Graph
from pycl_cnn.ops.conv import Conv, ConvBackwardInput, ConvBackwardWeight
from pycl_cnn.ops.leaf import State
from pycl_cnn.ops.matmul import MatMul
from pycl_cnn.passes import optimised
from pycl_cnn.tuning.space import Limits, Problem, Variant

SIZES = st.integers(1, 5000)
LIMITS = st.builds(
    Limits,
    is_gpu=st.booleans(),
    width=st.sampled_from([4, 8, 16]),
    broken_widths=st.just(()),
    max_work_group=st.sampled_from([1, 16, 64, 128, 256, 1024]),
    max_work_item_sizes=st.sampled_from([(1, 1, 1), (64, 64, 64), (1024, 1024, 64)]),
    local_memory=st.sampled_from([0, 16 << 10, 32 << 10, 64 << 10]),
).map(lambda limits: replace(limits, width=4) if limits.is_gpu else limits)


@pytest.mark.parametrize("name", FAMILIES)
@given(sizes=st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES, SIZES), limits=LIMITS)
def test_what_is_chosen_without_knowledge_is_allowed(name, sizes, limits):
    family, names = FAMILIES[name]
    problem = Problem.of(name, **dict(zip(names, sizes, strict=False)))
    assert family.broken(family.default(problem, limits), problem, limits) is None
    assert Problem.parse(name, problem.key) == problem


def test_only_variants_that_the_device_can_run_are_offered():
    problem = product_problem(3136, 64, 64, 9, 1)
    offered = list(PRODUCT.variants(problem, SMALL_GPU))
    assert {variant.kernel for variant in offered} == {"conv_igemm", "conv_igemm_tiled"}
    for v in offered:
        if v.kernel == "conv_igemm":
            assert v["LANES"] <= 64 and v["WORK"] == 0
            continue
        assert v["COLUMNS"] * v["LINES"] <= 64
        x_tile, w_tile = v["STEP"] * (v["MR"] * v["LINES"] + 4), v["STEP"] * v["NV"] * v["VEC"] * v["COLUMNS"]
        assert 4 * v["BUFFERS"] * (x_tile + w_tile) <= 8 << 10
        assert (v["COLUMNS"] * v["LINES"]) % (v["STEP"] // v["VEC"]) == 0
    assert all(variant.kernel == "conv_igemm" for variant in PRODUCT.variants(problem, CPU))
    narrow = replace(CPU, width=16, broken_widths=(16,))
    assert {variant["VEC"] for variant in PRODUCT.variants(problem, narrow)} == {4, 8}
    gradients = list(WEIGHT_GRADIENT.variants(Problem.of("weight_gradient", pixels=9, outs=3, reds=5, taps=1, groups=1), CPU))
    assert gradients and all(v["MO"] <= 3 and v["VEC"] * v["NV"] <= 5 for v in gradients)


def test_a_rule_that_is_broken_is_named():
    problem = product_problem(10, 10, 10, 1, 1)
    good = PRODUCT.default(problem, CPU)
    assert "registers" in str(PRODUCT.broken(good.but("MR", 14).but("NV", 3), problem, CPU))
    assert "MR is one of" in str(PRODUCT.broken(good.but("MR", 99), problem, CPU))
    assert "the parameters are" in str(PRODUCT.broken(Variant.of("conv_igemm", MR=1), problem, CPU))
    assert "is done by" in str(PRODUCT.broken(Variant.of("fft"), problem, CPU))
    tiled = PRODUCT.default(problem, GPU)
    assert "bytes of local memory" in str(PRODUCT.broken(tiled, problem, replace(GPU, local_memory=1000)))


RNG = np.random.default_rng(5)


def _operands(*shapes):
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


def _conv(c, k, size, groups=1, stride=1, kernel=3):
    return ConvGeometry.forward("tune", (2, *size, c), (k, kernel, kernel, c // groups), stride, kernel // 2, 1, groups)


G, DEEP, PLAIN = _conv(37, 35, (7, 6), stride=2), _conv(19, 19, (7, 9), groups=19), _conv(37, 35, (9, 6))
FIRST = _conv(3, 35, (19, 23), stride=2, kernel=7)
#: operation, its algorithm, shapes of its operands, products of an output element
WORK = {
    "conv": (Conv(G), "igemm", (G.input_shape, G.weight_shape), G.reduction),
    "input gradient": (ConvBackwardInput(G), "igemm", (G.output_shape, G.weight_shape), 9 * 35),
    "matmul": (MatMul(False, True), "igemm", ((33, 41), (37, 41)), 41),
    "weight gradient": (ConvBackwardWeight(G), "weight_gradient", (G.input_shape, G.output_shape), 2 * G.out[0] * G.out[1]),
    "outer products": (MatMul(True, False), "outer_products", ((41, 33), (41, 37)), 41),
    "depthwise": (Conv(DEEP), "depthwise", (DEEP.input_shape, DEEP.weight_shape), 9),
    "depthwise input gradient": (ConvBackwardInput(DEEP), "depthwise", (DEEP.output_shape, DEEP.weight_shape), 9),
    "winograd": (Conv(PLAIN), "winograd", (PLAIN.input_shape, PLAIN.weight_shape), 9 * 37),
    "winograd fused": (Conv(PLAIN), "winograd_fused", (PLAIN.input_shape, PLAIN.weight_shape), 9 * 37),
    "winograd phases": (Conv(FIRST), "winograd_strided", (FIRST.input_shape, FIRST.weight_shape), FIRST.reduction),
    "winograd gradient": (ConvBackwardWeight(PLAIN), "winograd", (PLAIN.input_shape, PLAIN.output_shape), 2 * 9 * 6),
}


def _program(op, algorithm, shapes, device, weight=None):
    """`weight` is given once, as that of an inference program."""
    graph = Graph()
    operands = [graph.input(f"x{i}", shape) for i, shape in enumerate(shapes[: None if weight is None else 1])]
    if weight is not None:
        operands.append(graph.state(State("weight", shapes[1], shapes[1])))
    graph.outputs = [graph.apply(op, *operands)]
    return backend("opencl").compile(optimised(graph), device, {} if weight is None else {"weight": weight}, {type(op).__name__: algorithm})


def _cover(variants, pairs):
    """Few variants in which every value (every pair of values) that some variant has occurs."""

    def parts(variant):
        values = [(variant.kernel, *pair) for pair in variant.parameters]
        return {frozenset((a, b)) for a in values for b in values if pairs or a == b}

    variants = list(variants)
    random.Random(3).shuffle(variants)
    wanted = set().union(*map(parts, variants))
    chosen = []
    while wanted:
        sample = [variant for variant in variants if parts(variant) & wanted][:200]
        chosen.append(max(sample, key=lambda variant: len(parts(variant) & wanted)))
        wanted -= parts(chosen[-1])
    return chosen


def _try_all(device, work, pairs, **limits):
    op, algorithm, shapes, length = WORK[work]
    operands = _operands(*shapes)
    once = operands[1] if algorithm == "winograd_strided" else None  # its filters are transformed when they are given
    given = operands if once is None else operands[:1]
    (expected,), (magnitude,) = op.reference(*operands), op.reference(*map(np.abs, operands))
    context = device_context(device)
    tried = 0
    with limits_of(context, **limits) as tuning:
        with tuning.trying({}) as asked:
            _program(op, algorithm, shapes, device, once)
        for family, problem in {family.name: (family, problem) for family, problem, _ in asked}.values():
            for variant in _cover(family.variants(problem, tuning.limits), pairs):
                with tuning.trying({family.name: variant}) as used:
                    y = _program(op, algorithm, shapes, device, once).run(*given)
                assert variant in [v for _, _, v in used]
                tried += 1
                if algorithm.startswith("winograd"):
                    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max(), variant
                else:
                    assert_within(y, expected, sum_bound(length, magnitude), str(variant))
    assert tried >= 4


@pytest.mark.parametrize("work", WORK)
def test_every_value_of_every_parameter_gives_right_results(device, work):
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    _try_all(device, work, pairs=False)


@pytest.mark.parametrize("work", ["conv", "matmul", "weight gradient", "outer products", "winograd", "winograd gradient"])
def test_variants_for_gpus_give_right_results(device, work):
    """Local memory, float4, two buffers, on whatever device there is."""
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    group = min(64, device_context(device).device.max_work_group)
    _try_all(device, work, pairs=False, is_gpu=True, width=4, max_work_group=group)


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("work", WORK)
def test_every_pair_of_values_gives_right_results(device, work, gpu):
    if device.backend != "opencl":
        pytest.skip("spaces are OpenCL's")
    _try_all(device, work, pairs=True, **({"is_gpu": True, "width": 4} if gpu else {}))
