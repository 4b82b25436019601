"""Other libraries that can do part of it, each as its own documentation shows: three attempts, no waiting.

A *transport* goes around the transport of a client, an *around* around the user's own call. Who is not installed, or
cannot be used with a client, is skipped with the reason.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from benchmarks.clients import HOST, NullAdapter

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ATTEMPTS: Final = 3

RETRIED: Final = (429, 500, 502, 503, 504)
"""What rivals are told to retry, where they must be told."""


class Unfit(Exception):  # noqa: N818 - it is no error, and nobody else sees it
    """A rival cannot do this; the message says why."""


def transports(library: ModuleType, *, awaiting: bool) -> dict[str, Callable[[], Callable[[Any], Any]]]:
    """Rivals that are transports, by name: each gives, or refuses to give, a maker of one around another."""

    def httpx_retries() -> Callable[[Any], Any]:
        kit = import_module("httpx_retries")
        if library.__name__ != "httpx":
            raise Unfit("it takes transports of httpx only")
        retry = kit.Retry(total=ATTEMPTS - 1, allowed_methods=["POST"], status_forcelist=RETRIED)
        return lambda inner: kit.RetryTransport(transport=inner, retry=retry)

    def pydantic_ai() -> Callable[[Any], Any]:
        kit, tenacity = import_module("pydantic_ai.retries"), import_module("tenacity")
        if library.__name__ != "httpx2":
            raise Unfit("its transports for httpx are deprecated")
        config = kit.RetryConfig(
            retry=tenacity.retry_if_exception_type((library.HTTPStatusError, library.TransportError)),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            reraise=True,
        )
        kind = kit.AsyncHTTPX2TenacityTransport if awaiting else kit.HTTPX2TenacityTransport
        return lambda inner: kind(
            config=config, wrapped=inner, validate_response=lambda r: r.raise_for_status()
        )

    def interlock() -> Callable[[Any], Any]:
        kit = import_module(f"interlock.integrations.{library.__name__}")
        return kit.AsyncCircuitBreakerTransport if awaiting else kit.CircuitBreakerTransport  # type: ignore[no-any-return]  # an untyped module

    return {"httpx-retries": httpx_retries, "pydantic-ai": pydantic_ai, "interlock-cb": interlock}


def adapters() -> dict[str, Callable[[], Any]]:
    """Rivals that are adapters of requests, over memory."""

    def interlock() -> Any:
        kit = import_module("interlock.integrations.requests")
        return type("Interlock", (kit.CircuitBreakerAdapter, NullAdapter), {})()

    def urllib3_retry() -> Any:
        raise Unfit(
            "it works within urllib3, which a transport that answers from memory replaces: see loopback"
        )

    return {"interlock-cb": interlock, "urllib3.Retry": urllib3_retry}


def arounds(*, awaiting: bool) -> dict[str, Callable[[], Callable[[Any], Any]]]:
    """Rivals that go around a call, by name: each gives, or not, a maker of the call from the bare one."""

    def tenacity() -> Callable[[Any], Any]:
        kit = import_module("tenacity")
        return kit.retry(  # type: ignore[no-any-return]  # an untyped module
            stop=kit.stop_after_attempt(ATTEMPTS),
            retry=kit.retry_if_exception_type(Exception) | kit.retry_if_result(_failed),
            retry_error_callback=lambda state: state.outcome.result(),
        )

    def stamina() -> Callable[[Any], Any]:
        kit = import_module("stamina")
        import_module("stamina.instrumentation").set_on_retry_hooks(
            []
        )  # it tells of every retry on the terminal

        def around(call: Callable[[], Any]) -> Any:
            def raising() -> Any:
                return call().raise_for_status()

            async def araising() -> Any:
                return (await call()).raise_for_status()

            return kit.retry(
                on=Exception, attempts=ATTEMPTS, wait_initial=0.0, wait_jitter=0.0, wait_max=0.0
            )(araising if awaiting else raising)

        return around

    def pybreaker() -> Callable[[Any], Any]:
        kit = import_module("pybreaker")
        if awaiting:
            raise Unfit("it knows no asyncio")
        breaker = kit.CircuitBreaker(fail_max=5)

        def checked(call: Callable[[], Any]) -> Any:
            response = call()
            response.raise_for_status()
            return response

        return lambda call: lambda: breaker.call(checked, call)

    def purgatory() -> Callable[[Any], Any]:
        kit = import_module("purgatory")
        factory = kit.AsyncCircuitBreakerFactory() if awaiting else kit.SyncCircuitBreakerFactory()

        def around(call: Callable[[], Any]) -> Any:
            def raising() -> Any:
                response = call()
                response.raise_for_status()
                return response

            async def araising() -> Any:
                response = await call()
                response.raise_for_status()
                return response

            return factory(HOST)(araising if awaiting else raising)

        return around

    return {"tenacity": tenacity, "stamina": stamina, "pybreaker": pybreaker, "purgatory": purgatory}


def _failed(response: Any) -> bool:
    return response.status_code in RETRIED


def fitting(makers: dict[str, Callable[[], Any]], skipped: dict[str, str], where: str) -> dict[str, Any]:
    """What those *makers* give that can be used here; of the others the reason is put into *skipped*."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            skipped[name] = f"not installed ({error.name})"
        except Unfit as reason:
            skipped[f"{name}, {where}"] = str(reason)
    return found
