"""The 1,797 handwritten digits, 8 x 8 pixels, that scikit-learn carries (from the UCI repository, Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

import numpy as np

from ..errors import PyclError
from .mnist import Dataset

#: Seed of the one split into training data and held-out quarter.
SPLIT_SEED = 0


def load_digits() -> Dataset:
    """The digits as float32 [n,1,8,8] between 0 and 1, and their labels; a quarter (449), always the same one, is held out.

    Raises PyclError where scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise PyclError('load_digits: the digits come with scikit-learn, which is not installed: pip install "pycl_cnn[demo]"') from error
    bunch = datasets.load_digits()
    x = (bunch.images[:, None] / 16).astype(np.float32)  # pixels are 0..16
    labels = bunch.target.astype(np.int32)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(x))
    held_out, train = np.split(order, [len(x) // 4])
    return Dataset(x[train], labels[train], x[held_out], labels[held_out])
