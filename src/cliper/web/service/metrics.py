"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """Counters of one service. Labels are of a few known values: callers cannot make new ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cliper_requests",
            "Answers, by path, method and status.",
            ["path", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "cliper_request_seconds",
            "From a request to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "cliper_batch_pictures",
            "Pictures that went through the model together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.model_seconds = Histogram(
            "cliper_model_seconds", "A turn of the model.", buckets=_SECONDS, registry=self.registry
        )
        self.dropped = Counter(
            "cliper_dropped",
            "Wishes whose time was over, or whose client had gone, not computed.",
            registry=self.registry,
        )
        self.cut = Counter("cliper_cut", "Answers that their clients did not read in time.", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when it is wanted."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def answered(self, path: str, method: str, status: int, seconds: float) -> None:
        """Note an answer."""
        self.requests.labels(path, method if method in _METHODS else "other", str(status)).inc()
        self.request_seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        latest: bytes = generate_latest(self.registry)
        return latest
