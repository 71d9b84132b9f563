"""The results of the shipped recipes: builds each population, runs every scheme on it, and writes RESULTS.md.

    OMP_NUM_THREADS=1 python benchmarks/recipes.py --work FOLDER [--recipes A,B] [--time 60m] [--processes 2]

What FOLDER holds is kept, so a long recipe may be done in legs (`--time`, for each recipe) and a run that was stopped
goes on. A recipe that is done leaves results/bench-NAME.md, its figures as results/bench-NAME.csv, and its part of
RESULTS.md, with the date and machine of its run; the parts of other recipes stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

from locard.bench import Summary, processes, run_bench, standard, summarise, tables
from locard.bench.run import read_bench
from locard.cli.zoo import seconds
from locard.records import Access
from locard.zoo import build_zoo, read_recipe, shipped

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
HEAD = """# Results of the shipped recipes

Made by `python benchmarks/recipes.py --work FOLDER`: each population is built, every scheme takes every victim's
fingerprint, and every suspect is asked each query once. What the figures mean: [a bench](../docs/bench.md); who is in a
population: [populations](../docs/populations.md). Whole tables and every figure: `results/bench-NAME.md` and `.csv`.
"""
# An hour or more each: they are run when they are named.
LONG = ("fashion-mnist", "modelreuse", "sacbench")


def main() -> int:
    """Build, run, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--work", type=Path, required=True, help="folder of populations and benches")
    options.add_argument("--recipes", help=f"names, separated by commas; all but {', '.join(LONG)} by default")
    options.add_argument("--time", help="begin nothing more of a recipe after 90s, 20m or 2h")
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    names = given.recipes.split(",") if given.recipes else [name for name in shipped() if name not in LONG]
    unfinished = [name for name in names if not done(name, given.work, seconds(given.time), given.processes)]
    for name in unfinished:
        print(f"{name}: time is over; run again to go on", file=sys.stderr)
    return 0


def done(name: str, work: Path, limit: float | None, workers: int) -> bool:
    """Whether the recipe's results have been written; False where time was over."""
    spent = Spent(work / name / "seconds.json", limit)
    zoo = build_zoo(read_recipe(name), work / name / "population", processes=workers, seconds=spent.left(),
                    progress=lambda *row: spent.add("models", f"{name}: {row[0]} of {row[1]} models"))  # fmt: skip
    spent.work("models")
    if zoo is None:
        return False
    bench = work / name / "bench"
    found = run_bench(zoo, bench, standard(), runner=processes(workers), seconds=spent.left(),
                      progress=lambda *row: spent.add("pieces", f"{name}: {row[0]} of {row[1]} pieces"))  # fmt: skip
    spent.work("pieces")
    if not found.whole:
        return False
    records, about = read_bench(bench)
    summary, machine = summarise(records), about["machine"]
    minutes = {what: spent.total.get(what, 0.0) / 60 for what in ("models", "models work", "pieces", "pieces work")}
    made = (
        f"{about['about'][0].upper()}{about['about'][1:]}. {about['date']}, {machine['architecture']}, "
        f"{machine['cores']} cores, {workers} processes of one thread; {'; and in part '.join(about['libraries'])}. "
        f"{about['models']:,} models took {minutes['models']:.1f} minutes ({minutes['models work']:.1f} of "
        f"processors), {len(records):,} pairs {minutes['pieces']:.1f} ({minutes['pieces work']:.1f})."
    )
    stem = HERE / "results" / f"bench-{name}"
    stem.with_suffix(".md").write_text(f"# {name}\n\n{made}\n\n{tables.markdown(summary)}")
    stem.with_suffix(".csv").write_text(tables.to_csv(summary))
    thefts = f"{summary.n_thefts} thefts of {len(summary.victims)} victims, {sum(summary.innocents.values())} innocents"
    write(name, f"## {name}\n\n{made}\n\n{thefts} to be judged, {sum(summary.references.values())} references.\n\n"
                f"{leaderboard(summary)}\n")  # fmt: skip
    return True


class Spent:
    """The seconds of all legs and those of their processors, kept in a file, and what is left of this one.

    A machine with other work makes the first longer, hardly the second, of which two quiet cores do two in one.

    Args:
        path: of the file.
        limit: of this leg, in seconds, or None.
    """

    def __init__(self, path: Path, limit: float | None) -> None:
        self._path, self._limit = path, limit
        self._started = self._last = time.perf_counter()
        self._worked = _processors()
        self.total: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def left(self) -> float | None:
        """Seconds of this leg, or None."""
        return None if self._limit is None else max(0.0, self._limit - (time.perf_counter() - self._started))

    def add(self, what: str, line: str) -> None:
        """Count the time since the last call, and say how far it is."""
        now = time.perf_counter()
        self.total[what] = self.total.get(what, 0.0) + now - self._last
        self._last = now
        self._write()
        print(line, file=sys.stderr)

    def work(self, what: str) -> None:
        """Count what the processors have done since the last call."""
        now = _processors()
        self.total[f"{what} work"] = self.total.get(f"{what} work", 0.0) + now - self._worked
        self._worked = now
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.total))


def _processors() -> float:
    """Seconds of this process and of those of its own that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def leaderboard(summary: Summary) -> str:
    """Every entry, without the columns that were refused to all of them."""
    head, rows = tables.leaderboard(summary, Access.MODULE)
    kept = [column for column in range(len(head)) if any(row[column] != "-" for row in rows)]
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line[column] for column in kept) + " |" for line in lines)


def write(name: str, part: str) -> None:
    """The page with this recipe's part in its place."""
    text = PAGE.read_text() if PAGE.exists() else HEAD
    parts = {found[1]: found[0] for found in re.finditer(r"^## (\S+)\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)}
    parts[name] = part
    PAGE.write_text(HEAD + "".join(f"\n{parts[one].strip()}\n" for one in sorted(parts)))


if __name__ == "__main__":
    raise SystemExit(main())
