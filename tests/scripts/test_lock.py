"""Every package that is installed is pinned, and its files are known by their hashes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import write_sbom
from write_sbom import read_lock

KINDS = ("build", "run", "dev")


def pins(path: Path) -> dict[tuple[str, str], str]:
    return {(pin["name"], pin["version"]): pin["marker"] for pin in read_lock(path)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pin_of_a_lock_has_hashes(repository: Path, kind: str) -> None:
    locked = read_lock(repository / f"requirements/{kind}.txt")
    assert locked
    assert [pin["name"] for pin in locked if not pin["hashes"]] == []
    lines = (repository / f"requirements/{kind}.txt").read_text().splitlines()
    assert len(locked) == sum(bool(re.match("[A-Za-z0-9]", line)) for line in lines), "each line was understood"


def test_the_locks_have_the_versions_of_the_constraints_and_only_torch_is_without_hashes(repository: Path) -> None:
    wanted = set(pins(repository / "constraints.txt"))
    locked = {pin for kind in KINDS for pin in pins(repository / f"requirements/{kind}.txt")}
    assert {name for name, _ in wanted - locked} == {"torch"}
    assert not locked - wanted


def test_every_dependency_is_in_the_lock_that_users_install(repository: Path) -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w.-]", requirement)[0].replace("_", "-") for requirement in project["dependencies"]}
    assert wanted - {name for name, _ in pins(repository / "requirements/run.txt")} == {"torch"}


def test_pip_checks_the_hashes_of_everything_that_setup_installs(repository: Path) -> None:
    setup = (repository / "scripts/setup.sh").read_text()
    installs = [line for line in setup.splitlines() if '"${pip[@]}" install' in line]
    assert len(installs) == 4
    unchecked = [line for line in installs if "--require-hashes" not in line]
    assert all('"$torch"' in line or "--no-deps --no-build-isolation --editable" in line for line in unchecked)


def test_a_file_with_another_hash_is_not_installed(repository: Path, tmp_path: Path) -> None:
    text = (repository / "requirements/build.txt").read_text()
    name, version = next(iter(pins(repository / "requirements/build.txt")))
    links = tmp_path / "links"
    links.mkdir()
    wheel = links / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    wheel.write_bytes(b"not what was pinned")
    lock = tmp_path / "lock.txt"
    first = re.search(r"^[a-z].*?(?=^[a-z])", text, re.M | re.S)
    assert first is not None
    lock.write_text(first[0])
    pip = [sys.executable, "-m", "pip", "download", "--no-index", "--find-links", str(links), "--no-deps"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", str(lock)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode != 0
    assert "HASHES" in done.stderr or "No matching distribution" in done.stderr


def test_the_bill_of_materials_names_every_package_with_its_hashes(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "bom.json"
    subprocess.run([sys.executable, str(repository / "scripts/write_sbom.py"), str(out)], check=True)
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {(component["name"], component["version"]): component for component in bill["components"]}
    assert set(pins(repository / "requirements/run.txt")) <= set(named)
    assert ("torch", "2.13.0") in named
    npm = [component for component in named.values() if component["purl"].startswith("pkg:npm/")]
    assert any(component["name"] == "vscode-languageclient" for component in npm)
    without = [name for (name, _), component in named.items() if not {"hashes", "components"} & set(component)]
    assert without == ["torch"]
    assert bill == write_sbom.bill(), "equal locks give equal documents"
