"""Matrix products with OpenCL: the kernels of convolutions, with a matrix as one row of pixels."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.matmul import MatMul
from ..matrices import first_untransposed, is_outer_products, matrix_sizes, row_of_pixels
from .call import Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import choose_tile, igemm_call
from .conv_weight_gradient import weight_gradient_calls, weight_gradient_parts
from .pack import PackPanels, Panels, lay_out


class PackedGemm(OpenClAlgorithm):
    """The second operand packed into panels."""

    name = "igemm"
    reason = "GEMM over a packed second operand"

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        m, n, k = matrix_sizes(node)
        with graph.at(node):
            node = first_untransposed(graph, node)
            op = node.op
            assert isinstance(op, MatMul)
            width = choose_tile(device_context(device), m, n).panel
            panels = Panels(1, n, k, width, (0,), 0, k if op.transpose_b else 1, 0, 1 if op.transpose_b else n)
            graph.rewire(node, 1, graph.apply(lay_out([panels]), node.inputs[1]))
        return node

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, MatMul)
        m, n, k = matrix_sizes(node)
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        tile = choose_tile(context, m, n)
        return [igemm_call(context, node, (1, 1, m, k), (1, 1, m, n), row_of_pixels(m), packed.panels[0], tile, node.op.epilogue)]


class OuterProducts(OpenClAlgorithm):
    """a^T b as a sum of outer products of rows: the weight gradient of a dense layer. Nothing is packed."""

    name = "outer_products"
    reason = "a^T b sums over rows: the weight gradient's kernel"

    def supports(self, node: Node, device: Device) -> bool:
        return is_outer_products(node)

    def workspace(self, node: Node, device: Device) -> int:
        m, n, k = matrix_sizes(node)
        parts = weight_gradient_parts(k, 1, n, m, 1)
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        m, n, k = matrix_sizes(node)
        a, b = node.inputs
        return weight_gradient_calls(context, b, a, node.outputs[0], (1, 1, k, n), (1, 1, k, m), row_of_pixels(k), 1, n)


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {MatMul: [OuterProducts(), PackedGemm()]}
