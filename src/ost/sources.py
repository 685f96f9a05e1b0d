"""Find the labelled videos that a user points at: a folder per class, a list, or a benchmark's lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ost.archives import is_archive, members
from ost.datasets.catalog import Benchmark, read_split
from ost.datasets.folder import labelled_folder
from ost.datasets.lists import Subset, read_list
from ost.datasets.locate import Located, locate_all
from ost.datasets.manifest import LabelledVideo, is_manifest, read_manifest
from ost.errors import UsageError
from ost.video.find import search


@dataclass(frozen=True)
class LabelledVideos:
    """Labelled videos, and those that cannot be used.

    Attributes:
        videos: the videos that were found.
        missing: videos of a list without a file.
        notices: archives that cannot be read to their end, one sentence each.
        unclear: video of a list -> why its file is ambiguous.
    """

    videos: list[LabelledVideo] = field(default_factory=list[LabelledVideo])
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    unclear: Mapping[str, str] = field(default_factory=dict[str, str])


def own_videos(
    videos: Path | None,
    manifest: Path | None,
    names: Sequence[str] | None = None,
    part: Subset = "train",
) -> LabelledVideos:
    """Return the labelled videos that a user points at.

    Args:
        videos: a folder per class; or, with a list, the folder that its paths are relative to. A .tar archive
            counts as a folder.
        manifest: CSV or Parquet with the columns path and label, or a list in a benchmark's own format.
        names: the classes that numbers in a list stand for.
        part: which videos of a list that marks both parts, as HMDB-51's do.

    Raises:
        UsageError: neither is given, or they cannot be read.
    """
    if videos is not None and not videos.is_dir() and not is_archive(videos):
        raise UsageError(
            f"{videos}: is not a folder; --videos is a folder with a folder of videos for each class"
        )
    if manifest is None:
        if videos is None:
            raise UsageError("no videos are named; give --videos (a folder per class) or --manifest")
        listing = search([videos])
        broken = {path: members(path).trouble for path in listing.unread if is_archive(path)}
        paths = listing.paths + [path for path in listing.unread if path not in broken]
        notices = tuple(f"{path}: {trouble}" for path, trouble in broken.items())
        try:
            return LabelledVideos(labelled_folder(videos, paths), notices=notices)
        except UsageError as error:
            if notices:
                raise UsageError(f"{error} ({notices[0]})") from error
            raise
    if is_manifest(manifest):
        return LabelledVideos(read_manifest(manifest, root=videos))
    if videos is None:
        raise UsageError(f"{manifest}: lists videos by name; give the folder they are in with --videos")
    located = locate_all(read_list(manifest, names, part), videos, title=str(manifest))
    return _from_located(located)


def listed_videos(benchmark: Benchmark, split: str, videos: Path | None) -> LabelledVideos:
    """Return the videos of a benchmark's list, located below a folder.

    Raises:
        UsageError: no video was located.
    """
    if videos is None:
        raise UsageError(
            f"{benchmark.title} is needed; give the folder it is in with --videos ({benchmark.layout})"
        )
    located = locate_all(
        read_split(benchmark, split), videos, title=f"{split} of {benchmark.title}", layout=benchmark.layout
    )
    return _from_located(located)


def _from_located(located: Located) -> LabelledVideos:
    missing = tuple(entry.video for entry in located.missing)
    return LabelledVideos(located.videos, missing, located.notices, located.unclear)
