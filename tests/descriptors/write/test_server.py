"""Any server of the protocol: its kind, its model, what it does not take, and a key that is never shown."""

import json

import pytest

from ost.descriptors.write.question import Question
from ost.descriptors.write.server import RequestFailed, Server, ServerFailed, Unanswered
from ost.errors import UsageError

from .chat_server import MODEL, running

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def ask_at():
    """Servers that are closed when the test is over."""
    opened = []

    def open_server(*where, **settings):
        opened.append(Server(*where, **settings))
        return opened[-1]

    yield open_server
    for server in opened:
        server.close()


MESSAGES = Question().messages("class 1")
SCHEMA = Question().schema()


@pytest.mark.parametrize(
    ("owner", "kind"),
    [("llamacpp", "llama.cpp"), ("vllm", "vLLM"), ("library", "ollama"), ("somebody", "other")],
)
def test_the_kind_of_server_is_told_by_how_it_lists_its_models(ask_at, owner, kind):
    with running(owner=owner) as server:
        asker = ask_at(base_url=server.url)
    assert (asker.model, asker.kind) == (MODEL, kind)


def test_a_server_with_several_models_wants_one_named(ask_at):
    with running(models=("small", "large")) as server:
        with pytest.raises(UsageError, match=r"2 models .large, small.; name one with model"):
            ask_at(base_url=server.url)
        assert ask_at("large", server.url).model == "large"


def test_a_server_that_lists_nothing_is_asked_all_the_same(ask_at):
    with running(models=()) as server:
        with pytest.raises(UsageError, match="0 models"):
            ask_at(base_url=server.url)
        assert ask_at("any", server.url).ask(MESSAGES, SCHEMA).tokens_in == 100


@pytest.mark.parametrize(
    ("model", "told"), [("/models/a folder/tiny.gguf", "tiny.gguf"), ("org/name", "org/name"), ("m", "m")]
)
def test_a_model_is_told_without_the_folder_it_was_loaded_from(ask_at, model, told):
    with running(models=(model,)) as server:
        assert ask_at(base_url=server.url).model_name == told


def test_nobody_there_is_one_sentence_that_says_where(ask_at):
    with running() as server:
        url = server.url
    with pytest.raises(ServerFailed, match=r"no server answers at 127.0.0.1:\d+ .*base_url"):
        ask_at(base_url=url)


@pytest.mark.parametrize("url", ["ftp://x/v1", "nonsense", "http://[::1/v1"])
def test_what_is_no_address_is_said(ask_at, url):
    with pytest.raises((UsageError, ServerFailed)) as raised:
        ask_at("m", url)
    assert "\n" not in str(raised.value)


def test_openai_itself_wants_a_key(ask_at):
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        ask_at("gpt-whatever")


def test_the_key_is_sent_and_never_shown(ask_at, monkeypatch):
    with running(key=KEY) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        asker = ask_at(base_url=server.url)
        assert asker.ask(MESSAGES, SCHEMA).text
        server.key = "another"
        for ask in (lambda: ask_at(base_url=server.url), lambda: asker.ask(MESSAGES, SCHEMA)):
            with pytest.raises(ServerFailed) as raised:
                ask()
            assert "Incorrect API key provided: ***" in str(raised.value)
            assert KEY not in str(raised.value)
            assert raised.value.__cause__ is None


@pytest.mark.parametrize("option", ["response_format", "temperature", "max_tokens"])
def test_an_option_that_the_server_refuses_is_left_out_and_that_is_said(ask_at, option):
    with running() as server:
        server.refuse_options = {option}
        asker = ask_at(base_url=server.url, temperature=0.3)
        for _ in range(3):
            assert json.loads(asker.ask(MESSAGES, SCHEMA).text)["spatial"]
    assert [option in body for body in server.requests] == [True, False, False, False]
    if option == "max_tokens":
        assert all("max_completion_tokens" in body for body in server.requests[1:])
        assert asker.notices == []
    else:
        what = {"response_format": "JSON schema"}.get(option, option)
        assert asker.notices == [f"the server takes no {what}; it was left out"]


def test_a_refusal_that_names_nothing_is_met_without_the_schema(ask_at):
    with running(faults={"class 1": [400]}) as server:
        asker = ask_at(base_url=server.url)
        assert asker.ask(MESSAGES, SCHEMA).text
    assert ["response_format" in body for body in server.requests] == [True, False]


def test_a_refusal_of_one_request_takes_no_option_from_the_others(ask_at):
    with running(faults={"class 1": [400, 400]}) as server:
        asker = ask_at(base_url=server.url)
        with pytest.raises(RequestFailed, match="400 on demand"):
            asker.ask(MESSAGES, SCHEMA)
        asker.ask(MESSAGES, SCHEMA)
    assert "response_format" in server.requests[-1]
    assert asker.notices == []


def test_every_try_is_made_before_a_request_counts_as_unanswered(ask_at):
    with running(faults={"class 1": [500] * 9}) as server:
        asker = ask_at(base_url=server.url, tries=3)
        with pytest.raises(Unanswered, match=r"no answer after every try: .*500 on demand"):
            asker.ask(MESSAGES, SCHEMA)
        assert server.attempts["class 1"] == 3


def test_a_model_that_is_not_there_ends_the_run(ask_at):
    with running(faults={"class 1": [404]}) as server, pytest.raises(ServerFailed, match="every request"):
        ask_at(base_url=server.url).ask(MESSAGES, SCHEMA)
