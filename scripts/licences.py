"""Licences of the crates that are built into packages of this workspace: licences.py PACKAGE... Called by package.sh."""

import hashlib
import json
import pathlib
import subprocess
import sys

FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def metadata():
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def reached(data, roots):
    """Packages that `roots` are built with, themselves included; not what only builds or tests them."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    packages = {package["id"]: package for package in data["packages"]}
    waiting = [identity for identity in packages if packages[identity]["name"] in roots]
    seen = set()
    while waiting:
        identity = waiting.pop()
        if identity in seen:
            continue
        seen.add(identity)
        for dependency in nodes[identity]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return sorted((packages[identity] for identity in seen), key=lambda package: (package["name"], package["version"]))


def main():
    data = metadata()
    print("Squadron's programs are built with these crates. libtorch is not part of this archive; it comes with its own licences.")
    texts = {}
    for package in reached(data, sys.argv[1:]):
        if package["source"] is None:
            continue
        place = package["repository"] or package["homepage"] or ""
        print(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license'] or 'see below'}\n{place}".rstrip())
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if not file.is_file() or not file.name.upper().startswith(FILES):
                continue
            text = file.read_text(encoding="utf-8", errors="replace").strip()
            digest = hashlib.sha256(text.encode()).hexdigest()
            first = texts.setdefault(digest, f"{package['name']} {package['version']}, {file.name}")
            here = f"{package['name']} {package['version']}, {file.name}"
            print(f"\n--- {file.name}\n" + (text if first == here else f"The text is that of {first}."))


main()
