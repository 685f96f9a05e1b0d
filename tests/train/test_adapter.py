"""An adapter over frozen towers: what it learns, its file, and its matching."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, normalize

from ost.backbones.adapted import AdaptedBackbone
from ost.backbones.adapter import read_adapter, save_adapter
from ost.backbones.load import load_backbone
from ost.backbones.names import ADAPTER_KEY, is_adapter
from ost.errors import WeightsError
from ost.files import file_hash
from ost.recognition.embed import class_head
from ost.recognition.match import adapted, match
from ost.recognition.recognizer import Recognizer
from ost.recognition.settings import Settings
from ost.recognition.store import concatenate, stored_embeddings
from ost.train.adapter import (
    PENALTIES,
    Examples,
    _regress,
    accuracy,
    fit_adapter,
    select_examples,
    zero_shot_accuracy,
)


@pytest.fixture(autouse=True)
def fresh_cache(own_cache, tmp_path, monkeypatch):
    """A store of its own for each test."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def frames(backbone, clips):
    """Embeddings of the twelve clips."""
    paths = sorted(p for p in clips.glob("*/*") if p.is_dir())
    return concatenate(list(stored_embeddings(backbone, paths, Settings(3))))


@pytest.fixture
def examples(frames, labelled):
    return Examples(frames, torch.tensor(labelled.labels))


@pytest.fixture(scope="module")
def head(backbone, pack):
    return class_head(backbone, pack, ("spatial", "temporal"), cache=False)


@pytest.fixture
def fitted(backbone, head, examples, config):
    return fit_adapter(backbone, head, examples, config.but(tune="adapter"))


def same(a, b):
    tensors = ("centre", "weight", "bias", "down", "up")
    others = ("backbone", "backbone_hash", "names", "frames", "temperature")
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in tensors) and all(
        getattr(a, n) == getattr(b, n) for n in others
    )


def problem(seed, n=40, width=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    x = normalize(torch.randn(n, width, generator=generator), dim=-1)
    labels = torch.randint(0, classes, (n,), generator=generator)
    labels[:classes] = torch.arange(classes)
    return x, labels


@pytest.mark.parametrize("penalty", [3.0, 0.3, 0.01])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_linear_part_is_scikit_learns_logistic_regression(penalty, seed):
    from sklearn.linear_model import LogisticRegression

    x, labels = problem(seed)
    weight, bias = _regress(torch.zeros(len(x), 4), x, labels, penalty)
    theirs = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000).fit(x.numpy(), labels.numpy())
    # Ours holds the biases by 1e-3, theirs not at all. With 40 clips the curvature along a bias is about 40 * p(1-p)
    # = 7, so ours are too small by 1e-3 / 7 of themselves. What theirs have in common is free; ours have none.
    expected = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(bias, expected, atol=2e-3)
    np.testing.assert_allclose(weight, theirs.coef_, atol=2e-3 * max(1.0, float(np.abs(theirs.coef_).max())))


def test_given_logits_are_an_offset_and_not_learned():
    """Held to the gradient: zero where the offset takes part and the penalty is added."""
    x, labels = problem(3)
    offset = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(4))
    weight, bias = (t.double() for t in _regress(offset, x, labels, 0.3))
    probability = (offset.double() + x.double() @ weight.T + bias).softmax(-1)
    error = probability - torch.nn.functional.one_hot(labels, 4)
    # the answer is rounded to fp32, 1e-7 of numbers below 10, times 40 clips
    torch.testing.assert_close(
        error.T @ x.double() + 0.3 * weight, torch.zeros(4, 6).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(error.sum(0) + 2e-3 * bias, torch.zeros(4).double(), atol=1e-4, rtol=0)
    none, _ = _regress(torch.zeros(len(x), 4), x, labels, 0.3)
    assert not torch.allclose(weight, none.double(), atol=1e-2)


def test_the_regression_may_be_solved_in_the_span_of_its_examples():
    x, labels = problem(5)
    _, _, basis = torch.linalg.svd(x[:5].double(), full_matrices=False)
    whole = _regress(torch.zeros(5, 4), x[:5], labels[:5], 0.1)
    short = _regress(torch.zeros(5, 4), x[:5].double() @ basis.T, labels[:5], 0.1)
    torch.testing.assert_close(short.weight @ basis, whole.weight.double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(short.bias, whole.bias.double(), atol=1e-5, rtol=0)


def test_the_same_examples_give_the_same_adapter_to_the_bit(backbone, head, examples, config):
    torch.manual_seed(0)
    one = fit_adapter(backbone, head, examples, config)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    two = fit_adapter(backbone, head, examples, config)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one.adapter, two.adapter)
    assert (one.penalty, one.losses) == (two.penalty, two.losses)


def test_cross_validation_chooses_the_penalty_with_the_least_loss(fitted):
    assert len(fitted.losses) == len(PENALTIES)
    assert fitted.losses[fitted.penalty] == min(fitted.losses.values())
    assert all(math.isfinite(loss) for loss in fitted.losses.values())


def test_one_example_a_class_is_enough(backbone, head, examples, config):
    few = select_examples(examples, [0, 4, 8])
    assert few.labels.unique().tolist() == [0, 1, 2]
    fitted = fit_adapter(backbone, head, few, config)
    assert fitted.losses == {}
    assert accuracy(fitted.adapter, head, few, config) == 1.0


def shown(adapter, head):
    return replace(head, learned=adapter.classes(head.names))


def logits_of(adapter, head, frames):
    return match(frames, shown(adapter, head)).logits


def without_classes(adapter, head, frames):
    """Logits of the descriptors alone: at the temperature, of frames that the residual moved."""
    learned = adapter.classes(head.names)
    return learned.temperature * match(adapted(frames, learned), head).logits


def test_an_adapter_fits_its_examples_better_than_without(fitted, head, examples, config):
    zero_shot = match(examples.frames, head).logits
    after_training = logits_of(fitted.adapter, head, examples.frames)
    assert cross_entropy(after_training, examples.labels) < 0.8 * cross_entropy(zero_shot, examples.labels)
    after = accuracy(fitted.adapter, head, examples, config)
    assert after == float((after_training.argmax(-1) == examples.labels).float().mean())
    assert after > zero_shot_accuracy(head, examples, config)


def test_the_residual_goes_on_from_the_linear_part_and_lowers_the_loss(fitted, head, examples):
    without = replace(fitted.adapter, up=torch.zeros_like(fitted.adapter.up))
    assert bool(fitted.adapter.up.any())
    losses = [
        cross_entropy(logits_of(adapter, head, examples.frames), examples.labels)
        for adapter in (fitted.adapter, without)
    ]
    assert losses[0] < losses[1]


def test_the_linear_term_of_the_logits_is_the_map_of_the_mean_feature(fitted, head, examples):
    adapter, unit = fitted.adapter, examples.frames.values
    features = normalize(unit - adapter.centre, dim=-1)
    rest = logits_of(adapter, head, examples.frames) - without_classes(adapter, head, examples.frames)
    expected = features.mean(1) @ adapter.weight.T + adapter.bias
    torch.testing.assert_close(rest, expected, atol=1e-4, rtol=1e-5)


def test_matching_through_a_recognizer_gives_the_logits_of_training(
    fitted, head, examples, labelled, backbone, pack, tmp_path
):
    save_adapter(fitted.adapter, tmp_path / "a.safetensors")
    loaded = AdaptedBackbone(backbone, read_adapter(tmp_path / "a.safetensors"), "a")
    expected = logits_of(fitted.adapter, head, examples.frames)
    results = Recognizer(loaded, Settings(frames=3), cache=False).recognize_all(labelled.paths, pack)
    for i, prediction in enumerate(results):
        found = {score.name: score.logit for score in prediction.classes}
        # logits of a similarity that is rounded at 6e-8, times a scale of up to 400
        assert [found[name] for name in pack.names] == pytest.approx(expected[i].tolist(), abs=2e-4)


def test_an_adapter_is_loaded_over_the_weights_that_it_names(
    fitted, head, examples, labelled, pack, tmp_path
):
    save_adapter(fitted.adapter, tmp_path / "a.safetensors")
    loaded = load_backbone(None, tmp_path / "a.safetensors", device="cpu", dtype="fp32")
    prediction = Recognizer(loaded, Settings(frames=3)).recognize(labelled.paths[0], pack)
    best = pack.names[int(logits_of(fitted.adapter, head, examples.frames)[0].argmax())]
    assert prediction.classes[0].name == best
    assert loaded.weights_hash != loaded.base.weights_hash


def test_classes_that_training_did_not_know_keep_their_zero_shot_logits(fitted, head, examples):
    adapter = replace(fitted.adapter, names=("red square", "something else", "blue square"))
    found = logits_of(adapter, head, examples.frames)
    expected = without_classes(adapter, head, examples.frames)
    assert torch.equal(found[:, 1], expected[:, 1])
    assert not torch.allclose(found[:, [0, 2]], expected[:, [0, 2]], atol=1e-2)


def test_classes_without_examples_keep_their_zero_shot_logits_at_the_temperature(
    backbone, head, examples, config
):
    two = select_examples(examples, [i for i, label in enumerate(examples.labels.tolist()) if label != 1])
    adapter = fit_adapter(backbone, head, two, config).adapter
    found = logits_of(adapter, head, examples.frames)
    expected = without_classes(adapter, head, examples.frames)
    torch.testing.assert_close(found[:, 1], expected[:, 1])
    assert adapter.names == ("red square", "blue square")


def test_learned_rows_follow_the_names_in_any_order(fitted, head):
    adapter = fitted.adapter
    names = ("blue square", "nothing", "red square")
    learned = adapter.classes(names)
    for row, name in enumerate(names):
        if name == "nothing":
            assert not learned.weight[row].any() and learned.bias[row] == 0
        else:
            at = adapter.names.index(name)
            assert torch.equal(learned.weight[row], adapter.weight[at])
            assert learned.bias[row] == adapter.bias[at]


def test_a_file_holds_an_adapter_to_the_bit(fitted, tmp_path):
    file = tmp_path / "a.safetensors"
    save_adapter(fitted.adapter, file)
    read = read_adapter(file)
    assert same(read, fitted.adapter)
    assert read.hash == file_hash(file)
    assert is_adapter(file)
    save_adapter(read, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == file.read_bytes()


def test_names_of_any_script_survive_a_file(fitted, tmp_path):
    names = ("Händeschütteln", "拍手", 'a "quoted" \\ name')
    save_adapter(replace(fitted.adapter, names=names), tmp_path / "a.safetensors")
    assert read_adapter(tmp_path / "a.safetensors").names == names


def test_weights_are_no_adapter(tiny, tmp_path, clips):
    (tmp_path / "text.safetensors").write_text("no")
    for path in (tiny, tmp_path / "text.safetensors", tmp_path / "missing.safetensors", tmp_path, clips):
        assert not is_adapter(path)


def test_an_adapter_over_other_weights_is_refused(fitted, backbone):
    other = replace(fitted.adapter, backbone_hash="f" * 64)
    with pytest.raises(WeightsError, match=r"a\.safetensors: was trained over the weights ffffffffffff"):
        AdaptedBackbone(backbone, other, "a.safetensors")


def parts(width=32, rank=2, dim=32, classes=2):
    tensors = {
        "centre": torch.zeros(width),
        "weight": torch.ones(classes, width),
        "bias": torch.zeros(classes),
        "down": torch.ones(rank, width),
        "up": torch.ones(dim, rank),
    }
    told = {
        "backbone": "b",
        "backbone_hash": "0" * 64,
        "names": [f"class {i}" for i in range(classes)],
        "frames": 3,
        "temperature": 1.0,
    }
    return tensors, told


def hostile(tensors=(), told=(), drop=(), raw=None):
    def write(file):
        all_tensors, all_told = parts()
        all_tensors |= dict(tensors)
        all_told |= dict(told)
        for name in drop:
            all_tensors.pop(name, None)
            all_told.pop(name, None)
        save_file(all_tensors, file, metadata={ADAPTER_KEY: json.dumps(all_told) if raw is None else raw})

    return write


HOSTILE = {
    "wide weights": hostile({"weight": torch.ones(2, 33)}),
    "flat weights": hostile({"weight": torch.ones(2)}),
    "a class more": hostile({"weight": torch.ones(3, 32), "bias": torch.ones(3)}),
    "another bias": hostile({"bias": torch.zeros(3)}),
    "a narrow centre": hostile({"centre": torch.zeros(31)}),
    "another rank": hostile({"down": torch.ones(3, 32)}),
    "a number for a matrix": hostile({"up": torch.tensor(1.0)}),
    "a vector for a matrix": hostile({"up": torch.ones(2)}),
    "a stack for a matrix": hostile({"up": torch.ones(5, 32, 2)}),
    "not a number": hostile({"weight": torch.full((2, 32), math.nan)}),
    "infinite": hostile({"up": torch.full((32, 2), math.inf)}),
    "no weights": hostile(drop=["weight"]),
    "no residual": hostile(drop=["up"]),
    "no names": hostile(drop=["names"]),
    "no temperature": hostile(drop=["temperature"]),
    "no hash": hostile(drop=["backbone_hash"]),
    "fewer names": hostile(told={"names": ["one"]}),
    "names that are a number": hostile(told={"names": 2}),
    "names that are a text": hostile(told={"names": "ab"}),
    "one name twice": hostile(told={"names": ["a", "a"]}),
    "temperature in words": hostile(told={"temperature": "warm"}),
    "temperature that is no number": hostile(told={"temperature": math.nan}),
    "infinite temperature": hostile(told={"temperature": math.inf}),
    "no frames": hostile(told={"frames": 0}),
    "frames that are a list": hostile(told={"frames": [3]}),
    "infinitely many frames": hostile(told={"frames": math.inf}),
    "not JSON": hostile(raw="adapter"),
    "a list": hostile(raw="[1, 2]"),
    "nothing": hostile(raw="null"),
    "a text": hostile(raw='"names"'),
    "nested without end": hostile(raw="[" * 100_000),
}


@pytest.mark.parametrize("write", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_does_not_hold_together_is_refused_in_a_sentence(tmp_path, write):
    file = tmp_path / "hostile.safetensors"
    write(file)
    with pytest.raises(WeightsError, match=r"hostile\.safetensors: is not an adapter") as error:
        read_adapter(file)
    assert "\n" not in str(error.value)


def test_the_hostile_files_differ_from_a_good_one(tmp_path):
    hostile()(tmp_path / "good.safetensors")
    assert read_adapter(tmp_path / "good.safetensors").names == ("class 0", "class 1")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(fitted, tmp_path, share):
    file = tmp_path / "a.safetensors"
    save_adapter(fitted.adapter, file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    for read in (read_adapter, lambda path: load_backbone(None, path, device="cpu")):
        with pytest.raises(WeightsError, match=r"a\.safetensors"):
            read(file)


def test_an_adapter_for_embeddings_of_another_width_is_refused(backbone, tmp_path):
    """The hash of the weights can be forged or carried over by hand; the shapes tell."""
    tensors, told = parts(dim=48)
    told["backbone_hash"] = backbone.weights_hash
    save_file(tensors, tmp_path / "a.safetensors", metadata={ADAPTER_KEY: json.dumps(told)})
    with pytest.raises(WeightsError):
        AdaptedBackbone(backbone, read_adapter(tmp_path / "a.safetensors"), "a")
