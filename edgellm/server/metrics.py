"""/metrics: what the engines do, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgellm.server.pool import ModelPool

# Of `EngineStats`: what is now, and what has been counted.
GAUGES = {
    "running": ("edgellm_requests_running", "Requests that are read or answered"),
    "waiting": ("edgellm_requests_waiting", "Requests that wait"),
    "cache_bytes": ("edgellm_cache_bytes", "Bytes of keys and values of running requests"),
    "prefix_bytes": ("edgellm_prefix_cache_bytes", "Bytes of keys and values of known beginnings of prompts"),
}
COUNTERS = {
    "steps": ("edgellm_steps", "Runs of the scheduler"),
    "prompt_tokens": ("edgellm_prompt_tokens", "Tokens of prompts"),
    "reused_tokens": ("edgellm_prompt_tokens_reused", "Tokens of prompts that were known"),
    "new_tokens": ("edgellm_new_tokens", "Tokens that were generated"),
    "preemptions": ("edgellm_preemptions", "Sequences that made room for others"),
}


class Engines(Collector):
    """The statistics of a pool's engines, when they are asked for."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        stats = {one.name: one.engine.stats for one in self._pool.loaded if one.engine is not None}
        for kind, table in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for field, (name, text) in table.items():
                family = kind(name, text, labels=["model"])
                for model, found in stats.items():
                    family.add_metric([model], getattr(found, field))
                yield family


class Metrics:
    """Requests by address and status, and their seconds."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, pool: ModelPool) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Engines(pool))
        self.requests = Counter(
            "edgellm_http_requests", "Requests that were answered", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "edgellm_http_request_seconds", "Until the whole answer was sent", ["path"], registry=self._registry
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
