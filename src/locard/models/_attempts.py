"""One request and its tries: what may pass is tried again, what will not is told in one line.

Tried again, after a pause that doubles and is cut at random: no connection, no answer in time, a broken connection, 429
and 5xx; a `Retry-After` is honoured as far as patience goes. Told at once: every other status, a redirect (followed, it
could carry the token elsewhere), a certificate that does not hold, a compressed answer or one that is too long.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, final

import numpy as np

from locard.errors import LocardError, ParameterError, RemoteModelError
from locard.models._protocol_v2 import Reply, Request, shown

if TYPE_CHECKING:
    import httpx

    from locard.models._http import Limits

LONGEST_PAUSE = 8.0
WORDS = 4096


class _PassingError(Exception):
    """A failure that may pass, as a predicate; `wait` is how many seconds the server asks to wait."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


@final
class Attempts:
    """One exchange, seen from its event loop.

    Args:
        who: the endpoint, for messages.
        limits: how long, how often, how much.
        headers: sent with each request.
        secrets: words that no message may repeat.
        advice: where credentials come from, for the message when they do not suffice.
        trust: whose certificates are believed.
    """

    def __init__(
        self,
        *,
        who: str,
        limits: Limits,
        headers: dict[str, str],
        secrets: tuple[str, ...],
        advice: str,
        trust: ssl.SSLContext,
    ) -> None:
        self.who, self.limits, self.headers, self.secrets = who, limits, headers, secrets
        self.advice, self.trust = advice, trust
        self._failed = asyncio.Event()

    async def run(
        self,
        requests: Sequence[Callable[[], Request]],
        read: Callable[[int, Reply], Any],
        put: Callable[[Any], None],
    ) -> None:
        """Keep as many requests under way as the limits allow; `put` each (index, result), or error, when it comes."""
        waiting = iter(enumerate(requests))

        async def lane() -> None:
            for index, prepare in waiting:
                if self._failed.is_set():
                    return
                try:
                    reply = await self._insist(client, prepare())
                    put((index, self._read(read, index, reply)))
                # Whatever it is, the caller must hear of it and not wait for ever.
                except Exception as error:
                    self._failed.set()
                    put(error)

        async with self._client() as client:
            await asyncio.gather(*(lane() for _ in range(min(self.limits.concurrency, len(requests)))))

    def _client(self) -> httpx.AsyncClient:
        import httpx

        try:
            return httpx.AsyncClient(
                verify=self.trust,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=self.limits.connect_timeout),
                limits=httpx.Limits(max_connections=self.limits.concurrency),
                # A compressed answer could be a bomb.
                headers={"accept-encoding": "identity", "user-agent": "locard", **self.headers},
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ParameterError(f"the proxy that the environment names cannot be used: {shown(str(error))}") from None

    async def _insist(self, client: httpx.AsyncClient, request: Request) -> Reply:
        """Try until it is answered, or cannot be, or patience ends."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.limits.patience
        tried = 0
        while True:
            tried += 1
            try:
                return await self._try(client, request, deadline)
            except _PassingError as trouble:
                pause = max(trouble.wait, self._pause(tried))
                if tried < self.limits.tries and clock() + pause < deadline and not await self._called_off(pause):
                    continue
                told = f"{trouble} and asks to wait {trouble.wait:.0f} s" if trouble.wait else f"{trouble}"
                raise RemoteModelError(
                    f"{self.who} {told} ({tried} {'try' if tried == 1 else 'tries'}); what was answered is kept: run "
                    "this again later to go on"
                ) from None

    async def _called_off(self, pause: float) -> bool:
        """Wait, unless another request fails: the exchange is lost then, and nothing more is to be sent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._failed.wait()
        return self._failed.is_set()

    def _pause(self, tried: int) -> float:
        longest = min(LONGEST_PAUSE, self.limits.backoff * 2.0 ** (tried - 1))
        return longest * float(np.random.default_rng().uniform(0.5, 1.0))

    async def _try(self, client: httpx.AsyncClient, request: Request, deadline: float) -> Reply:
        import httpx

        start = asyncio.get_running_loop().time()
        limit = min(self.limits.timeout, deadline - start)
        try:
            async with (
                asyncio.timeout(limit),
                client.stream(
                    request.method, request.url, content=request.body or None, headers=dict(request.headers)
                ) as response,
            ):
                return await self._reply(response)
        except httpx.ConnectTimeout:
            raise _PassingError(f"cannot be reached within {self.limits.connect_timeout:g} s") from None
        except (TimeoutError, httpx.TimeoutException):
            raise _PassingError(f"does not answer within {limit:.3g} s") from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ParameterError(f"{self.who} is no address that can be asked: {shown(str(error))}") from None
        except httpx.TransportError as error:
            reason = shown(self._clean(_reason(error)))
            if "SSL" in reason:
                raise RemoteModelError(
                    f"{self.who} has no TLS that can be trusted: {reason}; check the address, or name the file of its "
                    "authority in SSL_CERT_FILE"
                ) from None
            protocol = isinstance(error, httpx.ProtocolError)
            verb = "does not keep to HTTP" if protocol else "breaks the connection"
            verb = "cannot be reached" if isinstance(error, httpx.ConnectError) else verb
            raise _PassingError(f"{verb}: {reason}") from None

    async def _reply(self, response: httpx.Response) -> Reply:
        status, headers = response.status_code, response.headers
        if status == 200:
            return Reply(body=await self._body(response), headers=dict(headers))
        if 300 <= status < 400:
            there = shown(self._clean(re.sub(r"(?<=//)[^/@]*@|[?#].*", "", headers.get("location", ""))))
            raise RemoteModelError(
                f"{self.who} redirects to {there} ({status}), which is not followed, lest the token go astray; give "
                "the right address"
            )
        words = await self._words(response)
        if status == 429 or status >= 500:
            raise _PassingError(f"answers {status}{words}", _retry_after(headers.get("retry-after", "")))
        if status in (401, 403):
            raise RemoteModelError(f"{self.who} refuses access: it answers {status}{words}; {self.advice}")
        if status == 404:
            raise RemoteModelError(
                f"{self.who} is not there: it answers 404{words}; check the model's name and version"
            )
        raise RemoteModelError(
            f"{self.who} refuses the request: it answers {status}{words}; expected 200"
            + ("; try a smaller batch_size" if status == 413 else "")
        )

    async def _body(self, response: httpx.Response) -> bytes:
        limit, coding = self.limits.max_bytes, response.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise RemoteModelError(
                f"{self.who} answers in the coding {shown(coding, 40)}; expected it uncompressed, as asked"
            )
        length = response.headers.get("content-length", "0")
        body = bytearray()
        if int(length[:18]) <= limit:
            async for part in response.aiter_raw():
                body += part
                if len(body) > limit:
                    break
            else:
                return bytes(body)
        raise RemoteModelError(
            f"{self.who} answers more than {limit} bytes, far more than scores need; it is not read further"
        )

    async def _words(self, response: httpx.Response) -> str:
        """What an error says of itself, fit for a message."""
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) >= WORDS:
                break
        text = body[:WORDS].decode(errors="replace").strip()
        with suppress(ValueError, RecursionError):
            document = json.loads(text)
            text = str(document.get("error", text)) if isinstance(document, dict) else text
        return f" {shown(self._clean(text))}" if text else ""

    def _read(self, read: Callable[[int, Reply], Any], index: int, reply: Reply) -> Any:
        try:
            return read(index, reply)
        except LocardError as error:
            if any(secret.encode() in reply.body for secret in self.secrets):
                kind = type(error)
                raise kind(
                    f"{self.who} answers what the protocol does not allow, and repeats its caller's token"
                ) from None
            raise

    def _clean(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def _reason(error: BaseException) -> str:
    """The innermost reason of a failed connection: "Connection refused"."""
    reason, cause = str(error), error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            # asyncio words a refusal as a failed call; only the system's own numbers have better words.
            number = 0 if isinstance(cause, ssl.SSLError) else cause.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return reason or type(error).__name__


def _retry_after(value: str) -> float:
    """Seconds, from a number of seconds or a date; 0 where it is neither."""
    with suppress(ValueError):
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    with suppress(ValueError, TypeError):
        until = parsedate_to_datetime(value)
        return max((until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0
