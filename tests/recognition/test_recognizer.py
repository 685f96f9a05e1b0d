"""The composition: settings, views, order, failures, what is printed."""

import json
import math

import pytest
import torch
from torchvision.transforms import v2

from ost.descriptors.pack import Pack, PackClass
from ost.descriptors.spec import resolve
from ost.errors import PackError, UsageError, VideoError
from ost.recognition.match import match
from ost.recognition.prediction import Prediction, rank
from ost.recognition.reader import read_videos
from ost.recognition.recognizer import HEADS, Recognizer
from ost.recognition.settings import Settings
from ost.types import Preprocess, Scores
from ost.video.decode import decode
from ost.video.transform import resize, view_preprocess

PACK = Pack(
    "mine",
    (
        PackClass("sailing", ("a mast", "a hull"), ("casting off", "tacking")),
        PackClass("rowing", ("oars",), ("pulling",)),
        PackClass("swimming", ("water", "a cap", "goggles"), ("diving", "crawling")),
    ),
)
SETTINGS = Settings(frames=4)


def embed_frames(backbone, frames, crops=1):
    (found,) = read_videos(
        backbone, [frames], Settings(len(frames.times) // frames.clips, frames.clips, crops)
    )
    if isinstance(found, VideoError):
        raise found
    return found.embeddings


@pytest.fixture
def model(make_backbone):
    return Recognizer(make_backbone(), SETTINGS)


def test_a_prediction_ranks_every_class(model, make_video):
    video = make_video("clip")
    prediction = model.recognize(video, PACK)
    assert {c.name for c in prediction.classes} == set(PACK.names)
    probabilities = [c.probability for c in prediction.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert prediction.top(2) == list(prediction.classes[:2])
    assert prediction.path == str(video)
    assert (prediction.backbone, prediction.weights_hash, prediction.pack_hash) == ("fake", "w0", PACK.hash)
    assert prediction.classes[0].name in repr(prediction)


def test_frames_that_were_decoded_before_are_recognised_as_their_video_is(model, make_video):
    video = make_video("clip")
    frames = decode(video, frames=4, preprocess=model.backbone.preprocess)
    assert model.recognize(frames, PACK).classes == model.recognize(video, PACK).classes


@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (3, 1), (1, 3), (2, 3), (2, 5)])
@pytest.mark.parametrize("method", ["ot", "mean"])
def test_views_have_their_softmax_each_and_then_the_mean(model, make_video, clips, crops, method):
    video = make_video("clip", frames=11)
    prediction = model.recognize(video, PACK, clips=clips, crops=crops, match=method)
    backbone = model.backbone
    frames = decode(video, frames=4, clips=clips, preprocess=view_preprocess(backbone.preprocess, crops))
    embeddings = embed_frames(backbone, frames, crops)
    assert len(embeddings.values) == clips * crops
    head = model.head(PACK, Settings(match=method))
    logits = match(embeddings, head, match=method).logits.double()
    expected = torch.stack([view.softmax(0) for view in logits]).mean(0)
    for item in prediction.classes:
        a = PACK.names.index(item.name)
        assert item.probability == pytest.approx(expected[a].item(), abs=1e-5)
        assert item.logit == pytest.approx(logits[:, a].mean().item(), abs=1e-3)


def test_two_clips_of_ten_crops_have_the_mean_of_twenty_views_cut_by_torchvision(model, make_video):
    backbone = model.backbone
    backbone.preprocess = Preprocess(16, 20, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    video = make_video("clip", frames=11, size=(48, 32))  # leaves room of 4 and 14 pixels around the crop
    prediction = model.recognize(video, PACK, clips=2, crops=10)
    frames = decode(video, frames=4, clips=2, preprocess=backbone.preprocess)
    pixels = resize(torch.from_numpy(frames.pixels).permute(0, 3, 1, 2), backbone.preprocess)
    assert pixels.shape == (8, 3, 20, 30)
    clips = backbone.preprocess.normalised(pixels).unflatten(0, (2, 4))
    views = [view for clip in clips for view in v2.functional.ten_crop(clip, [16, 16])]
    head = model.head(PACK)
    logits = torch.cat([match(backbone.embed_clips(view[None]), head).logits for view in views])
    assert logits.shape == (20, 3)
    expected = dict(zip(PACK.names, logits.double().softmax(1).mean(0).tolist(), strict=True))
    assert {c.name: c.probability for c in prediction.classes} == pytest.approx(expected, abs=1e-5)
    assert prediction.plan("rowing").logit == pytest.approx(
        logits[1 * 10 + 4, PACK.names.index("rowing")].item(), abs=1e-3
    )


def test_the_mean_is_over_probabilities_and_not_over_logits():
    ranked = rank(Scores(torch.tensor([[math.log(8), 0, 0], [0, 3, 3]]), ("a", "b", "c")))
    of_views = [0.8, 1 / (1 + 2 * math.exp(3))]
    assert ranked[0].name == "a"  # though its mean logit is the smallest
    assert ranked[0].probability == pytest.approx(sum(of_views) / 2)
    assert [c.logit for c in ranked] == pytest.approx([math.log(8) / 2, 1.5, 1.5])


def test_classes_whose_probability_underflows_are_still_in_the_order_of_their_logits():
    ranked = rank(Scores(torch.tensor([[-400.0, 0.0, -300.0, -500.0]]), ("a", "b", "c", "d")))
    assert [c.name for c in ranked] == ["b", "c", "a", "d"]
    assert [c.probability for c in ranked][1:] == [0, 0, 0]


def test_classes_that_are_equal_keep_the_order_of_the_pack():
    ranked = rank(Scores(torch.zeros(2, 4), ("d", "b", "a", "c")))
    assert [c.name for c in ranked] == ["d", "b", "a", "c"]


def test_many_videos_come_in_order_and_a_broken_one_stops_nothing(model, make_video, tmp_path):
    good = [make_video(name) for name in ("one", "two", "three")]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("not a video")
    videos = [
        tmp_path / "missing.mp4",
        good[0],
        tmp_path / "empty",
        good[1],
        str(tmp_path / "text.mp4"),
        good[2],
    ]
    results = list(model.recognize_all(videos, PACK))
    assert [r.path for r in results] == [str(v) for v in videos]
    assert [isinstance(r, VideoError) for r in results] == [True, False, True, False, True, False]
    for video, result in zip(good, results[1::2], strict=True):
        assert isinstance(result, Prediction)
        assert result.classes == model.recognize(video, PACK).classes
    assert len({r.classes for r in results[1::2]}) == 3


def test_a_video_whose_embedding_is_not_finite_is_named_and_stops_nothing(model, make_video, monkeypatch):
    videos = [make_video(name) for name in ("one", "two", "three")]
    embed, calls = model.backbone.embed_frames, []

    def sometimes_nan(pixels):
        calls.append(len(pixels))
        return embed(pixels) * (math.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(model.backbone, "embed_frames", sometimes_nan)
    results = list(model.recognize_all(videos, PACK))
    assert [isinstance(r, VideoError) for r in results] == [False, True, False]
    assert str(videos[1]) in str(results[1])


def test_no_videos_give_no_predictions_and_a_reader_may_stop_early(model, make_video):
    assert list(model.recognize_all([], PACK)) == []
    videos = [make_video(name) for name in ("one", "two", "three")]
    results = model.recognize_all(videos, PACK)
    assert next(results).path == str(videos[0])
    results.close()


def test_classes_are_checked_before_any_video_is_opened(model, tmp_path):
    with pytest.raises(PackError):
        next(model.recognize_all([tmp_path / "missing.mp4"], ["a", "A"]))
    with pytest.raises(UsageError):
        next(model.recognize_all([tmp_path / "missing.mp4"], PACK, eps=-1))


def test_a_head_is_built_once_for_all_videos(model, make_video):
    videos = [make_video(name) for name in ("one", "two")]
    list(model.recognize_all(videos, PACK))
    model.recognize(videos[0], PACK, eps=1.0)
    assert len(model.backbone.texts) == 2  # a call for each kind
    assert model.head(PACK) is model.head(PACK)
    model.recognize(videos[0], PACK, match="mean")
    assert model.backbone.texts[2:] == [["just rowing", "just sailing", "just swimming"]]


def test_settings_of_one_call_are_forgotten_after_it(model, make_video):
    video = make_video("clip")
    before = model.recognize(video, PACK).classes
    other = model.recognize(video, PACK, frames=2, eps=1.0, kinds=("spatial",))
    assert len(other.sample.times) == len(other.thumbnails.files) == 2
    assert set(other.head.kinds) == {"spatial"}
    assert other.eps == 1.0
    assert model.recognize(video, PACK).classes == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 0}, "frames must be a whole number from 1 to 1,000,000, not 0"),
        ({"clips": 0}, "clips must be a whole number from 1 to 1,000,000, not 0"),
        ({"crops": 2}, "1, 3, 5 or 10 crops, not 2"),
        ({"match": "sinkhorn"}, "match is ot or mean, not 'sinkhorn'"),
        ({"kinds": ()}, "kinds are spatial, temporal or both of them, not "),
        ({"kinds": ("name",)}, "kinds are spatial, temporal or both of them, not "),
        ({"eps": 0}, "eps must be positive, not 0"),
        ({"eps": math.nan}, "eps must be positive, not nan"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings(**wrong)


@pytest.mark.parametrize("wrong", [{"sampling": "random"}, {"min_decoded": 1.5}])
def test_a_wrong_decoding_setting_is_wrong_use_and_not_a_broken_video(model, make_video, wrong):
    with pytest.raises(UsageError):
        list(model.recognize_all([make_video("clip")], PACK, **wrong))


def test_eps_infinity_is_the_mean_of_all_similarities(model, make_video):
    prediction = model.recognize(make_video("clip"), PACK, eps=math.inf)
    evidence = prediction.plan("rowing")
    means = [sim.mean().item() for sim in evidence.similarity.values()]
    logit = next(c.logit for c in prediction.classes if c.name == "rowing")
    assert logit == pytest.approx(model.backbone.logit_scale * sum(means), abs=1e-4)


def test_the_plan_of_a_class_explains_its_logit(model, make_video):
    prediction = model.recognize(make_video("clip"), PACK)
    for item in prediction.classes:
        assert prediction.plan(item.name).logit == pytest.approx(item.logit, abs=1e-3)
    assert prediction.plan().name == prediction.classes[0].name
    with pytest.raises(UsageError, match="no class 'flying' among the 3"):
        prediction.plan("flying")


@pytest.mark.parametrize(("crops", "centre"), [(1, 0), (3, 1), (5, 4), (10, 4)])
def test_the_plan_of_several_views_is_that_of_the_centre_of_the_middle_clip(model, make_video, crops, centre):
    video = make_video("clip", frames=11)
    prediction = model.recognize(video, PACK, clips=4, crops=crops)
    assert prediction.central_view == 2 * crops + centre
    logits = match(prediction.embeddings, prediction.head).logits
    expected = logits[2 * crops + centre, PACK.names.index("rowing")].item()
    assert prediction.plan("rowing").logit == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_the_central_view_sees_what_a_recognition_of_one_crop_sees(model, make_video, crops):
    model.backbone.preprocess = Preprocess(16, 21, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    video = make_video("clip", frames=11)
    one, several = (model.recognize(video, PACK, clips=3, crops=n) for n in (1, crops))
    torch.testing.assert_close(several.embeddings.values[several.central_view], one.embeddings.values[1])


def test_weights_that_see_the_whole_frame_refuse_several_crops_before_they_read_a_text(model, make_video):
    model.backbone.preprocess = Preprocess(16, None, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    videos = [make_video("clip")]
    with pytest.raises(UsageError, match="use one crop"):
        list(model.recognize_all(videos, PACK, crops=3))
    with pytest.raises(UsageError, match="use one crop"):
        model.recognize(videos[0], PACK, crops=10)
    assert model.backbone.texts == []
    assert len(model.recognize(videos[0], PACK, clips=4).embeddings.values) == 4


def test_mean_pooling_has_no_plan(model, make_video):
    with pytest.raises(UsageError, match="no transport plan"):
        model.recognize(make_video("clip"), PACK, match="mean").plan()


def test_a_prediction_is_plain_json_with_null_for_unknown_times(model, make_video):
    prediction = model.recognize(make_video("clip"), PACK, match="mean")
    read = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert read["times"] == [None] * 4
    assert [c["name"] for c in read["classes"]] == [c.name for c in prediction.classes]
    assert set(read["classes"][0]) == {"label", "name", "logit", "probability"}
    assert set(read["seconds"]) == {"decoding", "towers", "matching"}
    assert (read["weights"], read["pack"], read["backbone"]) == ("w0", PACK.hash, "fake")


def test_a_video_file_has_the_times_of_its_frames(model, bikes):
    times = model.recognize(bikes, PACK).to_dict()["times"]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 10.1


def test_notices_of_the_pack_and_the_towers_are_passed_on_once(model, make_video):
    video, names = make_video("clip"), ["walking", "x" * 200]
    for _ in range(2):
        notices = model.recognize(video, names).notices
        assert sum("in no shipped pack" in notice for notice in notices) == 1
        assert notices.count("a text was cut") == 1


def test_notices_belong_to_the_pack_that_caused_them(model, make_video):
    video = make_video("clip")
    assert "a text was cut" in model.recognize(video, ["walking", "x" * 200]).notices
    assert "a text was cut" not in model.recognize(video, ["walking", "running"]).notices
    assert "a text was cut" in model.recognize(video, ["walking", "x" * 200]).notices, "from the cache too"


def test_a_backbone_that_changes_is_never_answered_from_memory(make_backbone, make_video):
    video, backbone = make_video("clip"), make_backbone()
    model = Recognizer(backbone, cache=False)
    before = model.recognize(video, PACK).classes
    embed = backbone.embed_text
    backbone.embed_text = lambda texts: embed([text[::-1] for text in texts])
    assert model.recognize(video, PACK).classes != before


def test_class_heads_in_memory_are_few(model):
    for i in range(3 * HEADS):
        model.head(resolve([f"class {i}", "another"]))
    assert len(model._heads) == HEADS


def test_one_path_in_the_place_of_many_is_wrong_use(model):
    with pytest.raises(UsageError, match="is one video; give a list"):
        next(model.recognize_all("clip.mp4", PACK))
