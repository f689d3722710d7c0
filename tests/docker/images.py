"""Docker Compose where the machine has none, and the images of this suite, made from the binary that was built already."""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))
import packages  # noqa: E402
from waiting import Failure, Skipped  # noqa: E402

# So that a user's own images, tagged `local`, are left alone.
TAG = "test"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def find_compose(work):
    """The command of Docker Compose v2: the plugin, else that of Debian 13, unpacked into a folder of ours."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    program = work / "compose/usr/libexec/docker/cli-plugins/docker-compose"
    if not program.exists():
        if not shutil.which("apt-get") or not os.path.exists(KEYRING):
            raise Skipped("no Docker Compose v2")
        folder = work / "apt"
        (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        (folder / "parts").mkdir(exist_ok=True)
        (folder / "parts/trixie.list").write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n")
        options = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={folder}/parts",
                   "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}", "-o", "APT::Sandbox::User="]
        packages.update(options)
        if trouble := packages.unpack(options, ["docker-compose"], work / "compose"):
            raise Skipped(f"no Docker Compose v2, and Debian's cannot be fetched: {trouble.splitlines()[-1]}")
        shutil.rmtree(folder)
    return [str(program)]


def build(binary):
    """pgbaton:test, pgbaton-node:test and pgbaton-example:test."""
    got = subprocess.run([ROOT / "docker/base-image"], capture_output=True, text=True)
    if got.returncode != 0:
        raise Skipped(f"no base image: {got.stderr.strip()}")
    # In the build's context, and without what only a debugger reads: every build copies it to the engine.
    small = ROOT / "target/docker/pgbaton"
    small.parent.mkdir(parents=True, exist_ok=True)
    stripped = subprocess.run(["strip", "--strip-debug", "-o", small, binary], capture_output=True, text=True)
    if stripped.returncode != 0:
        raise Failure(f"strip: {stripped.stderr.strip()}")
    for name in ("pgbaton", "pgbaton-node"):
        file = ROOT / f"docker/{name.removeprefix('pgbaton-')}.Dockerfile"
        _image(name, "-f", file, "--target", "prebuilt", "--build-arg", "BINARY=target/docker/pgbaton", ROOT)
    _image("pgbaton-example", ROOT / "docker/example")


def _image(name, *arguments):
    image = f"{name}:{TAG}"
    before = _id(image)
    # The builder that needs no plugin and no registry; what it says of itself is not news.
    got = subprocess.run(["docker", "build", "-q", "-t", image, *arguments], capture_output=True, text=True)
    if got.returncode != 0:
        raise Failure(f"{image} cannot be built:\n{got.stdout}{got.stderr}")
    if before and before != _id(image):
        # Nobody has a name for it any more. In use by another run it stays.
        subprocess.run(["docker", "image", "rm", before], capture_output=True)


def _id(image):
    got = subprocess.run(["docker", "image", "inspect", "-f", "{{.Id}}", image], capture_output=True, text=True)
    return got.stdout.strip()
