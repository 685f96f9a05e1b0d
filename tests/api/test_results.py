"""Results and models as values: identity, printing, indexing, pickles, threads, devices, settings."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

import ost
from ost.evaluate.compare import Comparison, PairedRow
from ost.recognition.recognizer import Recognizer


@pytest.fixture(scope="module")
def model():
    return ost.load("lite", frames=2)


@pytest.fixture(scope="module")
def pack():
    return ost.pack(["riding a bike", "BalanceBeam", "brush_hair", "iPhone"])


@pytest.fixture(scope="module")
def prediction(model, pack, bikes):
    return model.recognize(bikes, pack)


def test_labels_come_back_as_written_with_the_readable_name_beside_them(prediction):
    assert {score.label: score.name for score in prediction.classes} == {
        "riding a bike": "riding a bike",
        "BalanceBeam": "gymnastics on the balance beam",
        "brush_hair": "brushing hair",
        "iPhone": "i phone",
    }
    for spelling in ("BalanceBeam", "balance_beam", "gymnastics on the balance beam"):
        assert prediction.plan(spelling).name == "gymnastics on the balance beam"
    with pytest.raises(ost.UsageError, match=r"there is no class 'BalanceBean'.*did you mean 'BalanceBeam'"):
        prediction.plan("BalanceBean")


def test_values_with_tensors_compare_and_hash_by_identity_and_print_shapes(prediction, model, bikes):
    values = [
        prediction,
        prediction.plan(),
        prediction.embeddings,
        prediction.head,
        *prediction.head.kinds.values(),
        ost.match(prediction.embeddings, prediction.head),
        ost.decode(bikes, frames=2),
    ]
    for value in values:
        assert value == value and value != pickle.loads(pickle.dumps(value))
        assert hash(value) == hash(value)
        assert len(repr(value)) < 300 and "tensor(" not in repr(value) and "array(" not in repr(value)


def test_embeddings_are_ordinary_tensors_that_gradients_pass_through(model, pack, bikes):
    embeddings, head = model.embed(bikes), model.head(pack)
    weight = torch.ones(embeddings.values.shape[-1], requires_grad=True)
    (embeddings.values * weight).sum().backward()
    assert torch.equal(weight.grad, embeddings.values.sum((0, 1)))
    assert not embeddings.values.is_inference() and not head.kinds["spatial"].values.is_inference()


def test_the_parts_give_the_answer_of_the_whole(model, pack, bikes, prediction):
    scores = ost.match(model.embed(bikes), model.head(pack))
    assert torch.equal(scores.logits, ost.match(prediction.embeddings, prediction.head).logits)
    assert [s.logit for s in prediction.classes] == sorted(scores.logits[0].tolist(), reverse=True)
    frames = ost.decode(bikes, frames=2, preprocess=model.backbone.preprocess)
    raw = model.backbone.embed_frames(model.preprocess(frames)[0])
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), prediction.embeddings.values[0])


def test_a_model_is_pickled_as_the_call_that_loaded_it(model, pack, bikes, prediction):
    content = pickle.dumps(model)
    assert len(content) < 2000
    again = pickle.loads(content)
    assert again.settings == model.settings
    assert again.recognize(bikes, pack).classes == prediction.classes


def test_predictions_and_failures_can_be_sent_to_another_process(prediction):
    again = pickle.loads(pickle.dumps(prediction))
    assert again.to_dict() == prediction.to_dict()
    failure = pickle.loads(pickle.dumps(ost.VideoError("a.mp4", "gone")))
    assert (failure.path, failure.cause) == ("a.mp4", "gone")


def test_threads_share_a_model(model, pack, bikes):
    videos = [(bikes, float(start), float(start + 2)) for start in range(6)]
    alone = [model.recognize(video, pack).classes for video in videos]
    fresh = ost.load("lite", frames=2, cache=False)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda video: fresh.recognize(video, pack).classes, videos))
    assert together == alone


def test_a_model_moves_to_a_device_or_says_why_not(model):
    assert model.to("cpu").settings == model.settings
    with pytest.raises(ost.UsageError, match="the backbone lite runs on the CPU"):
        model.to("cuda")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frame": 3}, "there is no setting 'frame'; did you mean 'frames'"),
        ({"sampling": "foo"}, "sampling is uniform or keyframes, not 'foo'"),
        ({"min_decoded": 5}, "min_decoded is a share from 0 to 1, not 5"),
        ({"kinds": ["spatial", "name"]}, "kinds are spatial, temporal or both"),
        ({"device": "meta"}, "there is no device 'meta'"),
        ({"dtype": torch.int8}, "there is no dtype torch.int8 of the towers"),
        ({"threads": 0}, "threads must be a whole number from 1"),
        ({"decoders": 2.5}, "decoders must be a whole number from 1"),
        ({"threads": "2"}, "threads must be a whole number from 1"),
        ({"decoders": 0}, "decoders must be a whole number from 1"),
        ({"batch_frames": 0}, "batch_frames must be a whole number from 1"),
    ],
)
def test_everything_is_checked_at_load(given, message):
    with pytest.raises(ost.UsageError, match=message):
        ost.load("lite", **given)


def test_kinds_may_be_a_list_or_one_name_and_dtypes_torchs_own():
    assert ost.load("lite", kinds=["spatial"], dtype=torch.float32).settings.kinds == ("spatial",)
    assert ost.load("lite", kinds="temporal", dtype="fp32").settings.kinds == ("temporal",)


def test_former_names_work_and_say_what_they_are_called_now(model, prediction):
    with pytest.warns(DeprecationWarning, match="method is now called match"):
        assert ost.load("lite", method="mean").settings.match == "mean"
    with pytest.warns(DeprecationWarning, match="method is now called match"):
        ost.match(prediction.embeddings, prediction.head, method="ot")
    with pytest.warns(DeprecationWarning, match="as_dict is now called to_dict"):
        assert prediction.as_dict() == prediction.to_dict()


@pytest.mark.parametrize(
    "one",
    [
        *(
            "a.mp4",
            b"bytes",
            bytearray(b"bytes"),
            Path("a.mp4"),
            io.BytesIO(),
            ("a.mp4", 1.0, 3.0),
            ("a", 1, None),
        ),
        *(
            np.zeros((3, 4, 4, 3), np.uint8),
            ost.FrameSequence(np.zeros((3, 4, 4, 3), np.uint8)),
            {"path": 1},
            None,
        ),
    ],
    ids=lambda one: str(type(one).__name__),
)
def test_one_video_in_place_of_many_is_refused_at_once(model, pack, one):
    with pytest.raises(ost.UsageError, match="is one video; give a list of videos, or use recognize"):
        model.recognize_all(one, pack)


def test_one_bad_input_loses_no_other_result(model, pack, bikes):
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    wrong = [
        *(
            np.zeros((2, 3)),
            b"",
            None,
            [1],
            {"a": 1},
            (bikes, 5, 1),
            object(),
            *((ost.Frames(pixels, (0.0,) * 4, "x"), 0, 1), (bikes, 10**5000, None), 10**5000),
        ),
        *(
            ost.Frames(pixels[:0], (), "x"),
            ost.Frames(pixels / 1.0, (0.0,) * 4, "x"),
            ost.Frames(pixels, (0.0,), "x"),
        ),
        *(ost.Frames(pixels, (0.0,) * 4, "x", clips=3), ost.Frames(pixels, (float("inf"),) * 4, "x")),
    ]
    first, *failures, last = model.recognize_all([bikes, *wrong, bikes.read_bytes()], pack)
    assert first.classes == last.classes
    assert all(isinstance(failure, ost.VideoError) for failure in failures) and len(failures) == len(wrong)
    assert not any("internal error" in failure.cause for failure in failures)
    assert all(len(str(failure)) < 200 and "\n" not in str(failure) for failure in failures)


def test_a_decoder_of_another_library_is_recognised(model, pack):
    frames = torch.randint(0, 255, (10, 3, 32, 48), dtype=torch.uint8)

    class Decoder:
        metadata = SimpleNamespace(num_frames=10, average_fps=5.0, path="film")

        def get_frames_at(self, indices):
            return SimpleNamespace(data=frames[indices], pts_seconds=[i / 5 for i in indices])

    whole, part = model.recognize_all([Decoder(), (Decoder(), 1.0, None)], pack)
    assert (whole.path, whole.sample.times) == ("film", (0.4, 1.4))
    assert (part.path, part.sample.times) == ("film#t=1", (1.2, 1.6))


def test_a_record_tells_what_was_looked_at(model, pack, bikes):
    record = model.recognize(ost.decode(bikes, frames=4, clips=2), pack, frames=16).to_dict()
    assert (record["frames"], record["views"], len(record["times"])) == (4, "2x1", 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"match": "means"}, "match is ot or mean, not 'means'"),
        ({"kinds": ["spatial", "name"]}, "kinds are spatial, temporal or both"),
    ],
)
def test_the_parts_check_their_settings(prediction, given, message):
    with pytest.raises(ost.UsageError, match=message):
        ost.match(prediction.embeddings, prediction.head, **given)
    with pytest.raises(ost.UsageError, match="there is no clip 7"):
        ost.explain(prediction.embeddings, prediction.head, "iPhone", clip=7)
    alone = ost.match(prediction.embeddings, prediction.head, kinds="spatial")
    assert torch.equal(
        alone.logits, ost.match(prediction.embeddings, prediction.head, kinds=["spatial"]).logits
    )


def test_a_table_has_a_row_for_each_result(prediction):
    failure = ost.VideoError("b\udcff.mp4", "gone")
    table = ost.to_table([prediction, failure], top=2)
    assert isinstance(table, pa.Table)
    first, second = table.to_pylist()
    assert (first["label"], first["error"], len(first["classes"])) == (prediction.classes[0].label, None, 2)
    assert (second["path"], second["error"], second["label"]) == ("b\\udcff.mp4", "gone", None)


@pytest.mark.parametrize("name", ["prediction", "pack", "evidence"])
def test_notebooks_show_results_with_names_escaped(name, model, bikes):
    pack = ost.pack(["<b>bold</b>", "riding a bike"])
    prediction = model.recognize(bikes, pack)
    value = {"prediction": prediction, "pack": pack, "evidence": prediction.plan("<b>bold</b>")}[name]
    html = value._repr_html_()
    assert "&lt;b&gt;bold" in html and "<b>bold" not in html


def test_a_comparison_shows_itself_in_a_notebook():
    row = PairedRow("<i>list</i>", 12, 0.5, 0.75, 1, 4)
    html = Comparison((row,), None, 1.0, None, False, {}, (0, 0), ())._repr_html_()
    assert "&lt;i&gt;list" in html and "50.0%" in html and "75.0%" in html


def test_a_recogniser_over_a_backbone_of_ones_own_is_pickled_with_it(prediction, model, pack, bikes):
    class Reloaded(Recognizer):
        pass

    assert Reloaded(model.backbone, cache=False).__reduce__()[1][0] is model.backbone


def test_a_result_that_is_changed_in_place_changes_no_later_one(pack, bikes, tmp_path, monkeypatch):
    monkeypatch.setenv("OST_CACHE", str(tmp_path))
    model = ost.load("lite", frames=2)
    first = next(results := model.recognize_all([bikes], pack))
    classes = first.classes
    first.embeddings.values.zero_().requires_grad_()
    results.close()
    assert ost.load("lite", frames=2).recognize(bikes, pack).classes == classes


def test_a_model_that_moved_is_still_pickled_as_its_call(model, pack, bikes):
    moved = model.to("cpu")
    moved.recognize(bikes, pack)
    assert len(pickle.dumps(moved)) < 2000 and pickle.loads(pickle.dumps(moved)).settings == moved.settings


def test_numbers_of_numpy_are_numbers(model):
    assert model.settings.but(frames=np.int64(4), eps=np.float32(0.5)) == model.settings.but(
        frames=4, eps=0.5
    )
    assert model.settings.but(kinds="both").kinds == ("spatial", "temporal")
    with pytest.raises(ost.UsageError, match="frames must be a whole number from 1 to 1,000,000"):
        model.settings.but(frames=10**9)
