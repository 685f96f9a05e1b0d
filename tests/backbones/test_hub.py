"""Weights by name, from a hub that this file plays on 127.0.0.1."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.utils import close_session

from ost.backbones.catalog import BACKBONES
from ost.backbones.load import load_backbone
from ost.backbones.resolve import find_weights
from ost.errors import UsageError, WeightsError
from ost.weights.hub import fetch, show_licence_once
from ost.weights.pins import PINS, Pin
from ost.weights.published import PUBLISHED

from .makers import pixels, write_open_clip, write_ost, write_safetensors

OPENAI = BACKBONES["ViT-B-16/openai"].weights
K400 = PUBLISHED["ost/k400"].weights
PINNED = PINS[OPENAI.repo]
SAFETENSORS, BIN = (f"/{OPENAI.repo}/resolve/{PINNED.revision}/{file}" for file in OPENAI.files)
SPACE = f"/spaces/{K400.repo}/resolve/main/{K400.files[0]}"
HELP = 'download that file by other means and pass it with weights=FILE, or use name="lite"'


class Hub:
    """A hub: `files` by path, `refusals` (status, error code) by path, `requests` as they came.

    Where `breaks_after` is set, a download ends after that many bytes, and `answers_again` tells whether the
    hub goes on after that or is out of order.
    """

    def __init__(self):
        self.files, self.refusals, self.requests = {}, {}, []
        self.breaks_after = None
        self.answers_again = True
        self.broken = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def asked(self, method):
        return [request for request in self.requests if request[0] == method]

    def handler(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(with_body=False)

            def do_GET(self):
                self.answer(with_body=True)

            def answer(self, with_body):
                if "/resolve/" in self.path:  # huggingface_hub also asks for things of its own
                    hub.requests.append((self.command, self.path, self.headers.get("Range")))
                content = hub.files.get(self.path)
                commit = PINNED.revision if PINNED.revision in self.path else "c" * 40
                status, code = hub.refusals.get(self.path, (404, "EntryNotFound"))
                if content is None or self.path in hub.refusals or (hub.broken and not hub.answers_again):
                    self.send_response(500 if hub.broken else status)
                    self.send_header("X-Repo-Commit", commit)
                    if not hub.broken:
                        self.send_header("X-Error-Code", code)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                start = int(
                    (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-")
                )
                self.send_response(206 if start else 200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit)
                self.send_header("Content-Length", str(len(content) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.end_headers()
                if with_body:
                    self.send(content[start:])

            def send(self, content):
                if hub.breaks_after is not None:
                    content = content[: hub.breaks_after]
                    hub.breaks_after, hub.broken = None, True
                    self.close_connection = True
                self.wfile.write(content)

        return Handler


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    constants = huggingface_hub.constants
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # else 10 MB are the least that is kept
    # The files that this hub plays with are small and random, so their hashes are not those of the real ones.
    monkeypatch.setitem(PINS, OPENAI.repo, Pin(PINNED.revision))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # huggingface_hub waits a second before it goes on
    yield hub
    close_session()
    hub.close()


@pytest.fixture
def openai(hub, state, tmp_path):
    write_safetensors(state, tmp_path / "file")
    hub.files[SAFETENSORS] = (tmp_path / "file").read_bytes()
    return hub.files[SAFETENSORS]


@pytest.fixture
def k400(hub, state, tmp_path):
    write_ost(state, tmp_path / "file")
    hub.files[SPACE] = (tmp_path / "file").read_bytes()
    return hub.files[SPACE]


def refusal(file=OPENAI, name="ViT-B-16/openai"):
    """The one sentence of a failed fetch: it says what is wanted, why it is not there, and what to do."""
    with pytest.raises(WeightsError) as caught:
        fetch(file, name)
    text = str(caught.value)
    assert text.startswith(f"{name}: {file.repo}/{file.files[0]} is needed, but ")
    assert text.endswith(f"; {HELP}, which needs no download") and "\n" not in text
    return text


def test_a_named_backbone_is_fetched_once(hub, openai):
    first = load_backbone("ViT-B-16/openai", dtype="fp32")
    assert first.preprocess.size == 32 and first.name == "ViT-B-16/openai"
    assert len(hub.asked("GET")) == 1
    hub.requests.clear()
    again = load_backbone(dtype="fp32")
    assert hub.requests == []
    assert again.weights_hash == first.weights_hash == hashlib.sha256(openai).hexdigest()
    assert torch.equal(again.embed_frames(pixels()), first.embed_frames(pixels()))


def test_published_weights_are_fetched_from_their_space_and_their_licence_is_told_once(hub, k400):
    told = []
    model = load_backbone(weights="ost/k400", notify=told.append)
    assert told == ["the weights ost/k400 are published under CC BY-NC-SA 4.0"]
    assert model.preprocess.interpolation == "bilinear"
    load_backbone(weights="ost/k400", notify=told.append)
    assert len(told) == 1
    assert {path for _, path, _ in hub.requests} == {SPACE}


def test_a_licence_is_not_told_of_weights_that_did_not_come(hub):
    told = []
    with pytest.raises(WeightsError):
        find_weights("ost/k400", told.append)
    assert told == []


def test_a_licence_is_told_again_where_nothing_can_be_noted(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "file"))
    told = []
    show_licence_once("ost/k400", "CC", told.append)
    show_licence_once("ost/k400", "CC", told.append)
    assert len(told) == 2


def test_where_there_are_no_safetensors_the_older_file_is_taken(hub, state, tmp_path):
    write_open_clip(state, tmp_path / "file")
    hub.files[BIN] = (tmp_path / "file").read_bytes()
    load_backbone("ViT-B-16/openai")
    assert [path for method, path, _ in hub.requests if method == "GET"] == [BIN]
    hub.requests.clear()
    load_backbone("ViT-B-16/openai")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "EntryNotFound", "the repository has no such file"),
        (404, "RevisionNotFound", "the hub does not have the revision of it that is known to be right"),
        (404, "RepoNotFound", "the hub has no such repository"),
        (401, "RepoNotFound", "the hub has no such repository, or shows it only after `hf auth login`"),
        (403, "GatedRepo", "its owner asks you to accept terms first"),
        (401, "GatedRepo", "its owner asks you to accept terms first"),
        (500, "", "the hub answered 500"),
        (503, "", "the hub answered 503"),
        (429, "", "the hub answered 429"),
    ],
)
def test_each_refusal_of_the_hub_is_one_sentence(status, code, reason, hub, openai):
    hub.refusals = dict.fromkeys((SAFETENSORS, BIN), (status, code))
    start = time.perf_counter()
    assert reason in refusal()
    assert time.perf_counter() - start < 5


def test_what_answers_like_no_hub_is_told_apart(hub, openai, monkeypatch):
    handler = hub.server.RequestHandlerClass
    monkeypatch.setattr(handler, "send_header", _without_hub_headers(handler.send_header))
    assert f"what answers at {hub.url} is not a hub" in refusal()


def _without_hub_headers(send):
    def only_plain(self, name, value):
        if name not in ("ETag", "X-Repo-Commit"):
            send(self, name, value)

    return only_plain


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, openai):
    hub.breaks_after = 100_000
    assert fetch(OPENAI, "x").read_bytes() == openai
    assert [asked for _, _, asked in hub.asked("GET")] == [None, "bytes=100000-"]


def test_a_download_that_fails_leaves_nothing_half_done(hub, openai, tmp_path):
    hub.breaks_after, hub.answers_again = 100_000, False
    assert "the hub answered 500" in refusal()
    assert not list((tmp_path / "hub").rglob("blobs/*"))
    hub.broken = False
    assert fetch(OPENAI, "x").read_bytes() == openai


def test_a_file_that_arrives_damaged_is_never_used(hub, openai, monkeypatch):
    handler = hub.server.RequestHandlerClass
    whole = handler.send
    monkeypatch.setattr(handler, "send", lambda self, content: whole(self, content[:-1] + b"?"))
    assert "it arrived damaged; try again" in refusal()
    monkeypatch.setattr(handler, "send", whole)
    assert fetch(OPENAI, "x").read_bytes() == openai


def test_a_file_that_is_not_the_one_that_its_name_stands_for_is_not_downloaded(hub, openai, monkeypatch):
    monkeypatch.setitem(PINS, OPENAI.repo, PINNED)
    assert f"has another file there, with the SHA-256 {hashlib.sha256(openai).hexdigest()[:12]}" in refusal()
    assert hub.asked("GET") == []


def test_each_pin_is_a_commit_of_a_repository_that_the_catalog_names():
    files = {spec.weights.repo: spec.weights.files for name, spec in BACKBONES.items() if name != "lite"}
    for repo, pin in PINS.items():
        assert re.fullmatch("[0-9a-f]{40}", pin.revision)
        assert set(pin.sha256) <= set(files[repo])
        assert all(re.fullmatch("[0-9a-f]{64}", value) for value in pin.sha256.values())


def test_without_a_network_it_fails_at_once(hub, openai, monkeypatch):
    hub.close()
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    start = time.perf_counter()
    assert "it is not in the cache and the download failed" in refusal()
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("cached", [True, False])
def test_offline_mode_uses_the_cache_and_asks_nobody(cached, hub, openai, monkeypatch):
    if cached:
        path = fetch(OPENAI, "x")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    if cached:
        assert fetch(OPENAI, "x") == path
    else:
        assert "it is not in the cache and HF_HUB_OFFLINE forbids to fetch it" in refusal()
    assert hub.requests == []


def test_the_environment_variables_of_huggingface_hub_count(hub, k400, tmp_path):
    program = (
        "from ost.weights.hub import fetch; from ost.weights.published import PUBLISHED\n"
        "print(fetch(PUBLISHED['ost/k400'].weights, 'ost/k400'))"
    )

    def run(**settings):
        known = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment = {**known, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **settings}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip(), done.stderr

    assert "HF_HUB_OFFLINE forbids" in run(HF_HUB_OFFLINE="1")[1]
    assert hub.requests == []
    path, _ = run()
    assert path.startswith(str(tmp_path / "home"))
    asked = len(hub.requests)
    assert asked > 0
    assert run(HF_HUB_OFFLINE="1")[0] == run()[0] == path
    assert len(hub.requests) == asked


def test_the_25_published_files_are_where_their_names_say():
    expected = {"ost/k400": "checkpoints/zero_shot/OST_10_epochs_k400_finetuned.pth"}
    for data in ("hmdb", "ucf", "ssv2"):
        for shots in (2, 4, 8, 16):
            path = f"checkpoints/few_shot/{data}/k{shots}_few_shot_{data}_OST"
            expected[f"ost/{data}-{shots}shot"] = f"{path}.pth"
            expected[f"ost/{data}-{shots}shot-k400"] = f"{path}_k400_ft.pth"
    assert {name: published.weights.files[0] for name, published in PUBLISHED.items()} == expected
    assert len(expected) == 25
    for published in PUBLISHED.values():
        assert (published.weights.repo, published.weights.repo_type) == ("tomchen-ctj/OST", "space")
        assert published.licence == "CC BY-NC-SA 4.0"
        assert published.backbone == "ViT-B-16/openai"


def test_a_published_name_that_does_not_exist_is_answered_with_the_nearest(hub):
    with pytest.raises(UsageError, match="'ost/ucf-16shots'; did you mean 'ost/ucf-16shot'"):
        find_weights("ost/ucf-16shots", print)
