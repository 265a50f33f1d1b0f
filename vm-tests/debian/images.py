"""What machines boot from: made once, kept in the cache, named by all that it depends on.

    root     a Debian, for each suite (root.sh)
    docker   what the installation of Docker changes in a root (docker.sh)
    layer    what the installation of the package changes in a root, `docker-layer` in one with Docker
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
mount -t overlay -o "lowerdir=$1" overlay -o ro "$2/root"
"$3" "$2/root" "$2"
"""


@dataclass(frozen=True)
class Images:
    """What the machines of a run boot from."""

    # folders of an overlay, the topmost first
    layers: tuple[Path, ...]
    # a package that differs from the installed one in its version alone
    next_package: Path
    # for emulated machines only
    disk: Path | None = None

    def words(self) -> list[str]:
        """For a command line."""
        paths = [self.next_package, self.disk] if self.disk else [self.next_package]
        return [joined(self.layers), *map(str, paths)]

    @staticmethod
    def of(words: list[str]) -> Images:
        """From a command line."""
        layers, *paths = words
        return Images(tuple(map(Path, layers.split(":"))), *map(Path, paths))


def prepare(
    held: ExitStack, suite: str, package: Path, *, docker: bool, emulated: bool
) -> Images:
    """Finds or builds everything; the locks last as long as `held`."""
    key = digest((HERE / "root.sh").read_bytes())
    root = entry(held, f"root/{suite}", key, lambda to: build_root(suite, to))
    below: tuple[Path, ...] = (root,)
    if docker:
        key = digest(key.encode(), (HERE / "docker.sh").read_bytes())
        place = entry(held, f"docker/{suite}", key, lambda to: build_docker(root, to))
        below = (place / "upper", root)
    key = digest(key.encode(), INSTALL.encode(), package.read_bytes())
    kind = "docker-layer" if docker else "layer"
    layer = entry(held, f"{kind}/{suite}", key, lambda to: build_layer(below, package, to))
    layers = (layer / "upper", *below)
    disk = None
    if emulated:
        key = digest(key.encode(), (HERE / "image.sh").read_bytes())
        disk = entry(held, f"disk/{suite}", key, lambda to: build_disk(layers, to))
    return Images(layers, layer / "next.deb", disk)


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


def build_docker(root: Path, to: Path) -> None:
    """Debian's Docker, and what else has its hands on a host's packet filter."""
    for folder in ("upper", "work", "root"):
        (to / folder).mkdir(parents=True)
    privately('"$1" "$2" "$3"', HERE / "docker.sh", root, to)


def build_layer(below: tuple[Path, ...], package: Path, to: Path) -> None:
    """The package, installed as an administrator would."""
    for folder in ("upper", "work", "root"):
        (to / folder).mkdir(parents=True)
    privately(INSTALL, joined(below), to, package)
    with tempfile.TemporaryDirectory() as work:
        raise_version(package, Path(work, "tree"), to / "next.deb")


def build_disk(layers: tuple[Path, ...], to: Path) -> None:
    """The layers as the disk of an emulated machine."""
    (to / "root").mkdir(parents=True)
    privately(DISK, joined(layers), to, HERE / "image.sh")


def joined(layers: tuple[Path, ...]) -> str:
    """As an overlay's `lowerdir`."""
    return ":".join(map(str, layers))


def privately(script: str, *words: str | Path) -> None:
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
