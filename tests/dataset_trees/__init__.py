"""Miniature data sets, three images each, in the real ones' formats.

``build_tree`` writes one as a benchmark reads it, ``build_sources`` as it is downloaded: what there is before
``cliper data prepare``. Both have the images and labels of ``expected``, and none of the package's code.
"""

from dataset_trees.content import NAMES, expected
from dataset_trees.memory import exhaust_memory
from dataset_trees.prepared import build_tree
from dataset_trees.samples import read_sample
from dataset_trees.sources import build_sources

__all__ = ["NAMES", "build_sources", "build_tree", "exhaust_memory", "expected", "read_sample"]
