"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_METHODS = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """Metrics of one server. Labels take few known values: clients cannot create new ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "cliper_requests",
            "Responses by path, method and status.",
            ["path", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "cliper_request_seconds",
            "Time from a request to the end of its response.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "cliper_batch_images", "Images in a batch.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.model_seconds = Histogram(
            "cliper_model_seconds", "Time of the model for a batch.", buckets=_SECONDS, registry=self.registry
        )
        self.dropped = Counter(
            "cliper_dropped",
            "Queued requests that were not computed: timed out, or the client disconnected.",
            registry=self.registry,
        )
        self.slow_clients = Counter(
            "cliper_slow_clients", "Responses that their clients did not read in time.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def record(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count a response."""
        self.requests.labels(path, method if method in _METHODS else "other", str(status)).inc()
        self.request_seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        latest: bytes = generate_latest(self.registry)
        return latest
