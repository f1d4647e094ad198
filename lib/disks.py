"""Disks: whether a run may be paid for where its folder lies, and whether there is room.

On network and synced folders a lock of one machine may not hold on another, and SQLite's files may
be mixed up: two payers at once would pay twice. Refuses to send there, never to read. It knows
folders by the mount table and by the names that synchronising programs give them.
"""

import os
import re
import shutil
from pathlib import Path

import psutil

from lib.errors import VotebookError
from lib.runs import Run

# Kinds of file systems as mount tables name them. All of FUSE is refused but what is a local disk.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|afpfs|webdav|davfs\d?|ncpfs|9p|drvfs|afs|ceph|lustre|gpfs|beegfs|"
    r"glusterfs|pvfs2|ocfs2|vboxsf|vmhgfs|prl_fs|virtiofs|fakeowner|grpcfuse|osxfuse|macfuse|"
    r"fuse(?!blk|\.fuse-overlayfs|\.overlay)([.-].*)?",
    re.IGNORECASE,
)
_SYNCED = re.compile(
    r"onedrive|dropbox|google ?drive|icloud|mobile documents$|cloudstorage$|nextcloud|owncloud|"
    r"pcloud|seafile|box sync$|megasync",
    re.IGNORECASE,
)
SPARE_BYTES = 1_000_000


def problem(folder: Path) -> str | None:
    """Why nothing may be paid for from this folder; nothing when it is on a disk of this machine.

    >>> problem(Path("/home/ann/Dropbox/votebook"))
    'it lies in Dropbox, which is synchronised with other machines'
    """
    for name in folder.parts:
        if _SYNCED.match(name):
            return f"it lies in {name}, which is synchronised with other machines"
    if str(folder).startswith("\\\\"):
        return "it lies on another machine"
    kind = _kind(folder.resolve())
    if _NETWORK.fullmatch(kind):
        return f"it lies on a file system of the kind {kind}, which other machines can write to"
    return None


def check_folder(run: Run) -> None:
    """Refuse to pay from a folder that other machines may write to, unless the study allows it."""
    found = None if run.study.sending.allow_network_folder else problem(run.folder)
    if found:
        what = f"nothing is paid for from {run.folder}: {found}. Locks may not hold there, and what"
        what += " two machines send would be paid twice. Set VOTEBOOK_OUTPUTS to a folder on a disk"
        fix = "of this machine, or, if one machine alone works there, write `allow_network_folder:"
        raise VotebookError(f"{what} {fix} true` under `sending:` in study.yml and run 01 again.")


def check_room(run: Run, n_bytes: int) -> None:
    """Refuse to send a shard of so many bytes when the disk may not hold what comes of it.

    The shard, its compressed copy, its answers and its rows are taken as three times its size.
    """
    needed = 3 * n_bytes + SPARE_BYTES
    free = shutil.disk_usage(run.folder).free
    if free < needed:
        what = f"{free / 1e6:,.1f} MB are free in {run.folder}, and the next shard with its answers"
        fix = "Nothing more is sent: make room, then run the same command again."
        raise VotebookError(f"{what} may need {needed / 1e6:,.1f} MB. {fix}", n_bytes=needed)


def _kind(folder: Path) -> str:
    """The kind of the file system that a folder lies on, as the mount table names it."""
    found, deepest = "", -1
    for disk in psutil.disk_partitions(all=True):
        depth = len(Path(disk.mountpoint).parts)
        # Of several mounts at one place the last one is seen.
        if folder.is_relative_to(disk.mountpoint) and depth >= deepest:
            remote = os.name == "nt" and "remote" in disk.opts.split(",")
            found, deepest = "smb" if remote else disk.fstype, depth
    return found
