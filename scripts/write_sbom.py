"""Write the software bill of materials of a release, in CycloneDX JSON, from the locks alone.

Components are the Python packages of requirements/run.txt with the hashes of their files, torch, and the npm packages
that the extension bundles. Each has its package URL, and the condition under which it is installed, if there is one.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def read_lock(path: Path) -> list[dict[str, Any]]:
    """The pins of a lock: name, version, marker and hashes, in its order."""
    pins: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\s+--hash=sha256:([0-9a-f]{64})", line):
            pins[-1]["hashes"].append(match[1])
        elif match := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]*?))?\s*\\?$", line):
            pins.append({"name": match[1], "version": match[2], "marker": match[3] or "", "hashes": []})
    return pins


def components() -> list[dict[str, Any]]:
    """Everything that a user's machine gets."""
    found = []
    torch = [pin for pin in read_lock(REPOSITORY / "constraints.txt") if pin["name"] == "torch"]
    for pin in [*read_lock(REPOSITORY / "requirements/run.txt"), *torch]:
        component = _component("pypi", pin["name"], pin["version"], "SHA-256", pin["hashes"])
        if pin["marker"]:
            component["properties"] = [{"name": "forelook:marker", "value": pin["marker"]}]
        found.append(component)
    packages = json.loads((REPOSITORY / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name in sorted(_bundled(packages)):
        package = packages[f"node_modules/{name}"]
        algorithm, _, digest = package.get("integrity", "").partition("-")
        hashes = [base64.b64decode(digest).hex()] if algorithm == "sha512" else []
        found.append(_component("npm", name, package["version"], "SHA-512", hashes))
    return sorted(found, key=lambda component: component["purl"])


def _bundled(packages: dict[str, Any]) -> set[str]:
    """The npm packages that the extension's sources import, and theirs."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "extension/src").glob("*.ts"))
    imported = {match.partition("/")[0] for match in re.findall(r'from "([a-z][^":]*)"', sources)}
    left = [name for name in imported if f"node_modules/{name}" in packages]
    bundled: set[str] = set()
    while left:
        name = left.pop()
        if name not in bundled:
            bundled.add(name)
            left += packages[f"node_modules/{name}"].get("dependencies", {})
    return bundled


def _component(kind: str, name: str, version: str, algorithm: str, hashes: list[str]) -> dict[str, Any]:
    purl = f"pkg:{kind}/{name.replace('@', '%40')}@{version}"
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    # A package has one file per platform; CycloneDX's hashes are of one component, so those of files go next to it.
    if len(hashes) == 1:
        component["hashes"] = [{"alg": algorithm, "content": hashes[0]}]
    elif hashes:
        component["components"] = [
            {"type": "file", "name": f"{name} {version}", "hashes": [{"alg": algorithm, "content": value}]}
            for value in hashes
        ]
    return component


def bill() -> dict[str, Any]:
    """The document; equal locks give equal documents."""
    text = (REPOSITORY / "backend/forelook/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "([^"]+)"', text)
    assert version is not None
    purl = f"pkg:pypi/forelook@{version[1]}"
    found = components()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl,
                "name": "forelook",
                "version": version[1],
                "purl": purl,
                "licenses": [{"expression": "MIT AND Apache-2.0"}],
            }
        },
        "components": found,
        "dependencies": [{"ref": purl, "dependsOn": [component["bom-ref"] for component in found]}],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.write_text(json.dumps(bill(), indent=1) + "\n", encoding="utf-8")
    print(f"{out}: {len(bill()['components'])} components")
