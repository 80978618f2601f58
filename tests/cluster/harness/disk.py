"""A small filesystem, to be filled up."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.server import server_user


class SmallDisk:
    """A tmpfs of so many megabytes in a folder of its own; `unmount` removes both."""

    def __init__(self, megabytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="backfill-disk-", dir="/tmp"))
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "backfill", str(self.folder)]
        try:
            done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            done = subprocess.CompletedProcess([], 1, "", str(error))
        if done.returncode != 0:
            self.folder.rmdir()
            pytest.skip(f"a filesystem cannot be mounted here: {done.stderr.strip()}")
        if user := server_user():
            shutil.chown(self.folder, user)
        self._filler = self.folder / "filler"

    def free(self) -> int:
        """Bytes that are left."""
        return os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize

    def fill(self, *, leave: int) -> None:
        """Takes all the room but so many bytes."""
        with self._filler.open("wb") as file:
            file.write(b"\0" * max(self.free() - leave, 0))

    def make_room(self) -> None:
        """Gives back what was taken."""
        self._filler.unlink()

    def unmount(self) -> None:
        """Also where a process still has a file open there."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        self.folder.rmdir()
