"""The mean cosine between classes, held against a plain loop and scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch.nn.functional import normalize

from ost.descriptors.pack import Pack, PackClass
from ost.evaluate.separability import CLOSEST, separability


def embed(texts):
    """Unit embeddings that depend on nothing but the text."""
    rows = [torch.randn(16, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return normalize(torch.stack(rows), dim=-1)


def make_pack(classes=7):
    return Pack(
        "made",
        tuple(
            PackClass(
                f"name {i}",
                tuple(f"sight {i} {j}" * (j + 1) for j in range(1 + i % 3)),
                tuple(f"step {j} {i}" for j in range(2)) if i != 4 else (),
            )
            for i in range(classes)
        ),
    )


@pytest.mark.parametrize("kind", ["name", "spatial", "temporal"])
def test_the_mean_is_over_all_pairs_of_different_classes(kind):
    pack = make_pack()
    texts = [(c.name,) if kind == "name" else getattr(c, kind) or (c.name,) for c in pack.classes]
    rows = np.stack([embed(list(row)).numpy().mean(0) for row in texts])
    cosines = cosine_similarity(rows)
    expected = np.mean([cosines[a, b] for a, b in itertools.combinations(range(len(pack)), 2)])
    found = separability(pack, embed)
    assert found.mean[kind] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found.cosines[kind].numpy(), cosines, atol=1e-6)


def test_the_most_confusable_pairs_come_first_and_each_once():
    pack = make_pack(12)
    found = separability(pack, embed)
    assert len(found.closest) == CLOSEST
    alike = [pair.descriptors for pair in found.closest]
    assert alike == sorted(alike, reverse=True)
    assert len({frozenset(pair[:2]) for pair in found.closest}) == CLOSEST
    both = (found.cosines["spatial"] + found.cosines["temporal"]) / 2
    assert alike[0] == pytest.approx(float(both.fill_diagonal_(-1).max()))


def test_order_of_the_classes_changes_nothing():
    pack = make_pack()
    turned = Pack("made", pack.classes[::-1])
    first, second = separability(pack, embed), separability(turned, embed)
    assert first.mean == pytest.approx(second.mean)
    assert first.own_name == second.own_name


def test_classes_whose_descriptors_are_their_names_are_nearest_to_their_own():
    pack = Pack("same", tuple(PackClass(f"word{i}", (f"word{i}",), (f"word{i}",)) for i in range(5)))
    found = separability(pack, embed)
    assert found.own_name == {"spatial": 1, "temporal": 1}
    assert found.mean["spatial"] == pytest.approx(found.mean["name"])


def test_two_classes_are_enough():
    found = separability(make_pack(2), embed)
    assert len(found.closest) == 1
