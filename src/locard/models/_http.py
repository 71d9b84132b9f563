"""The way to one endpoint: an exchange of requests and replies that can be left at any moment.

An exchange runs an event loop in a thread of its own, for as long as it lasts. So a time limit holds to the letter even
against a server that sends one byte a minute; what has arrived can be kept while the rest is under way; it works where
an event loop runs already, as in a notebook; and leaving it, as Ctrl-C does, closes every connection at once.
"""

from __future__ import annotations

import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, final

from locard.errors import ParameterError, check_number
from locard.models._protocol_v2 import Reply, Request

if TYPE_CHECKING:
    import asyncio
    import ssl

T = TypeVar("T")
# Seconds that what was under way at Ctrl-C has to end by itself.
GRACE = 1.0
TOKEN_ENV = "LOCARD_TOKEN"  # noqa: S105 - the name of a variable


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long, how often, how much.

    Args:
        timeout: seconds for one try, from connecting to the last byte.
        connect_timeout: seconds for the connection alone.
        patience: seconds for one request, with all its tries and the pauses between them.
        tries: the most times that one request is sent.
        backoff: seconds before the second try; doubled from try to try, up to 8, and cut at random by up to a half.
        concurrency: the most requests under way at a time.
        max_bytes: the longest answer that is read.

    Raises:
        ParameterError: one of them is out of range.
    """

    timeout: float = 30.0
    connect_timeout: float = 5.0
    patience: float = 120.0
    tries: int = 4
    backoff: float = 0.5
    concurrency: int = 4
    max_bytes: int = 2**26

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("timeout", "connect_timeout", "patience"):
            check_number(name, getattr(self, name), above=0, high=86400)
        check_number("backoff", self.backoff, low=0, high=3600)
        for name, high in (("tries", 100), ("concurrency", 256), ("max_bytes", 2**40)):
            check_number(name, getattr(self, name), low=1, high=high)
            if not isinstance(getattr(self, name), int):
                raise ParameterError(f"{name} must be a whole number; got {getattr(self, name)!r}")


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """What opens the door: shown nowhere, written nowhere, sent to no other host.

    Args:
        token_env: environment variable that holds a bearer token; read at each exchange, never kept.
        login: user name and password, which take the token's place.

    Raises:
        ParameterError: another variable than the usual one is named, and it is not set.
    """

    token_env: str = TOKEN_ENV
    login: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse a token that was meant to be there and is not."""
        if self.token_env != TOKEN_ENV and self.login is None and not os.environ.get(self.token_env):
            raise ParameterError(f"the environment variable {self.token_env!r}, named to hold the token, is not set")

    @property
    def header(self) -> dict[str, str]:
        """The authorization header, if there is anything to put in it."""
        if self.login is not None:
            return {"authorization": f"Basic {self._basic}"}
        token = self._token
        if not (token.isascii() and token.isprintable()):
            raise ParameterError(f"the token in the environment variable {self.token_env!r} is not printable ASCII")
        return {"authorization": f"Bearer {token}"} if token else {}

    @property
    def secrets(self) -> tuple[str, ...]:
        """The words that no message may repeat."""
        words = (self._token,) if self.login is None else (self.login[1], self._basic)
        return tuple(word for word in words if word)

    @property
    def advice(self) -> str:
        """What to do where they do not suffice."""
        if self.login is not None:
            return "check the user name and password in its URL"
        state = "is not accepted" if self._token else "is not set"
        return f"the environment variable {self.token_env}, which holds the token to send, {state}"

    @property
    def _basic(self) -> str:
        return b64encode(":".join(self.login or ()).encode()).decode()

    @property
    def _token(self) -> str:
        return os.environ.get(self.token_env, "").strip()


@final
class Line:
    """The way to one endpoint.

    Args:
        who: the endpoint, for messages.
        limits: how long, how often, how much.
        credentials: what opens the door.
    """

    def __init__(self, *, who: str, limits: Limits, credentials: Credentials) -> None:
        self.who, self.limits, self.credentials = who, limits, credentials
        self._trust: ssl.SSLContext | None = None

    def exchange(
        self, requests: Sequence[Callable[[], Request]], read: Callable[[int, Reply], T]
    ) -> Generator[tuple[int, T]]:
        """Send requests and hand over what comes back, in the order of arrival.

        After a failure nothing more is sent, but what is on the wire may still arrive and is handed over; then the
        failure is raised. On Ctrl-C what has arrived is handed over before the interrupt goes on.

        Args:
            requests: each makes its request when its turn comes.
            read: makes a result of a request's index and its reply; what it raises is a failure.

        Yields:
            Index of the request, and what `read` made of the reply.

        Raises:
            RemoteModelError: a request failed for good.
        """
        import asyncio  # slow, and loading any model imports this file

        from locard.models._attempts import Attempts

        attempts = Attempts(
            who=self.who,
            limits=self.limits,
            headers=self.credentials.header,
            secrets=self.credentials.secrets,
            advice=self.credentials.advice,
            trust=self._trusted(),
        )
        arrived: SimpleQueue[Any] = SimpleQueue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(attempts.run(requests, read, arrived.put))
        thread = threading.Thread(target=_drive, args=(loop, task, arrived.put), name="locard-endpoint", daemon=True)
        thread.start()
        failure: BaseException | None = None
        ends: float | None = None
        try:
            while True:
                try:
                    item = arrived.get(timeout=None if ends is None else max(ends - time.monotonic(), 0))
                except KeyboardInterrupt as interrupt:
                    if isinstance(failure, KeyboardInterrupt):
                        raise
                    failure, ends = interrupt, time.monotonic() + GRACE
                    _cancel(loop, task)
                    continue
                except Empty:
                    break
                if item is None:
                    break
                if isinstance(item, BaseException):
                    failure = failure or item
                else:
                    yield item
            if failure is not None:
                raise failure
        finally:
            _cancel(loop, task)
            thread.join(1.0)

    def _trusted(self) -> ssl.SSLContext:
        """Whose certificates are believed; nobody's need be for plain HTTP, which saves reading them."""
        if self._trust is None:
            import ssl

            import httpx

            secure = self.who.startswith("https://")
            self._trust = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._trust


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], put: Callable[[Any], None]) -> None:
    import asyncio

    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
    except Exception as error:
        put(error)
    finally:
        # Closed connections are let go of one turn later.
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        put(None)


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    # A loop that has closed already has nothing left to cancel.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)
