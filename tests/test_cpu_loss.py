"""The CPU's cross entropy kernels on every instruction set, against SciPy in float64."""

import numpy as np
import pytest
from helpers.cpu_kernels import ISAS, empty, kernels, run
from scipy import special

IGNORED = -100


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("rows, classes", [(1, 1), (7, 10), (64, 1000), (33, 17), (3, 255)])
def test_cross_entropy_and_its_gradient(isa, smoothing, rows, classes):
    rng = np.random.default_rng(0)
    logits, dloss = (rng.normal(size=(rows, classes)) * 4).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    labels[rows // 2] = IGNORED
    if rows > 3:
        labels[1], labels[2] = classes, -1  # no classes: NaN rather than a read out of bounds
    members = {"rows": rows, "classes": classes, "ignore_index": IGNORED, "label_smoothing": smoothing}
    members |= kernels.cross_entropy_blocks(rows, classes)
    loss, dlogits = empty(rows), empty(rows, classes)
    run(isa, "cross_entropy", members, logits, labels, loss)
    run(isa, "cross_entropy_backward", members, logits, labels, dloss, dlogits)

    valid = (labels >= 0) & (labels < classes)
    s = np.float64(np.float32(smoothing))
    target = np.where(valid[:, None], (1 - s) * (np.arange(classes) == labels[:, None]) + s / classes, 0)
    log_p = special.log_softmax(logits.astype(np.float64), 1)
    np.testing.assert_allclose(loss[valid], -(target * log_p).sum(1)[valid], rtol=1e-6, atol=1e-6)
    assert (loss[labels == IGNORED] == 0).all() and np.isnan(loss[~valid & (labels != IGNORED)]).all()
    exact = (np.exp(log_p) - target) * dloss[:, None]
    np.testing.assert_allclose(dlogits[valid], exact[valid], rtol=3e-6, atol=3e-7)
    assert (dlogits[~valid] == 0).all()
    run(isa, "cross_entropy_backward", members, logits, labels, dloss, logits)
    np.testing.assert_array_equal(logits, dlogits)
