"""A list of labelled videos: CSV or Parquet with the columns path and label, checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ost.errors import UsageError, first_line

MAX_BYTES, MAX_LINE = 1 << 30, 1 << 16
MAX_ROWS = 1 << 24
BATCH = 1 << 14
MAGIC = b"PAR1"


class Clip(NamedTuple):
    """A video and the label it has, and others that it has too."""

    path: Path
    label: str
    others: tuple[str, ...] = ()


def manifest_text(clips: Iterable[Clip]) -> str:
    """Clips as a manifest, a row for each label; the paths become absolute."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "label"))
    for clip in clips:
        writer.writerows((str(clip.path.absolute()), label) for label in (clip.label, *clip.others))
    return text.getvalue()


def is_manifest(path: str | Path) -> bool:
    """Whether a file is Parquet, or begins with a header that has the columns path and label (or labels)."""
    if _is_parquet(Path(path)):
        return True
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader([file.readline(MAX_LINE)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return not _missing(header)


def read_manifest(path: str | Path, dataset: str | None = None, root: str | Path | None = None) -> list[Clip]:
    """The videos of a manifest, in the order of their first rows; paths are relative to its folder.

    A row has the label in its column `label` and those in its column `labels`: in CSV separated by `|`, in Parquet
    a list. Rows of one path are one video, which has the labels of all of them.

    Args:
        path: a CSV with a header, or Parquet; `path`, and `label` or `labels`, are needed, other columns are
            left alone.
        dataset: only rows with this in the column `dataset`.
        root: what paths are relative to, if not the folder of the manifest.

    Raises:
        UsageError: the file cannot be read, a column or a value is missing, or no row is left.
    """
    place = Path(path)
    rows = _parquet_rows(place, dataset) if _is_parquet(place) else _csv_rows(place, dataset)
    home = place.parent if root is None else Path(root)
    labels: dict[Path, dict[str, None]] = {}
    known: set[str] = set()
    for row in rows:
        if dataset and row.dataset != dataset:
            known.add(row.dataset)
            continue
        where = f"{path}: {row.where}"
        if not row.path or not row.labels:
            raise UsageError(f"{where} has no {'label' if row.path else 'path'}")
        if "" in row.labels:
            raise UsageError(f"{where} has an empty label among its labels")
        if "\0" in row.path:
            raise UsageError(f"{where} has a character 0 in its path, which no file has: {row.path[:80]!r}")
        labels.setdefault(home / row.path, {}).update(dict.fromkeys(row.labels))
    if not labels:
        told = ", ".join(sorted(known - {""})) or "none"
        raise UsageError(f"{path}: has no row of dataset {dataset!r}; it has {told}")
    return [Clip(video, *_first_and_others(own)) for video, own in labels.items()]


def _first_and_others(labels: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    first, *others = labels
    return first, tuple(others)


class _Row(NamedTuple):
    """A row as it is written, to be checked; `where` is its line or its number."""

    where: str
    path: str
    labels: list[str]
    dataset: str


def _missing(columns: Iterable[str], dataset: str | None = None) -> list[str]:
    """The columns that a manifest needs and does not have."""
    there = set(columns)
    needed = ["path", "labels" if "labels" in there else "label", *(["dataset"] if dataset else [])]
    return [column for column in needed if column not in there]


def _csv_rows(place: Path, dataset: str | None) -> Iterator[_Row]:
    try:
        if place.stat().st_size > MAX_BYTES:
            raise UsageError(f"{place}: larger than {MAX_BYTES >> 30} GiB, which no manifest is")
        with place.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            row = next(rows, None)
            if missing := _missing((rows.fieldnames or ()) if row else (), dataset):
                raise UsageError(
                    f"{place}: needs rows under a header with the column {' and '.join(missing)}"
                )
            while row:
                several = (row.get("labels") or "").strip()
                labels = [label for label in (row.get("label"),) if label]
                labels += [label.strip() for label in several.split("|")] if several else []
                yield _Row(f"line {rows.line_num}", row["path"] or "", labels, row.get("dataset") or "")
                row = next(rows, None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{place}: is not a manifest that can be read ({first_line(error)})") from error


def _is_parquet(place: Path) -> bool:
    """By its name, or by its first bytes: text may begin with the same four, and has no character 0."""
    try:
        with place.open("rb") as file:
            head = file.read(MAX_LINE)
    except OSError:
        return False
    return place.suffix.lower() == ".parquet" or (head.startswith(MAGIC) and b"\0" in head)


def _parquet_rows(place: Path, dataset: str | None) -> Iterator[_Row]:
    import pyarrow.parquet as pq

    try:
        if place.stat().st_size > MAX_BYTES:
            raise UsageError(f"{place}: larger than {MAX_BYTES >> 30} GiB, which no manifest is")
        with place.open("rb") as raw:
            about = pq.read_metadata(raw)
            # Its other sizes are not asked: pyarrow ends the process when those of a damaged file contradict.
            if about.num_rows > MAX_ROWS:
                raise UsageError(_too_much(place))
            columns = _checked_columns(place, about, dataset)
            number = size = 0
            for batch in _batches(raw, about, columns):
                found = {name: batch.column(name) for name in columns}
                size += sum(_text_size(array) for array in found.values())
                if number + len(batch) > MAX_ROWS or size > MAX_BYTES:
                    raise UsageError(_too_much(place))
                values = {name: _values(array) for name, array in found.items()}
                nothing: Sequence[Any] = [None] * len(batch)
                for path, label, several, own in zip(
                    values["path"],
                    values.get("label", nothing),
                    values.get("labels", nothing),
                    values.get("dataset", nothing),
                    strict=True,
                ):
                    number += 1
                    labels = [*([label] if label else []), *(one or "" for one in several or ())]
                    yield _Row(f"row {number}", path or "", labels, own or "")
    except UsageError:
        raise
    except Exception as error:  # what a damaged file makes pyarrow raise is of no one kind
        raise UsageError(f"{place}: is not a Parquet file that can be read ({first_line(error)})") from error
    if not number:
        raise UsageError(f"{place}: has no rows; a manifest names a video and its label in each")


def _batches(raw: Any, about: Any, columns: Sequence[str]) -> Iterator[Any]:
    """Some rows at a time, with texts as dictionaries: one that millions of rows repeat is held once."""
    import pyarrow.parquet as pq

    leaves = [about.schema.column(i).path for i in range(about.num_columns)]
    texts = [leaf for leaf in leaves if leaf.split(".")[0] in columns]
    file = pq.ParquetFile(raw, metadata=about, read_dictionary=texts, pre_buffer=False)
    for group in range(
        about.num_row_groups
    ):  # each alone: lists of two dictionaries are more than pyarrow joins
        yield from file.iter_batches(BATCH, row_groups=[group], columns=list(columns), use_threads=False)


def _too_much(place: Path) -> str:
    most = f"{MAX_ROWS:,} rows or {MAX_BYTES >> 30} GiB of text"
    return f"{place}: holds more than {most}, which no manifest does"


def _checked_columns(place: Path, about: Any, dataset: str | None) -> list[str]:
    """The columns to read, each there once and of the type that it has to have."""
    schema = about.schema.to_arrow_schema()
    if missing := _missing(schema.names, dataset):
        raise UsageError(f"{place}: needs rows with the column {' and '.join(missing)}")
    wanted = ["path", "label", "labels", *(["dataset"] if dataset else [])]
    for name in (columns := [name for name in wanted if name in schema.names]):
        if schema.names.count(name) > 1:
            raise UsageError(
                f"{place}: has {schema.names.count(name)} columns called {name}; leave one of them"
            )
        kind = schema.field(name).type
        if not (_is_texts(kind) if name == "labels" else _is_text(kind)):
            needed = "a list of strings" if name == "labels" else "a string"
            raise UsageError(f"{place}: its column {name} is {str(kind)[:80]}, and has to be {needed}")
    return columns


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_texts(kind: Any) -> bool:
    from pyarrow import types

    lists = types.is_list(kind), types.is_large_list(kind), types.is_fixed_size_list(kind)
    views = types.is_list_view(kind), types.is_large_list_view(kind)
    return any((*lists, *views)) and _is_text(kind.value_type)


def _text_size(array: Any) -> int:
    """How many bytes the texts of a column take when written out."""
    import pyarrow.compute as pc
    from pyarrow import types

    texts = array.flatten() if _is_texts(array.type) else array
    if types.is_dictionary(texts.type):
        sizes = pc.call_function("binary_length", [texts.dictionary]).take(texts.indices)
    else:
        sizes = pc.call_function("binary_length", [texts.cast("large_string")])  # views have no such kernel
    return len(texts) + (pc.call_function("sum", [sizes]).as_py() or 0)


def _values(array: Any) -> list[Any]:
    from pyarrow import types

    return (array.dictionary_decode() if types.is_dictionary(array.type) else array).to_pylist()
