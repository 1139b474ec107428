"""Measures mIoU on benchmarks: a task of :mod:`cliper.runner`."""

from cliper.datasets.texts import BenchmarkTexts, benchmark_texts
from cliper.evaluation.confusion import ConfusionMatrix

__all__ = ["BenchmarkTexts", "ConfusionMatrix", "benchmark_texts"]
