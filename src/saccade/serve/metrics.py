"""What `/metrics` shows, in Prometheus' text form. Labels come from fixed lists, so series stay few."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from saccade.serve.engine import Timing

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "saccade_requests", "Requests answered.", ("path", "status"), registry=registry
        )
        self.failures = Counter(
            "saccade_failures", "Requests refused, by reason.", ("reason",), registry=registry
        )
        self.images = Counter("saccade_images", "Images predicted.", registry=registry)
        self.seconds = Histogram(
            "saccade_request_seconds",
            "From a request's head to its answer.",
            registry=registry,
            buckets=SECONDS,
        )
        self.queue = Histogram("saccade_queue_seconds", "An image waits.", registry=registry, buckets=SECONDS)
        self.compute = Histogram(
            "saccade_compute_seconds",
            "An image is decoded and predicted.",
            registry=registry,
            buckets=SECONDS,
        )
        self.swaps = Counter(
            "saccade_model_swaps", "Models swapped in, or refused.", ("outcome",), registry=registry
        )
        self.model = Gauge(
            "saccade_model", "The model that is served.", ("name", "version"), registry=registry
        )

    def watch(
        self, *, pending: Callable[[], float], dropped: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        """Read these from their owners whenever somebody asks."""
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "saccade_pending_images": ("Images waiting or in work.", pending),
            "saccade_dropped_images": ("Images not run: late, or the client hung up.", dropped),
            "saccade_ready": ("1 where requests are taken.", ready),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(read)

    def image(self, timing: Timing) -> None:
        """Count one predicted image."""
        self.images.inc()
        self.queue.observe(timing.queued)
        self.compute.observe(timing.computed)

    def serving(self, name: str, version: str) -> None:
        """Say which model is served now."""
        self.model.clear()
        self.model.labels(name, version).set(1)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self.registry)
