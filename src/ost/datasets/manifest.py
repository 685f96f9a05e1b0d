"""Manifests: lists of labelled videos, CSV or Parquet with the columns path and label, validated."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ost.errors import UsageError, first_line

MAX_LIST_BYTES, MAX_LINE = 1 << 30, 1 << 16
MAX_ROWS = 1 << 24
BATCH = 1 << 14
MAGIC = b"PAR1"


class LabelledVideo(NamedTuple):
    """A video with its label, and any other labels it has."""

    path: Path
    label: str
    others: tuple[str, ...] = ()


def manifest_text(clips: Iterable[LabelledVideo]) -> str:
    """Return a CSV manifest of the videos, one row per label, with absolute paths."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "label"))
    for clip in clips:
        writer.writerows((str(clip.path.absolute()), label) for label in (clip.label, *clip.others))
    return text.getvalue()


def is_manifest(path: str | Path) -> bool:
    """Return whether a file is Parquet, or begins with a header that has the columns path and label (or labels)."""
    if _is_parquet(Path(path)):
        return True
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader([file.readline(MAX_LINE)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return not _missing(header)


def read_manifest(
    path: str | Path, dataset: str | None = None, root: str | Path | None = None
) -> list[LabelledVideo]:
    """Read the videos of a manifest, in the order of their first rows; paths are relative to its folder.

    A row's labels are those of its columns `label` and `labels`, which is separated by `|` in CSV and a list in
    Parquet. Rows with the same path are one video, which has the labels of all these rows.

    Args:
        path: a CSV with a header, or Parquet; `path`, and `label` or `labels`, are required; other columns
            are ignored.
        dataset: keep only rows with this value in the column `dataset`.
        root: the folder that paths are relative to, instead of the manifest's.

    Raises:
        UsageError: the file cannot be read, a column or a value is missing, or no row is left.
    """
    manifest = Path(path)
    rows = _parquet_rows(manifest, dataset) if _is_parquet(manifest) else _csv_rows(manifest, dataset)
    base = manifest.parent if root is None else Path(root)
    labels: dict[Path, dict[str, None]] = {}
    other_datasets: set[str] = set()
    for row in rows:
        if dataset and row.dataset != dataset:
            other_datasets.add(row.dataset)
            continue
        where = f"{path}: {row.where}"
        if not row.path or not row.labels:
            raise UsageError(f"{where} has no {'label' if row.path else 'path'}")
        if "" in row.labels:
            raise UsageError(f"{where} has an empty label among its labels")
        if "\0" in row.path:
            raise UsageError(f"{where} has a character 0 in its path, which no file has: {row.path[:80]!r}")
        labels.setdefault(base / row.path, {}).update(dict.fromkeys(row.labels))
    if not labels:
        names = ", ".join(sorted(other_datasets - {""})) or "none"
        raise UsageError(f"{path}: has no row of dataset {dataset!r}; it has {names}")
    return [LabelledVideo(video, *_first_and_others(video_labels)) for video, video_labels in labels.items()]


def _first_and_others(labels: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    first, *others = labels
    return first, tuple(others)


class _Row(NamedTuple):
    """A row before validation; `where` is its line or its number."""

    where: str
    path: str
    labels: list[str]
    dataset: str


def _missing(columns: Iterable[str], dataset: str | None = None) -> list[str]:
    """Return the columns that a manifest needs and lacks."""
    present = set(columns)
    required = ["path", "labels" if "labels" in present else "label", *(["dataset"] if dataset else [])]
    return [column for column in required if column not in present]


def _csv_rows(manifest: Path, dataset: str | None) -> Iterator[_Row]:
    try:
        if manifest.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(f"{manifest}: larger than {MAX_LIST_BYTES >> 30} GiB, which no manifest is")
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            row = next(rows, None)
            if missing := _missing((rows.fieldnames or ()) if row else (), dataset):
                raise UsageError(
                    f"{manifest}: needs rows under a header with the column {' and '.join(missing)}"
                )
            while row:
                several = (row.get("labels") or "").strip()
                labels = [label for label in (row.get("label"),) if label]
                labels += [label.strip() for label in several.split("|")] if several else []
                yield _Row(f"line {rows.line_num}", row["path"] or "", labels, row.get("dataset") or "")
                row = next(rows, None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{manifest}: is not a manifest that can be read ({first_line(error)})") from error


def _is_parquet(manifest: Path) -> bool:
    """Return whether a file is Parquet, by its name or its first bytes; text may begin alike, but has no NUL."""
    try:
        with manifest.open("rb") as file:
            head = file.read(MAX_LINE)
    except OSError:
        return False
    return manifest.suffix.lower() == ".parquet" or (head.startswith(MAGIC) and b"\0" in head)


def _parquet_rows(manifest: Path, dataset: str | None) -> Iterator[_Row]:
    import pyarrow.parquet as pq

    try:
        if manifest.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(f"{manifest}: larger than {MAX_LIST_BYTES >> 30} GiB, which no manifest is")
        with manifest.open("rb") as raw:
            metadata = pq.read_metadata(raw)
            # Other sizes are not read: pyarrow aborts the process when those of a damaged file contradict.
            if metadata.num_rows > MAX_ROWS:
                raise UsageError(_too_large(manifest))
            columns = _check_columns(manifest, metadata, dataset)
            number = size = 0
            for batch in _batches(raw, metadata, columns):
                arrays = {name: batch.column(name) for name in columns}
                size += sum(_text_size(array) for array in arrays.values())
                if number + len(batch) > MAX_ROWS or size > MAX_LIST_BYTES:
                    raise UsageError(_too_large(manifest))
                values = {name: _values(array) for name, array in arrays.items()}
                no_values: Sequence[Any] = [None] * len(batch)
                for path, label, several, row_dataset in zip(
                    values["path"],
                    values.get("label", no_values),
                    values.get("labels", no_values),
                    values.get("dataset", no_values),
                    strict=True,
                ):
                    number += 1
                    labels = [*([label] if label else []), *(one or "" for one in several or ())]
                    yield _Row(f"row {number}", path or "", labels, row_dataset or "")
    except UsageError:
        raise
    except Exception as error:  # pyarrow raises errors of many kinds for a damaged file
        raise UsageError(
            f"{manifest}: is not a Parquet file that can be read ({first_line(error)})"
        ) from error
    if not number:
        raise UsageError(f"{manifest}: has no rows; a manifest names a video and its label in each")


def _batches(raw: Any, metadata: Any, columns: Sequence[str]) -> Iterator[Any]:
    """Yield batches of rows, dictionary-encoded: a text that millions of rows repeat is held once."""
    import pyarrow.parquet as pq

    leaves = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    text_columns = [leaf for leaf in leaves if leaf.split(".")[0] in columns]
    file = pq.ParquetFile(raw, metadata=metadata, read_dictionary=text_columns, pre_buffer=False)
    for group in range(
        metadata.num_row_groups
    ):  # one at a time: pyarrow cannot join lists of two dictionaries
        yield from file.iter_batches(BATCH, row_groups=[group], columns=list(columns), use_threads=False)


def _too_large(manifest: Path) -> str:
    most = f"{MAX_ROWS:,} rows or {MAX_LIST_BYTES >> 30} GiB of text"
    return f"{manifest}: holds more than {most}, which no manifest does"


def _check_columns(manifest: Path, metadata: Any, dataset: str | None) -> list[str]:
    """Return the columns to read, after checking that each is unique and of the right type."""
    schema = metadata.schema.to_arrow_schema()
    if missing := _missing(schema.names, dataset):
        raise UsageError(f"{manifest}: needs rows with the column {' and '.join(missing)}")
    known_columns = ["path", "label", "labels", *(["dataset"] if dataset else [])]
    for name in (columns := [name for name in known_columns if name in schema.names]):
        if schema.names.count(name) > 1:
            raise UsageError(
                f"{manifest}: has {schema.names.count(name)} columns called {name}; leave one of them"
            )
        kind = schema.field(name).type
        if not (_is_texts(kind) if name == "labels" else _is_text(kind)):
            needed = "a list of strings" if name == "labels" else "a string"
            raise UsageError(f"{manifest}: its column {name} is {str(kind)[:80]}, and has to be {needed}")
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
    """Return the bytes that the texts of a column take when written out."""
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
