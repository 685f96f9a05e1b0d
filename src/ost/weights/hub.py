"""Download weight files once, through huggingface_hub into its usual cache."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ost.activity import Activity, activity, watched
from ost.errors import WeightsError, first_line
from ost.files import cache_folder, file_hash, write_text
from ost.weights.pins import PINS, Pin
from ost.weights.published import HubFile

LITE_REMEDY = "use {backbone=lite}, which needs no download"
LITE_REMEDY_ALONE = "use {backbone=lite} without {weights}, which needs no download"
LITE_REMEDIES = (LITE_REMEDY, LITE_REMEDY_ALONE)


def fetch(file: HubFile, name: str, remedy: str = "{weights=FILE}") -> Path:
    """Return the local path of a hub file at its pinned revision, downloading it if it is not in the cache.

    A file in the cache is used without a request to the hub. An interrupted download is resumed. Mirrors and offline
    mode are huggingface_hub's own settings: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE.

    Args:
        file: its location on the hub.
        name: its name as the user gave it.
        remedy: how to pass a file that was downloaded by other means, such as "{weights=FILE}"; see `OstError`.

    Raises:
        WeightsError: it cannot be downloaded; the message names the file, how to pass it, and what works without it.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
    )

    pin = PINS.get(file.repo, Pin())
    for filename in file.files:
        cached = try_to_load_from_cache(file.repo, filename, revision=pin.revision, repo_type=file.repo_type)
        if isinstance(cached, str):
            return Path(cached)
    reason = ""
    for filename in file.files:
        try:
            return _download(file, filename, pin)
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
        RevisionNotFoundError,
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
        case RevisionNotFoundError():
            return "the hub does not have the revision of it that is known to be right"
        case LocalEntryNotFoundError():
            return f"it is not in the cache and the hub cannot be reached ({line})"
        case EntryNotFoundError():
            return "the repository has no such file"
        case HfHubHTTPError():
            return f"the hub answered {error.response.status_code}"
        case _:
            return f"it is not in the cache and the download failed ({line})"


def _download(file: HubFile, filename: str, pin: Pin) -> Path:
    """Download a file with huggingface_hub into its cache, and check its hash."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    # Requested first: hf_hub_download alone retries for half a minute before it reports that there is no network.
    metadata = get_hf_file_metadata(
        hf_hub_url(file.repo, filename, repo_type=file.repo_type, revision=pin.revision)
    )
    if metadata.etag is None or metadata.commit_hash is None:
        raise OSError(f"what answers at {constants.ENDPOINT} is not a hub")
    on_hub = metadata.etag if re.fullmatch("[0-9a-f]{64}", metadata.etag) else None  # of a large file
    expected = pin.sha256.get(filename, on_hub)
    if on_hub and on_hub != expected:
        raise OSError(f"{constants.ENDPOINT} has another file there, with the SHA-256 {metadata.etag[:12]}")
    with activity(f"downloading {file.repo.split('/')[-1]}, MB") as download:
        progress = _progress_class(download) if watched() else None
        path = Path(
            hf_hub_download(
                file.repo,
                filename,
                repo_type=file.repo_type,
                revision=pin.revision,
                tqdm_class=progress,
            )
        )
    if expected and file_hash(path) != expected:
        path.resolve().unlink()
        path.unlink()
        raise OSError("it arrived damaged; try again")
    return path


def _progress_class(download: Activity) -> Any:
    """Return a tqdm class that reports progress to the activity, instead of drawing over the status line."""
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


def show_licence_once(name: str, licence: str, notify: Callable[[str], None]) -> None:
    """Notify of the licence of published weights, the first time they are used on this machine."""
    marker = cache_folder() / "licences" / name.replace("/", "--")
    if marker.exists():
        return
    notify(f"the weights {name} are published under {licence}")
    with contextlib.suppress(OSError):  # without a writable cache the licence is shown again next time
        write_text(marker, licence + "\n")
