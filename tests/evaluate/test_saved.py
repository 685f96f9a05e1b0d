"""Saved runs: read back by plain pyarrow and by ourselves, and refused where they are damaged."""

import json
import math
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack, PackClass
from ost.errors import UsageError
from ost.evaluate.config import EvaluateConfig
from ost.evaluate.lists import EvaluationList
from ost.evaluate.measure import Measured
from ost.evaluate.protocols import OWN_PROTOCOL
from ost.evaluate.run import ListScores
from ost.evaluate.saved import MAX_RUN_BYTES, RUN, SCORES, load_run, record, save_run, save_scores
from ost.evaluate.task import EvaluationTask
from ost.evaluate.ways import MEAN_POOL, way_of

ODD = (
    "path",
    "label",
    "logit:path",
    'a "quoted", name',
    "🤸 cartwheel",
    "Räder\tschlagen",
    " archery",
    "Ärger, ja",
)


def answer(title, names, logits, truth, paths=None, **lost):
    logits = np.asarray(logits, np.float32).reshape(-1, len(names))
    paths = paths or [f"/videos/{title}/{i}.mp4" for i in range(len(logits))]
    truth = np.asarray(truth, bool).reshape(logits.shape)
    return ListScores(title, tuple(names), tuple(paths), logits, truth, **lost)


def made(answers, config=None):
    """An evaluation with these scores; the baseline has others."""
    config = config or EvaluateConfig(videos=Path("/videos"), frames=8)
    lists = [
        EvaluationList(
            a.title,
            Pack("made", tuple(map(PackClass, a.names))),
            [LabelledVideo(Path(p), a.names[0]) for p in a.paths],
        )
        for a in answers
    ]
    asked = way_of(config.settings)
    other = [answer(a.title, a.names, -a.logits, a.truth, a.paths) for a in answers]
    backbone = SimpleNamespace(
        name="tiny", weights_hash="0f" * 32, precision="fp32", fingerprint="fp", device="cpu"
    )
    scored = {asked: answers, MEAN_POOL: other}
    return Measured(EvaluationTask(config, OWN_PROTOCOL, lists), backbone, asked, scored, None, 1.5, 1)


def usual():
    """Two lists of different classes, some videos with several, one of a class that only differs in case."""
    rng = np.random.default_rng(0)
    lists = []
    for title, names in (("one", ODD), ("two", ("Path", "archery", *ODD[3:5]))):
        truth = rng.random((6, len(names))) < 0.3
        truth[np.arange(6), rng.integers(0, len(names), 6)] = True
        lists.append(answer(title, names, rng.normal(size=truth.shape) * 30, truth))
    return lists


@pytest.fixture
def run(tmp_path):
    save_run(tmp_path / "run", made(usual()))
    return tmp_path / "run"


def rows_of(lists):
    """(list, path, its classes, logits by name), as the answers have it."""
    for found in lists:
        for path, logits, truth in zip(found.paths, found.logits, found.truth, strict=True):
            own = {name for name, true in zip(found.names, truth, strict=True) if true}
            yield found.title, path, own, dict(zip(found.names, logits, strict=True))


def bits(values):
    return np.asarray(values, np.float32).view(np.uint32).tolist()


def check_table(table, lists, root="/videos/"):
    names = list(dict.fromkeys(name for found in lists for name in found.names))
    assert table.column_names == ["list", "path", "label", "labels", *(f"logit:{name}" for name in names)]
    assert all(table.schema.field(f"logit:{name}").type == pa.float32() for name in names)
    for row, (title, path, own, logits) in zip(table.to_pylist(), rows_of(lists), strict=True):
        assert (row["list"], row["path"]) == (title, path.removeprefix(root))
        assert row["label"] == row["labels"][0] == max(own, key=logits.__getitem__)
        assert sorted(row["labels"]) == sorted(own)
        assert {name for name in names if row[f"logit:{name}"] is not None} == set(logits)
        assert bits([row[f"logit:{name}"] for name in logits]) == bits(list(logits.values()))


def test_scores_are_plain_parquet_with_every_logit_to_the_bit(run):
    check_table(pq.read_table(run / SCORES), usual())


@st.composite
def protocols(draw):
    """Lists of different classes; where all have the same ones, logits tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tie, lists = draw(st.booleans()), []
    for title in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)):
        n = draw(st.integers(1, 6))
        names = ODD[:3] if tie else rng.permutation([*ODD, "only"])[: rng.integers(1, 9)].tolist()
        truth = rng.random((n, len(names))) < draw(st.sampled_from([0.0, 0.4]))
        truth[np.arange(n), rng.integers(0, len(names), n)] = True
        logits = rng.integers(0, 3, truth.shape) if tie else rng.normal(size=truth.shape) * 100
        lists.append(answer(title, names, logits, truth))
    return lists


@given(protocols())
@settings(max_examples=40, deadline=None)
def test_what_is_right_is_told_by_the_saved_scores(lists):
    with tempfile.TemporaryDirectory() as folder:
        save_run(Path(folder), made(lists))
        saved = load_run(Path(folder))
    assert saved.right.tolist() == [bool(right) for found in lists for right in found.right(1)]


def test_of_equal_logits_the_first_class_of_the_list_counts_after_reading_too(tmp_path):
    lists = [answer("one", "ab", [[2, 2]], [[1, 0]]), answer("two", "ba", [[2, 2]], [[1, 0]])]
    save_run(tmp_path, made(lists))
    assert [found.right(1).tolist() for found in lists] == [[True], [True]]
    assert load_run(tmp_path).right.tolist() == [True, True]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_number_is_kept_to_the_bit(values):
    names = [f"class {a}" for a in range(len(values))]
    found = answer("own", names, [values], np.arange(len(values)) == 0)
    with tempfile.TemporaryDirectory() as folder:
        save_scores(Path(folder) / "scores.parquet", made([found]))
        table = pq.read_table(Path(folder) / "scores.parquet")
    assert bits([table[f"logit:{name}"][0].as_py() for name in names]) == bits(values)


def test_a_run_is_read_back_as_it_was(run):
    lists, saved = usual(), load_run(run)
    measured = made(lists)
    assert saved.folder == run and saved.config == measured.task.config
    assert saved.record == json.loads(json.dumps(record(measured)))
    rows = list(rows_of(lists))
    assert saved.lists == [title for title, *_ in rows]
    assert saved.paths == [path.removeprefix("/videos/") for _, path, *_ in rows]
    assert [set(labels) for labels in saved.labels] == [own for *_, own, _ in rows]
    assert (
        len(saved.columns) == saved.logits.shape[1] == len({name for found in lists for name in found.names})
    )
    for i, (*_, logits) in enumerate(rows):
        assert bits(saved.logits[i, [saved.columns[name] for name in logits]]) == bits(list(logits.values()))
        assert np.isnan(saved.logits[i]).sum() == len(saved.columns) - len(logits)
    assert saved.logits.dtype == np.float32


def test_the_record_tells_what_made_the_numbers(run):
    lists = usual()
    told = json.loads((run / RUN).read_text(encoding="utf-8"))
    assert told["config"]["frames"] == 8 and told["config"]["videos"] == "/videos"
    assert (told["backbone"], told["weights"], told["precision"]) == ("tiny", "0f" * 32, "fp32")
    assert told["packs"] == {q.title: q.pack.hash for q in made(lists).task.lists}
    asked = told["numbers"][str(way_of(EvaluateConfig().settings))]
    assert [row["top1"] for row in asked["rows"]] == [found.right(1).mean() for found in lists]
    assert told["numbers"][str(MEAN_POOL)]["rows"][0]["videos"] == 6
    assert told["by_class"] == {found.title: found.by_class() for found in lists}


def test_a_list_without_videos_has_its_classes_and_no_row(tmp_path):
    empty = answer("none", ("far", "away"), np.zeros((0, 2)), np.zeros((0, 2)), missing=("x.mp4",))
    lists = [*usual(), empty]
    save_run(tmp_path, made(lists))
    check_table(pq.read_table(tmp_path / SCORES), lists)
    saved = load_run(tmp_path)
    assert set(saved.lists) == {"one", "two"} and {"far", "away"} <= set(saved.columns)
    assert saved.record["missing"]["none"] == ["x.mp4"] and "none" not in saved.record["by_class"]


def test_paths_below_the_videos_are_told_from_there_and_others_whole(tmp_path):
    paths = ["/videos/a/0.mp4", "/elsewhere/0.mp4", "/videos2/0.mp4"]
    found = answer("own", "ab", np.eye(3, 2), np.ones((3, 2)), paths)
    for config, expected in [
        (EvaluateConfig(videos=Path("/videos")), ["a/0.mp4", *paths[1:]]),
        (EvaluateConfig(manifest=Path("/elsewhere/list.csv")), [paths[0], "0.mp4", paths[2]]),
    ]:
        save_scores(tmp_path / SCORES, made([found], config))
        assert pq.read_table(tmp_path / SCORES)["path"].to_pylist() == expected


def test_a_path_that_is_no_text_is_kept_with_marks_in_its_place(tmp_path):
    path = "/videos/" + os.fsdecode(b"caf\xe9/\xff.mp4")
    found = answer("own", "ab", [[2, 1]], [[True, False]], [path])
    save_run(tmp_path, made([found]))
    assert pq.read_table(tmp_path / SCORES)["path"].to_pylist() == ["caf?/?.mp4"]
    assert load_run(tmp_path).right.tolist() == [True]


@pytest.mark.parametrize("where", ["unreadable", "missing", "videos"])
def test_a_run_with_a_name_that_is_no_text_is_kept(tmp_path, where):
    name = os.fsdecode(b"caf\xe9.mp4")
    lost = {"unreadable": {name: "is no video"}} if where == "unreadable" else {}
    lost |= {"missing": (name,)} if where == "missing" else {}
    config = EvaluateConfig(videos=Path("/" + name)) if where == "videos" else None
    save_run(tmp_path, made([answer("own", "ab", [[2, 1]], [[True, False]], **lost)], config))
    assert load_run(tmp_path).right.tolist() == [True]


def change(file, **changes):
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(told | changes), encoding="utf-8")


RECORDS = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_text(""),
    "no JSON": lambda file: file.write_text("{'schema': 1}"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-30]),
    "no text": lambda file: file.write_bytes(b'{"schema": "\xff"}'),
    "deep": lambda file: file.write_text("[" * 100_000),
    "deep and whole": lambda file: file.write_text('{"a":' * 50_000 + "1" + "}" * 50_000),
    "long number": lambda file: file.write_text('{"schema": ' + "1" * 10_000 + "}"),
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "huge": lambda file: os.truncate(file, MAX_RUN_BYTES + 1),
    "list": lambda file: file.write_text("[1]"),
    "null": lambda file: file.write_text("null"),
    "other schema": lambda file: change(file, schema=2),
    "schema in words": lambda file: change(file, schema=["1"]),
}
CONFIGS = {
    "no settings": lambda file: change(file, config=None),
    "unknown setting": lambda file: change(file, config={"framez": 8}),
    "frames": lambda file: change(file, config={"frames": 0}),
    "eps": lambda file: change(file, config={"eps": -1}),
    "nan": lambda file: change(file, config={"blend": math.nan}),
    "type": lambda file: change(file, config={"videos": {"a": []}}),
}


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_is_refused_in_a_sentence_that_names_it(run, damage):
    damage(run / RUN)
    refuse(run, run, run / RUN)


@pytest.mark.parametrize("damage", CONFIGS.values(), ids=CONFIGS)
def test_settings_that_cannot_be_meant_are_refused_in_a_sentence_that_names_the_record(run, damage):
    damage(run / RUN)
    refuse(run, run / RUN)


def refuse(run, *names):
    with pytest.raises(UsageError) as error:
        load_run(run)
    text = str(error.value)
    assert text.startswith(tuple(f"{name}: " for name in names)) and "\n" not in text


def rewrite(file, changed):
    table = pq.read_table(file)
    pq.write_table(changed(table), file)


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, [pa.array(values)])


def logits_of(table):
    return [name for name in table.column_names if name.startswith("logit:")]


def without_logits(table, row):
    for name in logits_of(table):
        values = table[name].to_pylist()
        values[row] = None
        table = with_column(table, name, pa.array(values, pa.float32()))
    return table


TABLES = {
    "no list": lambda t: t.drop_columns("list"),
    "no path": lambda t: t.drop_columns("path"),
    "no labels": lambda t: t.drop_columns("labels"),
    "no logits": lambda t: t.drop_columns(logits_of(t)),
    "a label without a column": lambda t: t.drop_columns(f"logit:{t['label'][0]}"),
    "a row without a logit": lambda t: without_logits(t, 3),
    "labels that are no lists": lambda t: with_column(t, "labels", [1] * len(t)),
    "null for labels": lambda t: with_column(t, "labels", [None, *t["labels"].to_pylist()[1:]]),
    "a null among labels": lambda t: with_column(t, "labels", [[None], *t["labels"].to_pylist()[1:]]),
    "no label": lambda t: with_column(t, "labels", [[], *t["labels"].to_pylist()[1:]]),
    "lists for titles": lambda t: with_column(t, "list", [["one"]] * len(t)),
    "null for a path": lambda t: with_column(t, "path", pa.array([None] * len(t), pa.string())),
    "words for logits": lambda t: with_column(t, "logit:path", ["much"] * len(t)),
    "lists for logits": lambda t: with_column(t, "logit:path", [[1.0, 2.0]] * len(t)),
    "structs for logits": lambda t: with_column(t, "logit:path", [{"a": 1.0}] * len(t)),
}


@pytest.mark.parametrize("changed", TABLES.values(), ids=TABLES)
def test_scores_of_another_shape_are_refused_in_a_sentence_that_names_the_file(run, changed):
    rewrite(run / SCORES, changed)
    refuse(run, run / SCORES)


FILES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("list,path,label\n"),
    "folder": lambda file: (file.unlink(), file.mkdir()),
    "zeros": lambda file: file.write_bytes(bytes(5000)),
    "marks alone": lambda file: file.write_bytes(b"PAR1PAR1PAR1"),
}


@pytest.mark.parametrize("damage", FILES.values(), ids=FILES)
def test_what_is_no_parquet_is_refused_in_a_sentence_that_names_the_file(run, damage):
    damage(run / SCORES)
    refuse(run, run / SCORES)


def test_scores_cut_anywhere_are_refused(run):
    whole = (run / SCORES).read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        (run / SCORES).write_bytes(whole[:length])
        refuse(run, run / SCORES)


def test_scores_with_a_changed_byte_are_read_or_refused(run):
    whole, rng = bytearray((run / SCORES).read_bytes()), np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = whole.copy()
        damaged[place] ^= int(rng.integers(1, 256))
        (run / SCORES).write_bytes(damaged)
        try:
            assert len(load_run(run).right) == len(load_run(run).paths)
        except UsageError as error:
            refused += 1
            text = str(error)
            assert text.startswith(f"{run / SCORES}: ") and "\n" not in text
    assert refused


@pytest.mark.parametrize("folder", ["list=one", "_runs", ".runs", "a b,ü"])
def test_the_name_of_the_folder_plays_no_part(tmp_path, folder):
    save_run(tmp_path / folder / "run", made(usual()))
    saved = load_run(tmp_path / folder / "run")
    assert set(saved.lists) == {"one", "two"} and len(saved.paths) == 12
