"""Sentences for users of a container: each names what is wrong and what to add to the command line."""

import os
import tempfile
from pathlib import Path

import pytest

from soundsight import checks
from soundsight.errors import ConfigError, DatasetError

ROOT_ONLY = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user"
)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """A workspace as the image has it, with nothing mounted."""
    place = tmp_path / "workspace"
    place.mkdir()
    monkeypatch.setenv("SOUNDSIGHT_WORKSPACE", str(place))
    return place


def test_a_missing_mount_says_what_to_add(image):
    with pytest.raises(DatasetError, match=r'add -v "\$PWD":/.*workspace to docker run'):
        checks.check_data(image / "data")
    (image / "data").mkdir()  # the image has it, but empty
    with pytest.raises(DatasetError, match=r"There is nothing in .*data, since no folder of this computer"):
        checks.check_data(image / "data")
    assert "results end with the container" in checks.lost_results()


def test_data_that_is_there_needs_no_mount(image):
    (image / "data" / "train").mkdir(parents=True)
    checks.check_data(image / "data")


def test_outside_the_image_mounts_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.delenv("SOUNDSIGHT_WORKSPACE", raising=False)
    checks.check_data(tmp_path / "nowhere")
    assert checks.lost_results() is None


@pytest.mark.parametrize(
    ("point", "mounted"),
    [("/workspace", True), ("/workspace/runs", True), ("/", False), ("/workspace2", False), ("/work", False)],
)
def test_mounts_are_found_at_and_below_the_workspace(tmp_path, point, mounted):
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 98:0 / {point} rw,noatime master:1 - ext4 /dev/root rw\n")
    assert checks.is_mounted(Path("/workspace"), table) is mounted


def test_a_folder_that_can_be_made_passes(tmp_path):
    checks.check_writable(tmp_path / "runs" / "classify")
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"runs cannot be written to: not a directory"):
        checks.check_writable(tmp_path / "runs" / "train")


@ROOT_ONLY
@pytest.mark.parametrize(
    ("owner", "advice"),
    [(4321, "add --user 4321:4322 to docker run."), (0, "make it yours with chown first.")],
)
def test_somebody_elses_folder_says_who_to_be(image, owner, advice):
    with tempfile.TemporaryDirectory() as name:  # where others may look, unlike tmp_path
        Path(name).chmod(0o755)
        place = Path(name, "runs")
        place.mkdir(mode=0o755)
        os.chown(place, owner, 4322 if owner else 0)
        os.seteuid(1234)
        try:
            with pytest.raises(ConfigError) as caught:
                checks.check_writable(place / "classify")
        finally:
            os.seteuid(0)
    assert f"{place} cannot be written to: it belongs to user {owner}, and this is user 1234; " in str(caught.value)
    assert str(caught.value).endswith(advice)


def test_a_missing_gpu_says_what_to_add(monkeypatch, image):
    import torch

    checks.check_gpus("cpu")
    checks.check_gpus(None)
    with pytest.raises(ConfigError, match=r"device=0,99 is not there: PyTorch sees .*device=cpu\.$") as caught:
        checks.check_gpus("0,99")
    if not torch.cuda.is_available() and torch.version.cuda and not Path("/dev/nvidiactl").exists():
        assert "add --gpus all to docker run" in str(caught.value)


def test_small_shared_memory_says_what_to_add(image, tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no shared memory here")
    checks.check_shared_memory(workers=0, batch=10**9, image_size=224)
    checks.check_shared_memory(workers=1, batch=1, image_size=32)
    checks.check_shared_memory(workers=8, batch=10**9, image_size=224, folder=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"workers=8 with batch=1000000000 .* add --ipc=host to docker run"):
        checks.check_shared_memory(workers=8, batch=10**9, image_size=224)


def test_the_need_is_four_batches_a_worker(image, monkeypatch):
    class Found:
        f_bavail, f_frsize = 64, 1_000_000  # 64 MB, as docker run gives

    monkeypatch.setattr(checks.os, "statvfs", lambda _: Found, raising=False)
    checks.check_shared_memory(workers=2, batch=32, image_size=224)  # 38.5 MB
    with pytest.raises(ConfigError, match=r"64 MB free, and workers=4 with batch=32 and imgsz=224 may fill 77 MB"):
        checks.check_shared_memory(workers=4, batch=32, image_size=224)
    with pytest.raises(ConfigError, match="154 MB"):
        checks.check_shared_memory(workers=2, batch=32, image_size=224, value_bytes=4)
