"""The data sets of the published benchmarks: where their files lie, what their labels mean, what they prompt with.

Layouts and label conventions are in ``docs/benchmarks.md``.
"""

from cliper.benchmarks.base import Benchmark, Sample
from cliper.benchmarks.custom import custom_benchmark
from cliper.benchmarks.registry import benchmark_names, find_benchmark
from cliper.benchmarks.texts import BenchmarkTexts, benchmark_texts

__all__ = [
    "Benchmark",
    "BenchmarkTexts",
    "Sample",
    "benchmark_names",
    "benchmark_texts",
    "custom_benchmark",
    "find_benchmark",
]
