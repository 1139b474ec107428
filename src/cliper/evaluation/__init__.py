"""How a segmentation is measured."""

from cliper.evaluation.confusion import ConfusionMatrix
from cliper.evaluation.texts import BenchmarkTexts, benchmark_texts

__all__ = ["BenchmarkTexts", "ConfusionMatrix", "benchmark_texts"]
