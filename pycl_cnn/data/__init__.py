"""Real data to learn from: MNIST-style IDX files in a folder of the user's, and the digits that scikit-learn carries."""

from .digits import load_digits
from .idx import read_idx
from .images import read_images
from .mnist import MEAN, STD, Dataset, load_mnist, normalise

__all__ = ["MEAN", "STD", "Dataset", "load_digits", "load_mnist", "normalise", "read_idx", "read_images"]
