"""Where a run may be paid for, and whether there is room."""

from pathlib import Path

import psutil
import pytest
import sending

from lib import disks, dispatch
from lib.errors import VotebookError


@pytest.mark.parametrize(
    "folder",
    [
        "/Users/ann/Library/Mobile Documents/com~apple~CloudDocs/votebook",
        "/Users/ann/Library/CloudStorage/OneDrive-Uni/votebook",
        "/home/ann/OneDrive - University/votebook",
        "/home/ann/Dropbox (Lab)/votebook",
        "/home/ann/GoogleDrive/votebook",
        "/home/ann/Nextcloud/votebook",
    ],
)
def test_folders_that_are_synchronised_are_known_by_name(folder):
    """The names that the programs give their folders, wherever they lie."""
    assert "synchronised" in disks.problem(Path(folder))


@pytest.mark.parametrize("folder", ["/home/ann/my-dropbox-study", "/srv/inboxes", "/home/cloud/x"])
def test_other_names_are_no_sign(folder):
    """A word inside of a name says nothing."""
    assert disks.problem(Path(folder)) is None


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse", "fuse.sshfs", "fuse.rclone", "9p", "virtiofs"],
)
def test_kinds_of_network_file_systems(kind):
    """What the mount table calls file systems that other machines may write to."""
    assert disks._NETWORK.fullmatch(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "apfs", "NTFS", "overlay", "tmpfs", "fuseblk", ""]
)
def test_kinds_of_disks(kind):
    """What it calls disks of this machine; a kind that is not known is taken for one."""
    assert not disks._NETWORK.fullmatch(kind)


@pytest.mark.parametrize("name", ["fuse.fuse-overlayfs", "fuse.overlayfs"])
def test_layers_of_containers_are_disks(name):
    """Containers without root have their files in such a layer."""
    assert not disks._NETWORK.fullmatch(name)


def test_the_mount_that_is_seen_counts(tmp_path):
    """Every mount that there is has its own kind; a folder has that of the mount it lies under."""
    if disk := next((d for d in psutil.disk_partitions(all=True) if d.fstype == "proc"), None):
        assert disks._kind(Path(disk.mountpoint) / "self") == "proc"
    assert disks.problem(tmp_path) is None


def test_a_synchronised_folder_pays_only_when_the_study_allows_it(tmp_path, endpoint, monkeypatch):
    """A paid service refuses with what to do, a free one works, and reading is always possible."""
    monkeypatch.setenv("VOTEBOOK_OUTPUTS", str(tmp_path / "Dropbox"))
    run = sending.make_run(tmp_path / "guests")
    with pytest.raises(VotebookError, match=r"Dropbox.*synchronised.*allow_network_folder"):
        dispatch.advance(run, sending.service_at(endpoint, free=False), 1.0)
    assert dispatch.status(run).n_to_send == 6
    allowed = sending.make_run(tmp_path / "guests", allow_network_folder=True)
    disks.check_folder(allowed)
    assert sending.finish(run, sending.service_at(endpoint)).n_valid == 6
    sending.close_clients()


def test_too_little_room_is_an_error_before_anything_is_sent(make_run):
    """A shard of more than a third of what is free is refused with both numbers."""
    run = make_run()
    disks.check_room(run, 1000)
    with pytest.raises(VotebookError, match=r"MB are free in .* may need .* MB\. Nothing more is"):
        disks.check_room(run, 10**15)
