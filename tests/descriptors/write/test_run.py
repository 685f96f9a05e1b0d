"""Class names in, a checked pack out, whatever the server does; nothing is paid for twice."""

import json
import time

import pytest

from ost.descriptors.pack import Pack, PackClass, load_pack
from ost.descriptors.spec import class_list
from ost.descriptors.write.question import Question
from ost.descriptors.write.run import write_pack
from ost.descriptors.write.server import Server, ServerFailed
from ost.errors import PackError, UsageError
from ost.types import Templates, TextContext

from .chat_server import MODEL, good_answer, running

NAMES = [f"class {i}" for i in range(12)]
WORDS = TextContext(30, lambda text: len(text.split()), Templates("{descriptor}", "{name}: {descriptor}", ""))


def write(server, output, names=NAMES, question=None, **settings):
    of_server = {key: settings.pop(key) for key in ("tries", "timeout") if key in settings}
    with Server(base_url=server.url, **of_server) as asker:
        return write_pack(class_list(names), question or Question(), asker, output, **settings)


def leftovers(output):
    return sorted(path.name for path in output.parent.iterdir() if path != output)


def test_every_class_gets_its_descriptors_in_the_order_asked(tmp_path):
    with running(owner="vllm") as server:
        written = write(server, tmp_path / "pack.json")
    pack = load_pack(tmp_path / "pack.json")
    assert pack.names == tuple(NAMES)
    for item in pack.classes:
        expected = good_answer(item.name)
        assert (list(item.spatial), list(item.temporal)) == (expected["spatial"], expected["temporal"])
    assert written.failed == ()
    assert (written.requests, written.tokens_in, written.tokens_out) == (12, 1200, 600)
    assert dict(server.answered) == dict.fromkeys(NAMES, 1)
    assert leftovers(tmp_path / "pack.json") == []


def test_the_pack_tells_where_it_comes_from(tmp_path):
    with running(owner="vllm") as server:
        write(server, tmp_path / "pack.json", question=Question(2, "kitchen", "German"), temperature=0.5)
    told = json.loads((tmp_path / "pack.json").read_text())["provenance"]
    assert told.pop("hash") == load_pack(tmp_path / "pack.json").hash
    assert len(told.pop("date")) == len("2026-01-01")
    assert told == {
        "method": "written by an LLM (ost describe)",
        "model": MODEL,
        "server": "vLLM",
        "prompt_version": 1,
        "count": 2,
        "setting": "kitchen",
        "language": "German",
        "temperature": 0.5,
    }


@pytest.mark.parametrize("fault", [429, 500, 503, "drop", "half reply"])
def test_a_server_in_trouble_is_asked_again(tmp_path, fault):
    started = time.monotonic()
    with running(faults={"class 3": [fault], "class 7": [fault]}) as server:
        written = write(server, tmp_path / "pack.json")
    assert not written.failed
    assert server.attempts["class 3"] == server.attempts["class 7"] == 2
    assert dict(server.answered) == dict.fromkeys(NAMES, 1)
    if fault == 429:  # it said to wait for a second
        assert time.monotonic() - started >= 1


def test_an_answer_that_is_too_late_is_asked_for_again(tmp_path):
    with running(faults={"class 3": ["slow"]}) as server:
        written = write(server, tmp_path / "pack.json", timeout=0.7)
        assert server.attempts["class 3"] == 2
    assert not written.failed


def with_(name, **changes):
    return json.dumps({**good_answer(name), **changes})


FAULTY = {
    "half an answer": ('{"spatial": ["a cup on a', "breaks off before its end"),
    "prose": ("Sure! Here are some descriptors.", "is not JSON"),
    "nothing": ("", "it is empty"),
    "a reply that is no JSON": ("not json at all", "it is empty"),
    "wrong schema": ('{"static": [], "steps": []}', "no object with both"),
    "wrong type": (with_("class 3", spatial="a red cup"), "'spatial' is not a list of texts"),
    "numbers": (with_("class 3", spatial=[1, 2, 3, 4]), "'spatial' is not a list of texts"),
    "wrong count": (
        with_("class 3", temporal=["lifts a cup", "sips"]),
        "it has 2 temporal descriptors, not 4",
    ),
    "an empty text": (with_("class 3", spatial=["", "b on a", "c on a", "d on a"]), "is empty"),
    "doubles": (with_("class 3", spatial=["A cup", "a cup", "c on a", "d on a"]), "stands twice"),
    "the name itself": (with_("class 3", spatial=["a class 3 on it", "b", "c", "d"]), "says the name"),
    "too long": (with_("class 3", spatial=["word " * 20, "b", "c", "d"]), "is longer than 16 words"),
    "half a character": (with_("class 3", spatial=["\ud83d cup", "b", "c", "d"]), "cannot be seen"),
    "signs unseen": (with_("class 3", spatial=["a\u202ecup", "b", "c", "d"]), "cannot be seen"),
    "very long": ("x" * 100_000, "more than 64000"),
    "deep": ("[" * 30_000 + '{"spatial":' * 2000, "is not JSON"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_a_faulty_answer_is_asked_for_again_with_its_fault_named(tmp_path, kind):
    answer, told = FAULTY[kind]
    with running(faults={"class 3": [answer]}) as server:
        written = write(server, tmp_path / "pack.json")
    assert not written.failed
    assert server.attempts["class 3"] == 2
    again = next(body for body in server.requests if len(body["messages"]) == 4)
    assert told in again["messages"][3]["content"]
    assert again["messages"][2]["role"] == "assistant"
    assert load_pack(tmp_path / "pack.json").find("class 3").spatial == tuple(
        good_answer("class 3")["spatial"]
    )


def test_a_prompt_with_more_tokens_than_the_tower_reads_is_a_fault(tmp_path):
    tight = TextContext(8, WORDS.count, WORDS.templates)
    long = with_("class 3", temporal=["a b c d e f g h", "b", "c", "d"])
    with running(faults={"class 3": [long]}) as server:
        assert not write(server, tmp_path / "pack.json", context=tight).failed
    assert any("tokens" in body["messages"][-1]["content"] for body in server.requests)


@pytest.mark.parametrize(
    "wrapped",
    [
        "Here you are:\n```json\n{}\n```\nAnything else?",
        '<think>maybe {{"spatial": ["draft"], "temporal": []}}</think>{}',
        "{}",
    ],
)
def test_a_server_without_schemas_is_understood(tmp_path, wrapped):
    good = json.dumps(good_answer("class 3"))
    with running(
        faults={"class 3": [wrapped.replace("{{", "{").replace("}}", "}").replace("{}", good)]}
    ) as server:
        assert not write(server, tmp_path / "pack.json").failed
    assert server.attempts["class 3"] == 1


def test_bullets_numbers_and_full_stops_are_tidied_away(tmp_path):
    answer = with_("class 3", spatial=["1. a red cup.", "- a blue  jug", '"a white bowl"', "(4) a pan,"])
    with running(faults={"class 3": [answer]}) as server:
        write(server, tmp_path / "pack.json")
    found = load_pack(tmp_path / "pack.json").find("class 3").spatial
    assert found == ("a red cup", "a blue jug", "a white bowl", "a pan")


def test_a_class_is_asked_about_at_most_four_times_and_then_reported(tmp_path):
    with running(faults={"class 3": ["no"] * 9}) as server:
        written = write(server, tmp_path / "pack.json")
    assert server.attempts["class 3"] == 4
    assert [outcome.name for outcome in written.failed] == ["class 3"]
    assert "is not JSON" in written.failed[0].faults[0]
    pack = load_pack(tmp_path / "pack.json")
    assert pack.names == tuple(name for name in NAMES if name != "class 3")
    assert pack.provenance["missing"] == ["class 3"]


def test_the_next_run_asks_only_about_what_is_missing(tmp_path):
    with running(faults={"class 3": ["no"] * 4}) as server:
        write(server, tmp_path / "pack.json")
        before = dict(server.answered)
        written = write(server, tmp_path / "pack.json", names=[*NAMES, "class 99"])
        asked = {name: n - before.get(name, 0) for name, n in server.answered.items()}
    assert {name for name, n in asked.items() if n} == {"class 3", "class 99"}
    assert not written.failed
    pack = load_pack(tmp_path / "pack.json")
    assert pack.names == (*NAMES, "class 99")
    assert "missing" not in pack.provenance


def test_no_class_at_all_leaves_no_file(tmp_path):
    with running(faults={name: ["no"] * 4 for name in NAMES}) as server:
        written = write(server, tmp_path / "pack.json")
    assert written.pack is None
    assert len(written.failed) == len(NAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_request_that_is_refused_for_what_it_asks_loses_no_other_class(tmp_path):
    with running(faults={"class 3": [400] * 20}) as server:
        written = write(server, tmp_path / "pack.json")
    assert [outcome.name for outcome in written.failed] == ["class 3"]
    assert "400 on demand" in written.failed[0].faults[0]
    assert len(load_pack(tmp_path / "pack.json")) == len(NAMES) - 1


def test_a_server_that_falls_silent_ends_the_run_and_loses_nothing(tmp_path):
    output = tmp_path / "pack.json"
    silent = {name: [500] * 50 for name in NAMES[4:]}
    with running(faults=silent) as server:
        with pytest.raises(ServerFailed, match="4 of 12 classes are done and kept, run the same command"):
            write(server, output, at_once=1, tries=2)
        assert not output.exists()
        server.faults.clear()
        assert not write(server, output).failed
        assert dict(server.answered) == dict.fromkeys(NAMES, 1)
    assert load_pack(output).names == tuple(NAMES)


def test_as_many_requests_are_in_flight_as_asked(tmp_path):
    with running(delay=0.2) as server:
        write(server, tmp_path / "pack.json", at_once=3)
    assert server.most_in_flight == 3


def test_a_run_stopped_between_two_tries_goes_on_with_the_second(tmp_path):
    """The faulty first answer was paid for: it is neither lost nor asked for again."""
    output, names = tmp_path / "pack.json", NAMES[3:6]
    with running(faults={"class 3": ["no", 500], "class 4": [500], "class 5": [500]}) as server:
        with pytest.raises(ServerFailed, match="0 of 3 classes are done"):
            write(server, output, names, at_once=1, tries=1)
        seen = len(server.requests)
        assert not write(server, output, names, at_once=1).failed
    first, *others = server.requests[seen:]
    assert [message["content"] for message in first["messages"][2:3]] == ["no"]
    assert len(first["messages"]) == 4
    assert len(others) == 2
    assert server.answered["class 3"] == 2


def test_other_settings_do_not_mix_with_a_journal_or_a_pack(tmp_path):
    output = tmp_path / "pack.json"
    with running(faults={name: [500] * 50 for name in NAMES[4:]}) as server:
        with pytest.raises(ServerFailed):
            write(server, output, at_once=1, tries=1)
        with pytest.raises(UsageError, match=r"begun with other settings .*count: 4 -> 2"):
            write(server, output, question=Question(2))
        server.faults.clear()
        write(server, output)
        with pytest.raises(UsageError, match=r"is there already .*language: English -> German"):
            write(server, output, question=Question(language="German"))
        before = sum(server.answered.values())
        write(server, output, question=Question(2), overwrite=True)
        assert sum(server.answered.values()) == before + len(NAMES)
    assert len(load_pack(output).find("class 3").spatial) == 2


def test_a_pack_written_by_hand_is_not_overwritten(tmp_path):
    from ost.descriptors.pack import save_pack

    save_pack(Pack("mine", (PackClass("class 1", ("a cup",), ("sips",)),)), tmp_path / "pack.json")
    with running() as server, pytest.raises(UsageError, match="is there already"):
        write(server, tmp_path / "pack.json")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\n",
        b"[1]\n",
        b'{"class": 5, "text": "x", "tokens_in": 1, "tokens_out": 1}\n',
        b'{"class": "a"}\n',
    ],
)
def test_a_damaged_journal_is_named(tmp_path, content):
    (tmp_path / "pack.json.journal").write_bytes(content)
    with running() as server, pytest.raises(PackError, match="line 1 is not a line of a journal"):
        write(server, tmp_path / "pack.json")


def test_two_runs_do_not_write_one_pack(tmp_path):
    from ost.descriptors.write.journal import Journal

    first = Journal(tmp_path / "pack.json.journal", {})
    with running() as server, pytest.raises(UsageError, match="another run is writing it"):
        write(server, tmp_path / "pack.json")
    first.close()


def test_classes_hear_the_names_they_could_be_mistaken_for(tmp_path):
    asked = Question(setting="kitchen", neighbours={"class 1": ("class 2", "class 3")})
    with running() as server:
        write(server, tmp_path / "pack.json", question=asked)
    first = next(b for b in server.requests if "Action: class 1\n" in b["messages"][1]["content"] + "\n")
    assert "mistaken for: class 2; class 3" in first["messages"][1]["content"]
    assert all("filmed: kitchen" in body["messages"][1]["content"] for body in server.requests)
    form = first["response_format"]["json_schema"]
    assert form["schema"]["properties"]["spatial"]["minItems"] == 4
