"""What kind of machine this is, and which commit; nothing that names the host."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What has no effect on the figures may be uncommitted.
MEASURED = ["src", "sql", "bench", "Cargo.toml", "Cargo.lock"]


@dataclass(frozen=True)
class Host:
    """The class of machine, for the line below the tables."""

    cores: int
    ram: int
    disk: str
    architecture: str
    commit: str

    def __str__(self) -> str:
        gigabytes = round(self.ram / 2**30)
        return f"{self.cores} cores ({self.architecture}), {gigabytes} GB of RAM, {self.disk}"


def look(folder: Path) -> Host:
    """The machine, its disk being that of the folder."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Host(len(os.sched_getaffinity(0)), ram, _disk(folder), platform.machine(), _commit())


def _disk(folder: Path) -> str:
    device = os.stat(folder).st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not node.exists():
        return "file system without a disk of its own"
    # A partition has no queue; its disk does.
    node = node.resolve()
    name, queue = (node.name, node) if (node / "queue").exists() else (node.parent.name, node.parent)
    # What a virtual disk says of its turning is the hypervisor's guess.
    if name.startswith(("vd", "xvd")):
        return "virtual disk"
    if name.startswith("nvme"):
        return "NVMe"
    turning = (queue / "queue" / "rotational").read_text().strip() == "1"
    return "hard disk" if turning else "SSD"


def _commit() -> str:
    """The short hash, with a plus sign if what is measured differs from it."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    try:
        found = git("rev-parse", "--short=10", "HEAD")
    except FileNotFoundError:
        return "unknown"
    if found.returncode != 0:
        return "unknown"
    changed = git("status", "--porcelain", "--", *MEASURED).stdout.strip()
    return found.stdout.strip() + ("+" if changed else "")
