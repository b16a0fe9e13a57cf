"""Write the tables of docs/benchmarks.md from result files; with ``--run`` measure them first.

python scripts/write_benchmarks.py                     render docs/benchmarks/results/*.json
python scripts/write_benchmarks.py --run               run everything, then render (``make bench``)
python scripts/write_benchmarks.py --run --only pool   run one benchmark, then render
python scripts/write_benchmarks.py --quick             run everything with tiny settings and print the tables only
(``make bench-quick``)
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from bench.results import REPOSITORY
from bench.suite import SUITE, Benchmark, run, section, updated

PAGE = REPOSITORY / "docs" / "benchmarks.md"
RESULTS = REPOSITORY / "docs" / "benchmarks" / "results"


def run_all(benchmarks: list[Benchmark], results: Path, *, is_quick: bool) -> None:
    for benchmark in benchmarks:
        started_s = time.monotonic()
        print(f"{benchmark.name}: {' '.join(benchmark.command(is_quick=is_quick))}", flush=True)
        run(benchmark, results, is_quick=is_quick)
        print(f"{benchmark.name}: {time.monotonic() - started_s:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="measure before rendering")
    parser.add_argument("--quick", action="store_true", help="run with tiny settings; print tables, write no page")
    parser.add_argument("--only", nargs="+", choices=[benchmark.name for benchmark in SUITE], help="only these tables")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to update")
    arguments = parser.parse_args()
    benchmarks = [benchmark for benchmark in SUITE if arguments.only is None or benchmark.name in arguments.only]
    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            run_all(benchmarks, Path(folder), is_quick=True)
            for benchmark in benchmarks:
                result = json.loads(Path(folder, f"{benchmark.name}.json").read_text("utf-8"))
                print(f"\n## {benchmark.name}\n", *section(benchmark, result, is_quick=True), sep="\n")
        return
    if arguments.run:
        run_all(benchmarks, arguments.results, is_quick=False)
    page = arguments.page.read_text("utf-8")
    arguments.page.write_text(updated(page, benchmarks, arguments.results), "utf-8")


if __name__ == "__main__":
    main()
