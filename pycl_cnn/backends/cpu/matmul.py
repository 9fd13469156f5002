"""Matrix products on the CPU: the same kernels as convolutions, with a matrix as one row of pixels."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.conv import Epilogue
from ...ops.matmul import MatMul
from ...ops.movement import Reshape, Transpose, invert
from ..matrices import first_untransposed, is_outer_products, matrix_sizes, row_of_pixels
from . import _kernels
from .conv import PackPanels, epilogue_buffers, epilogue_members, make_panels, output_members, patch_members
from .launch import At, Buffer, CpuAlgorithm, Device, Graph, Launch, Node, Value, conv_launch, launch


def permuted_rows(weight: Value) -> tuple[Value, dict[str, int]] | None:
    """The matrix of which `weight` is a permuted copy, row by row, as a Linear behind Flatten gets one, and how panels are packed from
    there: the copy need not be made."""
    spread = weight
    for kind in (Reshape, Transpose):
        if not isinstance(spread.op, kind):
            return None
        spread = spread.node.inputs[0]
    order, shape = weight.node.inputs[0].op.permutation, spread.shape  # type: ignore[attr-defined]
    if not isinstance(spread.op, Reshape) or len(shape) != 4 or order[0] != 0 or weight.shape[0] != shape[0]:
        return None
    source = spread.node.inputs[0]
    if source.shape != weight.shape:
        return None
    strides = (0, shape[2] * shape[3], shape[3], 1)
    names = ("tap_rows", "tap_row_stride"), ("tap_cols", "tap_col_stride"), ("reds", "red_stride")
    return source, {name: of[axis] for axis, pair in zip(order[1:], names, strict=True) for name, of in zip(pair, (shape, strides), strict=True)}


class PackedGemm(CpuAlgorithm):
    """The second operand packed into panels."""

    name = "igemm"
    reason = "GEMM over a packed second operand"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        m, n, k = matrix_sizes(node)
        with graph.at(node):
            node = first_untransposed(graph, node)
            op = node.op
            assert isinstance(op, MatMul)
            layout = {
                "groups": 1,
                "outs": n,
                "tap_rows": 1,
                "tap_cols": 1,
                "reds": k,
                "panel_width": _kernels.igemm_blocks(m, n, k)["panel_width"],
                "offset": 0,
                "group_stride": 0,
                "out_stride": k if op.transpose_b else 1,
                "tap_row_stride": 0,
                "tap_col_stride": 0,
                "red_stride": 1 if op.transpose_b else n,
            }
            weight = node.inputs[1]
            permuted = permuted_rows(weight) if op.transpose_b else None
            if permuted:
                weight, layout = permuted[0], layout | permuted[1]
            graph.rewire(node, 1, graph.apply(PackPanels(make_panels([layout])), weight))
        return node

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, MatMul)
        m, n, k = matrix_sizes(node)
        epilogue: Epilogue = node.op.epilogue
        bias, residual = epilogue_buffers(node, epilogue)
        phase = row_of_pixels(m)
        return [
            conv_launch(
                "igemm",
                (node.inputs[0], node.inputs[1], bias, residual, node.outputs[0]),
                **patch_members((1, 1, m, k), phase, 1),
                **output_members((1, 1, m, n), phase),
                outs=n,
                **_kernels.igemm_blocks(m, n, k),
                **epilogue_members(epilogue),
            )
        ]


class RowProducts(CpuAlgorithm):
    """Rows of the first operand times rows of the second, which is read where it lies: in a program for inference the model's own array."""

    name = "row_products"
    reason = "few rows: the second operand is read once, and not packed for that"

    def supports(self, node: Node, device: Device) -> bool:
        op, (m, _, k) = node.op, matrix_sizes(node)
        assert isinstance(op, MatMul)
        return not op.transpose_a and op.transpose_b and m <= _kernels.most_rows() and k > 0

    def pays(self, node: Node, device: Device) -> bool:
        """Where the matrix is so large that it comes from memory at every run, at memory's rate: panels are read faster, but are as large again."""
        return node.inputs[1].nbytes >= 6 << 20

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        """Where the rows of the second operand are permuted, permute those of the first instead, which are few."""
        permuted = permuted_rows(node.inputs[1])
        if permuted:
            x, order = node.inputs[0], node.inputs[1].node.inputs[0].op
            assert isinstance(order, Transpose)
            shape = node.inputs[1].node.inputs[0].shape
            with graph.at(node):
                spread = graph.apply(Reshape((x.shape[0], *shape[1:])), x)
                turned = graph.apply(Transpose(invert(order.permutation)), spread)
                graph.rewire(node, 0, graph.apply(Reshape(x.shape), turned))
            graph.rewire(node, 1, permuted[0])
        return node

    def launches(self, node: Node) -> list[Launch]:
        assert isinstance(node.op, MatMul)
        m, n, k = matrix_sizes(node)
        bias, residual = epilogue_buffers(node, node.op.epilogue)
        buffers = (node.inputs[0], node.inputs[1], bias, residual, node.outputs[0])
        return [launch("row_products", buffers, rows=m, outs=n, reds=k, **_kernels.row_products_blocks(n, k), **epilogue_members(node.op.epilogue))]


class OuterProducts(CpuAlgorithm):
    """a^T b as a sum of outer products of rows: the weight gradient of a dense layer. Nothing is packed."""

    name = "outer_products"
    reason = "a^T b sums over rows: the weight gradient's kernel"

    def supports(self, node: Node, device: Device) -> bool:
        return is_outer_products(node)

    def _blocks(self, node: Node) -> dict[str, int]:
        m, n, k = matrix_sizes(node)
        return _kernels.weight_gradient_blocks(k, m, n)

    def workspace(self, node: Node, device: Device) -> int:
        parts = self._blocks(node)["parts"]
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def launches(self, node: Node) -> list[Launch]:
        m, n, k = matrix_sizes(node)
        sizes = self._blocks(node)
        target: Buffer = At(None) if sizes["parts"] > 1 else node.outputs[0]
        phase = row_of_pixels(k)
        a, b = node.inputs
        calls = [
            conv_launch(
                "weight_gradient", (b, a, target), **patch_members((1, 1, k, n), phase, 1), **output_members((1, 1, k, m), phase), outs=m, **sizes
            )
        ]
        if sizes["parts"] > 1:
            calls.append(conv_launch("sum_parts", (At(None), node.outputs[0]), parts=sizes["parts"], count=m * n))
        return calls


ALGORITHMS: dict[type[Op], list[CpuAlgorithm]] = {MatMul: [OuterProducts(), RowProducts(), PackedGemm()]}
