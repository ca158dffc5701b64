"""What each part of an answer took, for who collects traces; without it a slow answer would not say what is slow in it.
Needs the extra `calico-why[otel]`; without OTEL_EXPORTER_OTLP_ENDPOINT nothing of it is loaded."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

Note = Callable[[str, str], None]

_tracer: Any = None


def start(environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Sends traces where OpenTelemetry's own variables (OTEL_*) say, over OTLP/HTTP. What is given is to be called at
    the end: it sends what is left, and blocks for it. What is missing is a warning: answers do not wait for traces."""
    global _tracer
    if not any(environment.get(one) for one in ENDPOINTS) or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return lambda: None
    protocol = next((environment[one] for one in PROTOCOLS if environment.get(one)), PROTOCOL)
    if protocol != PROTOCOL:
        log.warning("OTEL_EXPORTER_OTLP_PROTOCOL is %r; traces are sent by %s only, so none are.", protocol, PROTOCOL)
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, and no traces are sent: install calico-why[otel] (%s).", error)
        return lambda: None
    ours = {"service.version": version("calico-why")}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        ours["service.name"] = "calico-why"
    provider = TracerProvider(resource=Resource.create(ours), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("calico-why", version("calico-why"))

    def stop() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return stop


@contextlib.contextmanager
def span(name: str, **attributes: str) -> Iterator[Note]:
    """One part of a question; what is begun within, in tasks too, is part of it. What is given adds an attribute.

    Of an error its type is told and no text, in which a token might be.
    """
    if _tracer is None:
        yield lambda *_: None
        return
    named = {f"calico_why.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(
        name, attributes=named, record_exception=False, set_status_on_exception=False
    ) as one:
        try:
            yield lambda key, value: one.set_attribute(f"calico_why.{key}", value)
        except BaseException as error:
            from opentelemetry.trace import StatusCode

            one.set_status(StatusCode.ERROR, type(error).__name__)
            raise
