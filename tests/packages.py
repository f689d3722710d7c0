"""The distribution's packages without installing them: looked up with lists of our own, unpacked into a folder of ours.

The tests need PostgreSQL's source and a few drivers. None of them should change the machine of whoever runs the tests,
and none needs root.
"""

import pathlib
import re
import shutil
import subprocess


def private_apt(folder):
    """apt-get options that see the system's archives and their sources, without touching the system's lists.

    None when there is no apt here, or it knows no Debian or Ubuntu archive.
    """
    if not shutil.which("apt-get"):
        return None
    lines, stanzas = [], []
    listed = pathlib.Path("/etc/apt/sources.list.d")
    for path in [pathlib.Path("/etc/apt/sources.list"), *sorted(listed.glob("*.list"))]:
        for line in path.read_text().splitlines() if path.is_file() else []:
            if re.match(r"\s*deb(-src)?\s", line) and re.search(r"debian|ubuntu|postgresql", line):
                lines += [re.sub(r"^\s*deb(-src)?\s", kind + " ", line) for kind in ("deb", "deb-src")]
    for path in sorted(listed.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            if re.search(r"^URIs:.*(debian|ubuntu|postgresql)", stanza, re.M):
                stanzas.append(re.sub(r"^Types:.*$", "Types: deb deb-src", stanza, flags=re.M).strip())
    if not lines and not stanzas:
        return None
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / "ours.list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    (folder / "parts" / "ours.sources").write_text("\n\n".join(stanzas) + "\n")
    return [
        "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={folder}/parts",
        "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}", "-o", "APT::Sandbox::User=",
    ]


def update(options):
    subprocess.run(["apt-get", *options, "-qq", "update"], check=False, stdin=subprocess.DEVNULL)


def unpack(options, packages, target):
    """Downloads and unpacks packages (`name` or `name=version`) into a folder; returns the error text, or None."""
    target.mkdir(parents=True, exist_ok=True)
    got = subprocess.run(["apt-get", *options, "-qq", "download", *packages], cwd=target, capture_output=True, text=True)
    if got.returncode != 0:
        return got.stderr.strip() or "apt-get download failed"
    for package in target.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, target], check=True)
        package.unlink()
    return None
