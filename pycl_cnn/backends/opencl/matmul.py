"""Matrix products with OpenCL: the kernels of convolutions, with a matrix as one row of pixels."""

from __future__ import annotations

from ...ops.base import Op
from ...ops.matmul import MatMul
from ...tuning.space import Family, Problem
from ..matrices import first_untransposed, is_outer_products, matrix_sizes, row_of_pixels
from .call import Call, Context, Device, Graph, Node, OpenClAlgorithm, device_context
from .conv import igemm_call
from .conv_weight_gradient import WEIGHT_GRADIENT, gradient_problem, weight_gradient_calls, weight_gradient_parts
from .pack import PackPanels, Panels, lay_out
from .tiles import PRODUCT, Tile, product_problem


class PackedGemm(OpenClAlgorithm):
    """The second operand packed into panels."""

    name = "igemm"
    reason = "GEMM over a packed second operand"

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        m, n, k = matrix_sizes(node)
        return [(PRODUCT, product_problem(m, n, k, 1, 1))]

    def prepare(self, graph: Graph, node: Node, device: Device) -> Node:
        _, n, k = matrix_sizes(node)
        width = Tile.of(self.variant(node, device_context(device)), "MR").panel
        with graph.at(node):
            node = first_untransposed(graph, node)
            op = node.op
            assert isinstance(op, MatMul)
            panels = Panels(1, n, k, width, (0,), 0, k if op.transpose_b else 1, 0, 1 if op.transpose_b else n)
            graph.rewire(node, 1, graph.apply(lay_out([panels]), node.inputs[1]))
        return node

    def calls(self, node: Node, context: Context) -> list[Call]:
        assert isinstance(node.op, MatMul)
        m, n, k = matrix_sizes(node)
        packed = node.inputs[1].op
        assert isinstance(packed, PackPanels)
        return [igemm_call(context, node, (1, 1, m, k), (1, 1, m, n), row_of_pixels(m), packed.panels[0], self.variant(node, context), node.op.epilogue)]


class OuterProducts(OpenClAlgorithm):
    """a^T b as a sum of outer products of rows: the weight gradient of a dense layer. Nothing is packed."""

    name = "outer_products"
    reason = "a^T b sums over rows: the weight gradient's kernel"

    def supports(self, node: Node, device: Device) -> bool:
        return is_outer_products(node)

    def tuned(self, node: Node, context: Context) -> list[tuple[Family, Problem]]:
        m, n, k = matrix_sizes(node)
        return [(WEIGHT_GRADIENT, gradient_problem(k, m, n, 1, 1))]

    def workspace(self, node: Node, device: Device) -> int:
        context = device_context(device)
        ((_, problem),) = self.tuned(node, context)
        parts = weight_gradient_parts(self.variant(node, context), problem)
        return parts * node.outputs[0].nbytes if parts > 1 else 0

    def calls(self, node: Node, context: Context) -> list[Call]:
        m, n, k = matrix_sizes(node)
        a, b = node.inputs
        variant = self.variant(node, context)
        return weight_gradient_calls(context, variant, b, a, node.outputs[0], (1, 1, k, n), (1, 1, k, m), row_of_pixels(k), 1, n)


ALGORITHMS: dict[type[Op], list[OpenClAlgorithm]] = {MatMul: [OuterProducts(), PackedGemm()]}
