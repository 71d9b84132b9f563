"""An HTTP endpoint that speaks the Open Inference Protocol v2: KServe, Triton, MLServer, OpenVINO.

The source is the model's URL, `https://host/v2/models/NAME` or `.../NAME/versions/VERSION`, or a server's URL with the
options `name` and `version`. Loading asks for the metadata once and pays no query: names, datatypes and shapes of the
tensors tell the domain where nobody else does.

    model = locard.load("https://host/v2/models/net", output="scores", outputs="logits")

On the wire: `POST .../infer` with one input tensor of `batch_size` inputs and one output asked for, as JSON (a float32
comes through exactly) or, with `binary=True`, by the binary tensor extension. FP16 needs `binary`.

What an answer means the protocol does not say. Whole numbers of shape [n] or [n, 1] are taken for labels and everything
else for probabilities, which are refused where they are negative or do not add up to 1; `outputs` says otherwise.

Cost: one query an input, whatever the batch. An input is sent again only when a try failed; a server that answers too
late may have charged for what was thrown away, so mind `timeout`. At most `concurrency` requests are under way at once.

Kept: each answer, the moment it arrives, in the session's journal, by URL, name, version, and the tensors and meaning
given as options. When a request fails for good, those on the wire are still awaited and kept; then the error is raised.
The token comes from the environment variable `token_env`, or a user name and password from the URL; neither they nor
the URL's query appear in messages, digests or journals, and no redirect is followed. The usual variable's token goes to
whatever host the URL names: where endpoints of several owners are asked, give each a variable of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final
from urllib.parse import quote, unquote, urlsplit

import numpy as np

from locard.errors import ParameterError, RemoteModelError, check_number
from locard.models._http import TOKEN_ENV, Credentials, Limits, Line
from locard.models._options import batch_rows, refuse_unknown
from locard.models._protocol_v2 import (
    DATATYPES,
    DTYPES,
    Codec,
    Reply,
    Request,
    Tensor,
    check_fit,
    choose,
    domain_of,
    read_json,
    read_tensors,
)
from locard.models.base import Adapter, Model, adapters
from locard.models.callable import native_access
from locard.records import Access, Domain

if TYPE_CHECKING:
    from collections.abc import Generator

_PATH = re.compile(r"(?P<base>.*?)/v2(/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(/infer)?)?/*")
_EXPECTED = "http(s)://HOST[:PORT]/v2/models/NAME[/versions/VERSION]"
# In one request: few enough that little is lost when a run is killed, and that the JSON stays at some megabytes.
INPUTS, NUMBERS = 32, 2**18
_WORDS = {"name", "version", "input", "output", "outputs", "token_env"}


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Address:
    """Where a model is served.

    Args:
        server: scheme, host, port and path prefix, without credentials.
        name: of the model.
        version: of the model, or None for the one that the server chooses.
        login: user name and password, or None.
        query: of the URL, sent along and never shown.
    """

    server: str
    name: str
    version: str | None
    login: tuple[str, str] | None
    query: str

    @classmethod
    def parse(cls, source: str, *, name: str | None = None, version: str | None = None) -> Address:
        """Read a model's URL, or a server's together with a name.

        Raises:
            ParameterError: it is no http(s) URL of a model, or URL and options contradict each other.
        """
        try:
            url = urlsplit(source)
            host, port = url.hostname, url.port
        except ValueError:
            raise ParameterError(
                f"the endpoint's URL has a host or port that cannot be; expected {_EXPECTED}"
            ) from None
        if url.scheme.lower() not in ("http", "https") or not host or not source.isprintable() or " " in source:
            raise ParameterError(f"the endpoint's URL names no host that can be asked; expected {_EXPECTED}")
        place = f"{url.scheme.lower()}://{f'[{host}]' if ':' in host else host}{f':{port}' if port is not None else ''}"
        match = _PATH.fullmatch(url.path)
        if match is None and "/v2/" in f"{url.path}/":
            raise ParameterError(f"no model has the address {place + url.path!r}; expected {_EXPECTED}")
        base = url.path.rstrip("/") if match is None else match["base"]
        told = {"name": match and match["name"], "version": match and match["version"]}
        for key, option in (("name", name), ("version", version)):
            text = told[key]
            if text is not None and option is not None and unquote(text) != option:
                raise ParameterError(
                    f"{key}={option!r} contradicts the URL, which says {unquote(text)!r}; give one of them"
                )
        name = unquote(told["name"]) if told["name"] else name
        version = unquote(told["version"]) if told["version"] else version
        if not name:
            raise ParameterError(
                f"{place + base!r} is a server and the protocol does not list its models: give the name of one, as "
                f"name='...' or {_EXPECTED}"
            )
        login = (unquote(url.username), unquote(url.password or "")) if url.username is not None else None
        return cls(server=place + base, name=name, version=version, login=login, query=url.query)

    @property
    def model(self) -> str:
        """The model's URL, fit to be shown: no credentials, no query."""
        versions = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"{self.server}/v2/models/{quote(self.name, safe='')}{versions}"

    def to(self, path: str = "") -> str:
        """What is asked: the model's URL with a path, and the query."""
        return f"{self.model}{path}{f'?{self.query}' if self.query else ''}"


@final
class EndpointModel(Model):
    """A model behind an endpoint. Making it asks for its metadata.

    Args:
        source: URL of the model, or of the server.
        domain: what the inputs are; None where the metadata shall tell.
        name: the model's name, where the URL is the server's.
        version: the model's version, where it matters and the URL does not say.
        input: the input tensor, where the model has several or the server does not say.
        output: the output tensor, likewise.
        outputs: what answers are: "labels", "probabilities", "logits" or "values"; None for labels where the metadata
            says whole numbers of shape [n] or [n, 1], else probabilities.
        classes: number of classes, where answers are labels and the scheme must know.
        token_env: environment variable that holds a bearer token, if set.
        binary: send and receive values as bytes, where the server has that extension.
        batch_size: inputs in one request; None for at most 32 and 2**18 numbers; 1 where the batch axis is 1.
        limits: how long, how often, how much.

    Raises:
        ParameterError: the URL or an option is wrong, or the model takes other inputs.
        RemoteModelError: the endpoint does not give its metadata.
    """

    remote: ClassVar[bool] = True

    def __init__(
        self,
        source: str,
        *,
        domain: Domain | None = None,
        name: str | None = None,
        version: str | None = None,
        input: str | None = None,
        output: str | None = None,
        outputs: str | None = None,
        classes: int | None = None,
        token_env: str = TOKEN_ENV,
        binary: bool = False,
        batch_size: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        batch_size = None if batch_size is None else batch_rows(batch_size)
        address = Address.parse(source, name=name, version=version)
        self.source = address.model
        self._identity = "\n".join(["endpoint", self.source, input or "", output or "", outputs or ""])
        self._line = Line(
            who=self.source,
            limits=limits or Limits(),
            credentials=Credentials(token_env=token_env, login=address.login),
        )

        def understand(_: int, reply: Reply) -> tuple[Tensor, Tensor | None, Domain, Access]:
            document = read_json(reply.body, self.source)
            asked = choose(read_tensors(document, "inputs", self.source), input, "input", self.source)
            answer = choose(read_tensors(document, "outputs", self.source), output, "output", self.source)
            tensor, inputs = _input(asked, domain, self.source)
            native = _meaning(answer, outputs, self.source)
            for used in (tensor, answer):
                if used is not None and used.datatype == "FP16" and not binary:
                    raise ParameterError(
                        f"{self.source} speaks FP16 ({used.text}), which JSON has not: give binary=True"
                    )
            return tensor, answer, inputs, native

        request = Request(method="GET", url=address.to())
        ((_, (tensor, answer, self.domain, self.native)),) = self._line.exchange([lambda: request], understand)
        self.grants = self.native.implied
        self._width = _width(answer, self.native, classes, self.source)
        self.classes = None if self.native is Access.VALUES else self._width
        self._codec = Codec(who=self.source, url=address.to("/infer"), input=tensor, output=answer, binary=binary)
        one_by_one = tensor.shape is not None and tensor.shape[0] == 1
        most = 1 if one_by_one else max(1, min(INPUTS, NUMBERS // int(np.prod(self.domain.shape))))
        self.batch_size = most if batch_size is None else batch_size

    @property
    def digest(self) -> str:
        """SHA-256 over URL, name, version, and the tensors and meaning given as options."""
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def stream(self, x: np.ndarray) -> Generator[tuple[slice, np.ndarray]]:
        """See `Model.stream`; requests run side by side, so that chunks come in any order.

        Raises:
            RemoteModelError: a request failed for good; every answer that arrived was yielded before.
        """
        parts = [slice(start, min(start + self.batch_size, len(x))) for start in range(0, len(x), self.batch_size)]
        requests = [partial(self._codec.request, x[part]) for part in parts]

        def read(index: int, reply: Reply) -> np.ndarray:
            n = parts[index].stop - parts[index].start
            return self._checked(self._codec.answers(reply, n), n)

        for index, answers in self._line.exchange(requests, read):
            yield parts[index], answers

    def _forward(self, x: np.ndarray) -> np.ndarray:
        requests = [partial(self._codec.request, x)]
        ((_, answers),) = self._line.exchange(requests, lambda _, reply: self._codec.answers(reply, len(x)))
        return answers

    def _checked(self, answers: np.ndarray, n: int) -> np.ndarray:
        if self.native is Access.LABELS:
            answers = answers.reshape(n) if answers.shape == (n, 1) else answers
        elif self._width is not None and answers.ndim == 2 and answers.shape[1] != self._width:
            raise RemoteModelError(
                f"{self.source} answers {answers.shape[1]} numbers to an input; {self._width} were declared or came "
                "before: the model behind it has changed, or two answer in turn; name a version"
            )
        try:
            answers = super()._checked(answers, n)
        # The base blames the caller's parameters; here the endpoint's answer is what is wrong.
        except ParameterError as error:
            raise RemoteModelError(str(error)) from None
        if self.native is not Access.LABELS:
            self._width = answers.shape[1]
            self.classes = None if self.native is Access.VALUES else self._width
        return answers


def _input(tensor: Tensor | None, domain: Domain | None, who: str) -> tuple[Tensor, Domain]:
    """The input tensor with its datatype, and the domain that it carries."""
    if tensor is None:
        raise ParameterError(f"{who} does not say what its inputs are: give input='name' and domain=Domain(...)")
    if tensor.datatype is None:
        if domain is None:
            raise ParameterError(f"{who} does not say what its inputs are: give domain=Domain(...)")
        tensor = Tensor(name=tensor.name, datatype=DATATYPES[domain.dtype])
    domain = domain_of(tensor, who) if domain is None else domain
    check_fit(tensor, domain, who)
    return tensor, domain


def _meaning(tensor: Tensor | None, outputs: str | None, who: str) -> Access:
    """The rung that an output answers at, and whether its declaration agrees."""
    whole = tensor is not None and np.dtype(DTYPES.get(tensor.datatype or "", "O")).kind in "iu"
    flat = tensor is not None and tensor.shape is not None and tensor.shape[1:] in ((), (1,)) and tensor.shape != ()
    native = native_access(outputs or ("labels" if whole and flat else "probabilities"))
    if tensor is None or tensor.shape is None:
        return native
    if tensor.datatype not in DTYPES:
        raise ParameterError(f"{who} answers {tensor.text}; expected numbers: choose another output='name'")
    if native is Access.LABELS and not (whole and flat):
        raise ParameterError(f"{who} answers {tensor.text}; labels are whole numbers of shape [n] or [n, 1]")
    if native is not Access.LABELS and len(tensor.shape) != 2:
        raise ParameterError(
            f"{who} answers {tensor.text}; expected [n, classes] for {native.text.lower()}: choose another "
            "output='name', or say what it is with outputs="
        )
    return native


def _width(tensor: Tensor | None, native: Access, classes: int | None, who: str) -> int | None:
    """How many numbers answer an input, or how many labels there are, as far as it is known before the first answer."""
    declared = None
    if tensor is not None and tensor.shape is not None and native is not Access.LABELS and tensor.shape[1] > 0:
        declared = tensor.shape[1]
    if classes is None:
        return declared
    check_number("classes", classes, low=1, high=2**31)
    if native is Access.VALUES or declared not in (None, classes):
        what = "values, which have no classes" if native is Access.VALUES else f"{declared} numbers to an input"
        raise ParameterError(f"{who} answers {what}; got classes={classes}")
    return classes


@adapters.register("endpoint")
class EndpointAdapter(Adapter):
    """An http(s) URL."""

    @classmethod
    def recognises(cls, source: Any) -> bool:
        """Whether it is text that begins as a URL of the web does."""
        return isinstance(source, str) and source.lower().startswith(("http://", "https://"))

    @classmethod
    def open(cls, source: Any, *, like: Domain | None, trust: bool, **options: Any) -> Model:
        """Ask for the model's metadata; the options are those of `EndpointModel`, those of its limits among them."""
        limits = {field.name for field in fields(Limits)}
        refuse_unknown(options, limits | {"domain", "classes", "batch_size", "binary"} | _WORDS, of="an endpoint")
        for key in _WORDS & set(options):
            if not isinstance(options[key], str | None):
                raise ParameterError(f"{key} must be text; got {options[key]!r}")
        chosen = Limits(**{key: options.pop(key) for key in limits & set(options)})
        return EndpointModel(source, **{"domain": like, **options}, limits=chosen)
