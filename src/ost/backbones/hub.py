"""Weight files by name: fetched once through huggingface_hub into its usual cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ost.backbones.catalog import HubFile
from ost.errors import WeightsError
from ost.files import cache_folder, write_text


def fetch(file: HubFile, name: str) -> Path:
    """The local path of a hub file, downloaded if it is not in the cache.

    A download that broke off goes on where it was. Mirrors and offline mode are huggingface_hub's own
    settings: HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME.

    Raises:
        WeightsError: says which file is wanted, where to put it, and what works without it.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    reason = ""
    for filename in file.files:
        try:
            return _download(file, filename)
        except (LocalEntryNotFoundError, OfflineModeIsEnabled):
            reason = "it is not in the cache and the hub cannot be reached"
            break
        except GatedRepoError:
            reason = (
                "its owner asks you to accept terms first; do so on the hub and log in with `hf auth login`"
            )
            break
        except RepositoryNotFoundError:
            reason = "the hub knows no such repository"
            break
        except EntryNotFoundError:
            reason = "the repository has no such file"
        except (HfHubHTTPError, OSError) as error:
            reason = f"the download failed ({(str(error).splitlines() or [type(error).__name__])[0][:120]})"
            break
    raise WeightsError(
        f"{name}: {file.repo}/{file.files[0]} is wanted, but {reason}; download that file by other means and "
        "pass it with --weights FILE, or use --backbone lite, which needs no download"
    )


def _download(file: HubFile, filename: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(file.repo, filename, repo_type=file.repo_type))


def show_licence_once(name: str, licence: str, tell: Callable[[str], None]) -> None:
    """Say under which licence weights are published, the first time they are used on this machine."""
    marker = cache_folder() / "licences" / name.replace("/", "--")
    if marker.exists():
        return
    tell(f"the weights {name} are published under {licence}")
    write_text(marker, licence + "\n")
