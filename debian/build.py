"""Makes the Debian package: `python -m debian.build dist`.

One file for Debian 12 and 13: all that mailstack needs lies unpacked in a folder that is a virtual
environment for whichever of the two Pythons is there. Two builds of one commit are the same octets.
"""

from __future__ import annotations

import argparse
import filecmp
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from typer._completion_shared import get_completion_script

from debian import man
from mailstack import __version__
from mailstack.cli import units

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.13")
HOME = "usr/lib/mailstack"

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/mailstack",
    "zsh": "usr/share/zsh/vendor-completions/_mailstack",
    "fish": "usr/share/fish/vendor_completions.d/mailstack.fish",
}

COMMAND = f"""\
#!/{HOME}/bin/python3 -I
import sys

from mailstack.__main__ import main

sys.exit(main())
"""

ENVIRONMENT = """\
home = /usr/bin
include-system-site-packages = false
"""

# What pip notes of how it installed something is of no use here, and differs between two builds.
NOTES = ("RECORD", "REQUESTED", "INSTALLER", "direct_url.json", "uv_cache.json")


def main() -> None:
    """Build the package into a folder and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", default=__version__, help="another version, to try an upgrade with")
    parser.add_argument("--compression", default="xz", help="none is the fastest")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="mailstack-deb-") as work:
        root = Path(work) / "root"
        lay_out(root, Path(work))
        print(packed(root, given.folder, given.version, given.compression))


def lay_out(root: Path, work: Path) -> None:
    """Put every file of the package where it will be."""
    wheel = built_wheel(work)
    trees = [installed(wheel, work / version, version) for version in PYTHONS]
    environment(root / HOME, trees)
    write(root / "usr/bin/mailstack", COMMAND, 0o755)
    units.write(units.Places.of_package(root))
    shutil.copy(units.source() / "network.conf", root / HOME / "network.conf")
    for shell, place in COMPLETIONS.items():
        script = get_completion_script(prog_name="mailstack", complete_var="_MAILSTACK_COMPLETE", shell=shell)
        write(root / place, f"{script}\n")
    for name, text in man.pages(time.strftime("%Y-%m-%d", time.gmtime(epoch()))).items():
        folder = root / f"usr/share/man/man{name[-1]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    documents(root / "usr/share/doc/mailstack")


def built_wheel(work: Path) -> Path:
    """The wheel of mailstack itself."""
    pip("wheel", "--no-deps", "--wheel-dir", work, ROOT)
    return next(work.glob("mailstack-*.whl"))


def installed(wheel: Path, target: Path, version: str) -> Path:
    """mailstack and all that it needs, for one Python."""
    chosen = ("--only-binary=:all:", "--implementation=cp", f"--python-version={version}")
    # Conflicts would be looked for in the environment that builds, which gets nothing of this.
    pip("install", "--no-compile", "--no-warn-conflicts", *chosen, "--target", target, f"{wheel}[postgresql]")
    shutil.rmtree(target / "bin", ignore_errors=True)
    for note in [each for name in NOTES for each in target.glob(f"*.dist-info/{name}")]:
        note.unlink()
    return target


def pip(*arguments: str | Path) -> None:
    """Run this environment's pip on the pinned versions."""
    pins = str(ROOT / "requirements/constraints.txt")
    environ = {**os.environ, "PIP_CONSTRAINT": pins, "PIP_BUILD_CONSTRAINT": pins, "PYTHONHASHSEED": "0"}
    environ |= {"SOURCE_DATE_EPOCH": str(epoch()), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True, env=environ)


def environment(home: Path, trees: list[Path]) -> None:
    """A virtual environment of several Pythons; what is the same for all of them is there once."""
    write(home / "pyvenv.cfg", ENVIRONMENT)
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    shared = home / "lib/shared"
    shared.mkdir(parents=True)
    places = {tree: home / f"lib/python{tree.name}/site-packages" for tree in trees}
    for place in places.values():
        write(place / "shared.pth", "../../shared\n")
    for name in sorted({each.name for tree in trees for each in tree.iterdir()}):
        found = [tree / name for tree in trees if (tree / name).exists()]
        if len(found) == len(trees) and all(same(found[0], other) for other in found[1:]):
            found[0].rename(shared / name)
            if name.endswith(".libs"):  # what the compiled half of a package looks for beside itself
                for place in places.values():
                    (place / name).symlink_to(f"../../shared/{name}")
        else:
            for each in found:
                each.rename(places[each.parent] / name)


def same(one: Path, other: Path) -> bool:
    """Whether two files, or two folders with all that is in them, are the same."""
    if one.is_file() or other.is_file():
        return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
    names = {each.name for each in one.iterdir()}
    return names == {each.name for each in other.iterdir()} and all(
        same(one / name, other / name) for name in names
    )


def documents(folder: Path) -> None:
    """The pages for administrators, the changes, and under which terms all of it may be used."""
    folder.mkdir(parents=True)
    for page in sorted((ROOT / "docs").glob("*.md")):
        shutil.copy(page, folder / page.name)
    write(folder / "copyright", (ROOT / "LICENSE").read_text())
    changes = (ROOT / "CHANGELOG.md").read_bytes()
    (folder / "changelog.gz").write_bytes(gzip.compress(changes, mtime=0))


def packed(root: Path, folder: Path, version: str, compression: str) -> Path:
    """The package of everything below `root`."""
    octets = sum(each.lstat().st_size for each in files(root))
    control = (ROOT / "debian/control").read_text().format(version=version, kibibytes=octets // 1024)
    for name in ("postinst", "prerm", "postrm"):
        write(root / "DEBIAN" / name, (ROOT / "debian" / name).read_text(), 0o755)
    write(root / "DEBIAN/control", control)
    for each in [*files(root), *(path for path in root.rglob("*") if path.is_dir()), root]:
        os.utime(each, (epoch(), epoch()), follow_symlinks=False)
    target = folder / f"mailstack_{version}_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", root, target],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())},
    )
    return target


def files(root: Path) -> Iterator[Path]:
    """All files and links below a folder."""
    return (each for each in sorted(root.rglob("*")) if each.is_symlink() or each.is_file())


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def epoch() -> int:
    """The moment that all files carry: SOURCE_DATE_EPOCH, or that of the newest commit."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
