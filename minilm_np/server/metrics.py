"""The numbers of /metrics, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """Counters of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "minilm_np_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "minilm_np_request_seconds", "From the headers of a request to the end of its response.", ["path"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._texts = Counter("minilm_np_texts", "Encoded texts.", registry=self._registry)
        self._tokens = Counter("minilm_np_tokens", "Encoded tokens.", registry=self._registry)
        self._batch_tokens = Histogram(
            "minilm_np_batch_tokens", "Tokens per batch.", buckets=TOKENS, registry=self._registry
        )
        self._engine_seconds = Counter(
            "minilm_np_engine_seconds", "Time in which the engine was busy.", registry=self._registry
        )
        self._by_path: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def watch(self, name: str, explanation: str, value: Callable[[], float]) -> None:
        """Add a number that is read when the metrics are."""
        Gauge(name, explanation, registry=self._registry).set_function(value)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        found = self._by_path.get((path, status))
        if found is None:
            found = self._requests.labels(path, str(status)), self._seconds.labels(path)
            self._by_path[path, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def count_batch(self, n_texts: int, n_tokens: int, seconds: float) -> None:
        """Count a batch that is encoded."""
        self._texts.inc(n_texts)
        self._tokens.inc(n_tokens)
        self._batch_tokens.observe(n_tokens)
        self._engine_seconds.inc(seconds)

    def text(self) -> bytes:
        """The numbers in Prometheus' text format."""
        return generate_latest(self._registry)
