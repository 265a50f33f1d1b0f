"""What machines boot from: made once, kept in the cache, named by all that it depends on.

    root     a Debian, for each suite (root.sh)
    layer    what the installation of the package changes in a root
    disk     kernel, initial RAM disk and disk for an emulator, from root and layer (image.sh)

An entry is built under a name of its own and renamed, so one that is there is whole. Whoever uses it
holds a shared lock; when a new one of its kind was built, older ones that nobody holds go.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from debian import host

HERE = Path(__file__).resolve().parent

# The package itself, and enabling what it leaves disabled, in the root as it would be when booted.
INSTALL = """
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
mount -t proc proc "$2/root/proc"
cp "$3" "$2/root/var/cache/package.deb"
chroot "$2/root" dpkg --install /var/cache/package.deb
rm "$2/root/var/cache/package.deb"
chroot "$2/root" systemctl enable flannel-rs.service
"""

DISK = """
mount -t overlay -o "lowerdir=$2:$1" overlay -o ro "$3/root"
"$4" "$3/root" "$3"
"""


@dataclass(frozen=True)
class Images:
    """What the machines of a run boot from."""

    root: Path
    layer: Path
    # a package that differs from the installed one in its version alone
    next_package: Path
    # for emulated machines only
    disk: Path | None = None


def prepare(held: ExitStack, suite: str, package: Path, *, emulated: bool) -> Images:
    """Finds or builds everything; the locks last as long as `held`."""
    root_key = digest((HERE / "root.sh").read_bytes())
    root = entry(held, f"root/{suite}", root_key, lambda to: build_root(suite, to))
    layer_key = digest(root_key.encode(), INSTALL.encode(), package.read_bytes())
    layer = entry(held, f"layer/{suite}", layer_key, lambda to: build_layer(root, package, to))
    disk = None
    if emulated:
        disk_key = digest(layer_key.encode(), (HERE / "image.sh").read_bytes())
        upper = layer / "upper"
        disk = entry(held, f"disk/{suite}", disk_key, lambda to: build_disk(root, upper, to))
    return Images(root, layer / "upper", layer / "next.deb", disk)


def entry(held: ExitStack, kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The entry of that name, built if it is not there."""
    place = host.cache() / f"{kind}-{key}"
    lock = place.with_name(f"{place.name}.lock")
    if not place.exists():
        with host.locked(lock, fcntl.LOCK_EX):
            # somebody else may have built it meanwhile
            if not place.exists():
                fresh = place.with_name(f"{place.name}.new")
                shutil.rmtree(fresh, ignore_errors=True)
                build(fresh)
                fresh.rename(place)
    held.enter_context(host.locked(lock, fcntl.LOCK_SH))
    if not place.exists():
        raise RuntimeError(f"another run has just removed {place}; please try again")
    remove_older(place)
    return place


def remove_older(place: Path) -> None:
    """Removes the other entries of a kind that nobody holds."""
    kind = place.name.partition("-")[0]
    for lock in place.parent.glob(f"{kind}-*.lock"):
        other = lock.with_suffix("")
        if other == place:
            continue
        with host.locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) as unused:
            if unused:
                shutil.rmtree(other, ignore_errors=True)
                shutil.rmtree(other.with_name(f"{other.name}.new"), ignore_errors=True)
                lock.unlink(missing_ok=True)


def build_root(suite: str, to: Path) -> None:
    """Debian itself."""
    host.command(HERE / "root.sh", suite, to)


def build_layer(root: Path, package: Path, to: Path) -> None:
    """The package, installed as an administrator would."""
    for folder in ("upper", "work", "root"):
        (to / folder).mkdir(parents=True)
    privately(INSTALL, root, to, package)
    with tempfile.TemporaryDirectory() as work:
        raise_version(package, Path(work, "tree"), to / "next.deb")


def build_disk(root: Path, layer: Path, to: Path) -> None:
    """Root and layer as the disk of an emulated machine."""
    (to / "root").mkdir(parents=True)
    privately(DISK, root, layer, to, HERE / "image.sh")


def privately(script: str, *words: Path) -> None:
    """Runs a script whose mounts nobody else sees and which go with it."""
    private = ("unshare", "--mount", "--propagation", "private")
    host.command(*private, "bash", "-euc", script, "bash", *words)


def raise_version(package: Path, tree: Path, to: Path) -> None:
    """The same package with a higher version."""
    host.command("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    higher = [
        f"{line.rstrip()}+next\n" if line.startswith("Version:") else line for line in lines
    ]
    control.write_text("".join(higher))
    host.command("dpkg-deb", "--build", "-Znone", "--root-owner-group", tree, to)


def digest(*parts: bytes) -> str:
    """A short name for these bytes."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
