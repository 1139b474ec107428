"""Data sets of the published benchmarks: file layout, label conventions and prompts; see ``docs/datasets.md``."""

from cliper.datasets.benchmark import Benchmark, Sample
from cliper.datasets.image_folder import custom_benchmark
from cliper.datasets.published import benchmark_names, find_benchmark
from cliper.datasets.texts import BenchmarkTexts, benchmark_texts
from cliper.datasets.vocabularies import VOCABULARIES, Vocabulary, make_vocabulary, synonyms_of

__all__ = [
    "VOCABULARIES",
    "Benchmark",
    "BenchmarkTexts",
    "Sample",
    "Vocabulary",
    "benchmark_names",
    "benchmark_texts",
    "custom_benchmark",
    "find_benchmark",
    "make_vocabulary",
    "synonyms_of",
]
