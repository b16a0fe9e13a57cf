"""Write all that the pages say of measurements from result files; with ``--run`` measure them first.

These are the tables of docs/benchmarks.md, regions of README.md and of the default model's card, and three pictures.

python scripts/write_benchmarks.py                     render docs/benchmarks/results/*.json
python scripts/write_benchmarks.py --run               run everything, then render (``make bench``)
python scripts/write_benchmarks.py --run --only pool   run one benchmark, then render
python scripts/write_benchmarks.py --quick             run everything with tiny settings and print the tables only
(``make bench-quick``)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.front_page import read_results, updated_pages
from bench.front_plots import draw_all
from bench.results import REPOSITORY
from bench.suite import SUITE, Benchmark, run, section, updated

PAGE = REPOSITORY / "docs" / "benchmarks.md"
RESULTS = REPOSITORY / "docs" / "benchmarks" / "results"
IMAGES = REPOSITORY / "docs" / "images"


def run_all(benchmarks: list[Benchmark], results: Path, *, is_quick: bool) -> list[Benchmark]:
    """Run the benchmarks, also after one has failed; return those that have a result.

    Timed rows run alone, one after the other; then rows of counts, one per core.
    """

    def has_result(benchmark: Benchmark, threads: int | None = None) -> bool:
        started_s = time.monotonic()
        print(f"{benchmark.name}: {' '.join(benchmark.command(is_quick=is_quick))}", flush=True)
        try:
            run(benchmark, results, is_quick=is_quick, threads=threads)
        except subprocess.CalledProcessError as error:
            print(f"{benchmark.name}: {error}", flush=True)
            return False
        finally:
            print(f"{benchmark.name}: {time.monotonic() - started_s:.0f} s", flush=True)
        return True

    finished = {each.name for each in benchmarks if each.is_timed and has_result(each)}
    counts = [each for each in benchmarks if not each.is_timed]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(lambda each: has_result(each, threads=1), counts)
        finished |= {each.name for each, is_there in zip(counts, found, strict=True) if is_there}
    return [each for each in benchmarks if each.name in finished]


def write_front_page(folder: Path) -> None:
    """Write README's figures and pictures, and the card's table."""
    results = read_results(folder)
    for path, text in updated_pages(results).items():
        path.write_text(text, "utf-8")
    try:
        draw_all(results, IMAGES)
    except ImportError:
        print("no pictures: matplotlib is not installed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="measure before rendering")
    parser.add_argument("--quick", action="store_true", help="run with tiny settings; print tables, write no page")
    parser.add_argument("--only", nargs="+", choices=[benchmark.name for benchmark in SUITE], help="only these tables")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to update")
    arguments = parser.parse_args()
    benchmarks = [benchmark for benchmark in SUITE if benchmark.name in (arguments.only or [benchmark.name])]
    skipped: dict[str, str] = {}
    if arguments.run and not arguments.only:
        skipped = {each.name: each.needs.what for each in benchmarks if each.needs and not each.needs.is_there()}
        benchmarks = [benchmark for benchmark in benchmarks if benchmark.name not in skipped]
    finished, started_s = benchmarks, time.monotonic()
    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            finished = run_all(benchmarks, Path(folder), is_quick=True)
            for benchmark in finished:
                result = json.loads(Path(folder, f"{benchmark.name}.json").read_text("utf-8"))
                print(f"\n## {benchmark.name}\n", *section(benchmark, result, is_quick=True), sep="\n")
    else:
        if arguments.run:
            finished = run_all(benchmarks, arguments.results, is_quick=False)
        page = arguments.page.read_text("utf-8")
        arguments.page.write_text(updated(page, finished, arguments.results), "utf-8")
        if arguments.page == PAGE:
            write_front_page(arguments.results)
    failed = [benchmark.name for benchmark in benchmarks if benchmark not in finished]
    for name, what in skipped.items():
        print(f"{name}: skipped, its table stays as it is; it needs {what}")
    print(f"\n{len(finished)} tables in {time.monotonic() - started_s:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
