"""Client of a chat server that speaks OpenAI's protocol: hosted, ollama, vLLM, llama.cpp, or any other.

The only file that imports `openai`, whose client retries rate limits (429, Retry-After honoured), server
errors, time-outs and dropped connections with back-off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import PurePath
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ost.descriptors.write.journal import Answer
from ost.descriptors.write.question import Message
from ost.errors import OstError, UsageError, first_line

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "OPENAI_API_KEY"
REQUESTS_TRIED, TIMEOUT_S = 8, 300.0
MAX_TOKENS = 4000
HOSTED = "api.openai.com"
# `owned_by` of a model, as each server lists it.
SERVER_KINDS = {"llamacpp": "llama.cpp", "vllm": "vLLM", "library": "ollama"}


class RequestFailed(OstError):
    """A request that the server refuses; another request may succeed."""


class Unanswered(RequestFailed):
    """A request that met only rate limits, server errors, time-outs or dropped connections."""


class ServerFailed(OstError):
    """A server that answers no request."""


def _not_an_address(error: Exception) -> UsageError:
    return UsageError(
        f"that is not the address of a server ({first_line(error)})", "name one with {base_url}"
    )


class Server:
    """Client of one server; safe to use from several threads; closes its connections as a context manager.

    Args:
        model: the server's name for it; None takes the only model on offer.
        base_url: such as "http://localhost:11434/v1"; None takes OPENAI_BASE_URL, or OpenAI's own.
        temperature: None leaves it to the server.
        tries: for a request that meets a rate limit, a server error, a time-out or a dropped connection.
        timeout: seconds until a request without an answer counts as lost.

    Attributes:
        model: the model asked.
        kind: "OpenAI", "ollama", "vLLM", "llama.cpp", or "other".
        notices: the options that the server refused, one sentence each.

    Raises:
        UsageError: the package openai is missing, no key is set for a server that needs one, or the server
            offers several models and none is named.
        ServerFailed: no server answers.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        *,
        temperature: float | None = None,
        tries: int = REQUESTS_TRIED,
        timeout: float = TIMEOUT_S,
    ) -> None:
        if find_spec("openai") is None:
            raise UsageError("ost describe needs the package openai; install it with: pip install openai")
        key = os.environ.get(KEY, "").strip()
        url = base_url or os.environ.get("OPENAI_BASE_URL") or f"https://{HOSTED}/v1"
        try:
            address = urlsplit(url)
        except ValueError as error:
            raise _not_an_address(error) from None
        self._hosted = address.hostname == HOSTED
        if self._hosted and not key:
            raise UsageError(f"{HOSTED} needs a key", f"set {KEY}", "name another server with {base_url}")
        from openai import OpenAI, OpenAIError

        try:
            self._secrets = [secret for secret in (key, address.password) if secret]
            # Local servers need no key, but the client does.
            self._client: OpenAI = OpenAI(
                api_key=key or "none", base_url=url, max_retries=tries - 1, timeout=timeout
            )
        except (OpenAIError, ValueError) as error:
            raise _not_an_address(error) from None
        self.notices: list[str] = []
        self._options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "response_format": None}
        if temperature is not None:
            self._options["temperature"] = temperature
        self._options_lock = Lock()
        try:
            self.model, self.kind = self._find_model(model)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def model_name(self) -> str:
        """The model's name, without the folder that a local server loads it from."""
        path = PurePath(self.model)
        return path.name if path.is_absolute() else self.model

    def ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        """Return one answer; an option that the server refuses is left out from then on.

        Raises:
            RequestFailed: this request gets no answer.
            ServerFailed: no request will get one.
        """
        import openai

        form = {"name": "descriptors", "strict": True, "schema": schema}
        options = dict(self._options)
        create: Any = self._client.chat.completions.create
        while True:
            if "response_format" in options:
                options["response_format"] = {"type": "json_schema", "json_schema": form}
            try:
                reply: Any = create(model=self.model, messages=list(messages), **options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused = _refused(str(error), options)
                if refused is None:
                    raise RequestFailed(f"the server refuses the request: {self._clean(error)}") from None
                options = _without(options, refused)
                continue
            except (
                openai.AuthenticationError,
                openai.PermissionDeniedError,
                openai.NotFoundError,
            ) as error:
                raise ServerFailed(f"the server refuses every request: {self._clean(error)}") from None
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                raise Unanswered(f"no answer after every try: {self._clean(error)}") from None
            except (openai.OpenAIError, ValueError):
                return Answer("")  # a reply outside the protocol counts as empty
            self._drop_refused(options)
            return _read(reply)

    def _find_model(self, model: str | None) -> tuple[str, str]:
        """Return the model to ask, and the kind of server that offers it."""
        import openai

        try:
            listed: Any = list(self._client.with_options(max_retries=1, timeout=20).models.list())
        except openai.APIConnectionError as error:
            url = self._client.base_url
            where = f"{url.host}:{url.port}" if url.port else url.host or str(url)
            raise ServerFailed(
                f"no server answers at {where} ({self._clean(error)})",
                "start it",
                "name another with {base_url}",
            ) from None
        except openai.AuthenticationError as error:
            raise ServerFailed(f"the server refuses the key in {KEY}: {self._clean(error)}") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            listed = []  # some servers list no models, and still answer
        offered = {str(entry.id): str(getattr(entry, "owned_by", "")) for entry in listed}
        if model is None:
            if len(offered) != 1:
                examples = ", ".join(sorted(offered)[:5]) or "none that it lists"
                raise UsageError(
                    f"the server has {len(offered)} models ({examples})", "name one with {model}"
                )
            model = next(iter(offered))
        owner = offered.get(model) or next(iter(offered.values()), "")
        return model, "OpenAI" if self._hosted else SERVER_KINDS.get(owner, "other")

    def _drop_refused(self, options: Mapping[str, Any]) -> None:
        """Drop the options that this request had to leave out, so that the next one does not send them."""
        with self._options_lock:
            for name in set(self._options) - set(options):
                del self._options[name]
                if name == "max_tokens":
                    self._options["max_completion_tokens"] = MAX_TOKENS
                else:
                    what = "JSON schema" if name == "response_format" else name
                    self.notices.append(f"the server takes no {what}; it was left out")

    def _clean(self, error: Exception) -> str:
        text = first_line(error, 300)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _refused(message: str, options: Mapping[str, Any]) -> str | None:
    """Return the option that a refusal is about; if it names none, the schema, which fewest servers support."""
    named = next((name for name in options if name in message), None)
    return named or ("response_format" if "response_format" in options else None)


def _without(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    rest = {key: value for key, value in options.items() if key != name}
    return rest | ({"max_completion_tokens": MAX_TOKENS} if name == "max_tokens" else {})


def _read(reply: Any) -> Answer:
    """Return the text and the token counts of a reply; missing parts count as empty."""
    try:
        text = reply.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        text = None
    usage = getattr(reply, "usage", None)
    tokens = [getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens")]
    return Answer(text if isinstance(text, str) else "", *(n if isinstance(n, int) else 0 for n in tokens))
