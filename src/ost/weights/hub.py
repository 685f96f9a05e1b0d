"""Weight files by name: fetched once through huggingface_hub into its usual cache."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ost.activity import Activity, activity, watched
from ost.errors import WeightsError, first_line
from ost.files import cache_folder, file_hash, write_text
from ost.weights.published import HubFile

LITE_REMEDY = "use {backbone=lite}, which needs no download"
LITE_REMEDY_ALONE = "use {backbone=lite} without {weights}, which needs no download"
LITE_REMEDIES = (LITE_REMEDY, LITE_REMEDY_ALONE)


def fetch(file: HubFile, name: str, remedy: str = "{weights=FILE}") -> Path:
    """The local path of a hub file, downloaded if it is not in the cache.

    A file that is in the cache is used without asking the hub. A download that broke off goes on where it was
    at the next call. Mirrors and offline mode are huggingface_hub's own settings: HF_ENDPOINT, HF_HOME,
    HF_HUB_OFFLINE.

    Args:
        file: where it is on the hub.
        name: what the user called it.
        remedy: how to give a file that was had by other means, such as "{weights=FILE}"; see `OstError`.

    Raises:
        WeightsError: says which file is wanted, where to put it, and what works without it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    )

    for filename in file.files:
        cached = try_to_load_from_cache(file.repo, filename, repo_type=file.repo_type)
        if isinstance(cached, str):
            return Path(cached)
    reason = ""
    for filename in file.files:
        try:
            return _download(file, filename)
        except (EntryNotFoundError, HTTPError, OSError) as error:
            reason = _reason(error)
            if not isinstance(error, EntryNotFoundError):
                break
    raise WeightsError(
        f"{name}: {file.repo}/{file.files[0]} is needed, but {reason}",
        f"download that file by other means and pass it with {remedy}",
        LITE_REMEDY if file.repo_type == "model" else LITE_REMEDY_ALONE,
    )


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    line = first_line(error)
    match error:
        case OfflineModeIsEnabled():
            return "it is not in the cache and HF_HUB_OFFLINE forbids to fetch it"
        case GatedRepoError():
            return (
                "its owner asks you to accept terms first; do so on the hub and log in with `hf auth login`"
            )
        case RepositoryNotFoundError():
            return "the hub has no such repository, or shows it only after `hf auth login`"
        case LocalEntryNotFoundError():
            return f"it is not in the cache and the hub cannot be reached ({line})"
        case EntryNotFoundError():
            return "the repository has no such file"
        case HfHubHTTPError():
            return f"the hub answered {error.response.status_code}"
        case _:
            return f"it is not in the cache and the download failed ({line})"


def _download(file: HubFile, filename: str) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    url = hf_hub_url(file.repo, filename, repo_type=file.repo_type)
    # Asked once: left to itself, hf_hub_download tries for half a minute before it says there is no network.
    told = get_hf_file_metadata(url)
    if told.etag is None or told.commit_hash is None:
        raise OSError(f"what answers at {constants.ENDPOINT} is not a hub")
    folder = repo_folder_name(repo_id=file.repo, repo_type=file.repo_type)
    _complete(url, Path(constants.HF_HUB_CACHE), folder, told.etag, told.size)
    return Path(hf_hub_download(file.repo, filename, repo_type=file.repo_type))


def _complete(url: str, cache: Path, folder: str, etag: str, size: int | None) -> None:
    """Put a file where hf_hub_download finds it; unlike that, keep what came before a connection broke."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    blob = cache / folder / "blobs" / etag
    lock = cache / ".locks" / folder / f"{etag}.lock"
    for place in (blob, lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{etag}.part")
    with WeakFileLock(lock):
        if blob.exists():
            return
        with part.open("ab") as stream:
            if size is not None and stream.tell() > size:
                stream.truncate(0)
                stream.seek(0)
            with activity(f"downloading {folder.split('--')[-1]}, MB") as download:
                http_get(
                    url,
                    stream,
                    resume_size=stream.tell(),
                    headers=build_hf_headers(),
                    expected_size=size,
                    tqdm_class=_counting(download) if watched() else None,
                )
        if re.fullmatch("[0-9a-f]{64}", etag) and file_hash(part) != etag:  # the hub's etag of a large file
            part.unlink()
            raise OSError("it arrived damaged; try again")
        part.replace(blob)


def _counting(download: Activity) -> Any:
    """What huggingface_hub tells its progress to, instead of a bar that would be drawn into the status line."""
    from huggingface_hub.utils import tqdm

    class Counting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})
            self.bytes = int(options.get("initial") or 0)
            download.total = int(options.get("total") or 0) // 1_000_000

        def update(self, n: float | None = 1) -> bool | None:
            self.bytes += int(n or 0)
            download.reach(self.bytes // 1_000_000)
            return None

    return Counting


def show_licence_once(name: str, licence: str, tell: Callable[[str], None]) -> None:
    """Say under which licence weights are published, the first time they are used on this machine."""
    marker = cache_folder() / "licences" / name.replace("/", "--")
    if marker.exists():
        return
    tell(f"the weights {name} are published under {licence}")
    with contextlib.suppress(OSError):  # a cache that cannot be written to: say it again next time
        write_text(marker, licence + "\n")
