"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# An example may be interrupted for longer than Hypothesis allows it to take, which says nothing about it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--attack-seconds", type=float, default=0.0, help="how long tests/attack goes on; short by default"
    )
    for name in ("llama-vim", "minuet"):
        parser.addoption(
            f"--{name}", type=Path, help=f"a checkout of {name} for tests/http_clients; skipped by default"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what hostile texts leave in captured logs: workers send reports as UTF-8, which has no lone surrogates."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Benchmark data and vocabularies that stand beside the checkout and are not part of it."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the benchmark data folder ../shared, which is not beside this checkout")
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Tiny models run fastest on one thread, and tests then leave the other cores to each other."""
    import torch

    torch.set_num_threads(1)
