"""Generates documents from declarations: tables of jobs and messages, a page for each collection, the indexes.

`python -m dev.generate_docs` writes them; with `--check` it changes nothing, and fails if they are outdated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bi_ops.catalog.jobs import JOBS, FieldType, Job, LoadMode
from bi_ops.catalog.periods import Cadence
from bi_ops.catalog.sql_templates import include_dir
from bi_ops.reports.indexes import recommended_indexes
from dev import generate_runbook

ROOT = Path(__file__).parents[1]
_WHEN = {
    Cadence.MONTHLY: "the 1st of the month, {hour:02}:00",
    Cadence.QUARTERLY: "the 1st of the quarter, {hour:02}:00",
    Cadence.WEEKLY: "Saturday, {hour:02}:00",
}
_BSON = {
    FieldType.INTEGER: "int",
    FieldType.NUMBER: "double",
    FieldType.TEXT: "string",
    FieldType.TEXT_ARRAY: "array of string",
    FieldType.BOOLEAN: "bool",
    FieldType.TIMESTAMP: "date",
}
_SLICE = {
    LoadMode.REPLACE_PERIOD: "a region and period",
    LoadMode.REPLACE_REGION: "a region",
}


def main() -> int:
    """Write or check every generated text, and return the exit status."""
    check = "--check" in sys.argv[1:]
    messages = generate_runbook.collect_messages()
    texts = {ROOT / "docs" / "collections" / f"{job.name}.md": collection_page(job) for job in JOBS}
    texts[ROOT / "include" / "mongo" / "indexes.json"] = recommended_indexes()
    texts[ROOT / "include" / "docs" / "failures.md"] = generate_runbook.failure_table(messages)
    for file, name, table in (
        (ROOT / "README.md", "jobs", job_table()),
        (ROOT / "docs" / "runbook.md", "messages", generate_runbook.runbook_table(messages)),
    ):
        texts[file] = replace_section(file.read_text(), name, table)
    outdated = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in outdated:
        if check:
            print(f"{path.relative_to(ROOT)} is outdated. Run: make docs")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path])
    return 1 if check and outdated else 0


def replace_section(text: str, name: str, table: str) -> str:
    """The text with the section between the marks of this name replaced."""
    before, mark, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise ValueError(f"no marks for the section {name}")
    return before + mark + table + end + after


def job_table() -> str:
    """The README's table of jobs."""
    lines = [
        "| job (collection) | one document is | DAG, when | slice | replaces MEG's task |",
        "| --- | --- | --- | --- | --- |",
    ]
    for job in JOBS:
        name = f"[`{job.name}`](docs/collections/{job.name}.md)"
        lines.append(f"| {name} | {job.summary} | {_when(job)} | {_SLICE[job.mode]} | `{job.celery_task}` |")
    return "\n".join(lines) + "\n"


def collection_page(job: Job) -> str:
    """The page of one collection."""
    header = parse_sql_header(job)
    definition = f"[`include/sql/{job.name}.sql`](../../include/sql/{job.name}.sql)"
    head = [("_id", "string", f"`region:{'period:' if job.mode is LoadMode.REPLACE_PERIOD else ''}{_plain(job.key)}`.")]
    head.append(("region", "string", "The region, as in `MEG_REGIONS`."))
    if job.is_snapshot:
        head.append(("as_of", "date", "The instant that the document describes."))
    elif job.mode is LoadMode.REPLACE_PERIOD:
        head.append(("period", "string", "The month, such as 2026-10."))
        head.append(("period_start", "date", "Its first midnight, in `BI_TIMEZONE`."))
    tail = [
        ("schema_version", "int", "1; raised when the meaning of a field changes."),
        ("loaded_at", "date", "When the document last changed."),
        ("run_id", "string", "The DAG run that last changed it."),
    ]
    rows = [*head, *((field.name, _BSON[field.type], field.description) for field in job.fields), *tail]
    table = "\n".join(f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in rows)
    return f"""# {job.name}

<!-- Written by `make docs` from plugins/bi_ops/catalog/jobs.py and include/sql/{job.name}.sql. -->

{job.summary}

| | |
| --- | --- |
| loaded by | {_when(job)} (`BI_TIMEZONE`) |
| task in MEG | `{job.celery_task}` |
| slice | {_SLICE[job.mode]} |
| grain | {header["grain"]} |
| window | {header["window"]} |
| units | {header["units"]} |
{_instant_and_reading(job, header)}| definition | {definition}, over {_sources(job)} |

Times are in UTC. Unknown values are `null`; no field is ever missing. Excluded everywhere: demo institutions, deleted
records, drafts, MEG staff, users without an auditor, and everything that belongs to, was done by or was done to one of
these.

| field | type | meaning |
| --- | --- | --- |
{table}
"""


def _instant_and_reading(job: Job, header: dict[str, str]) -> str:
    """Which figures describe the as-of instant, and which the moment at which MEG was read."""
    if job.mode is LoadMode.REPLACE_PERIOD:
        return ""
    return f"| as of the instant | {header['instant']} |\n| as of the reading | {header['reading']} |\n"


def _when(job: Job) -> str:
    return f"`{job.cadence.dag_id}`, {_WHEN[job.cadence].format(hour=job.earliest_hour)}"


def parse_sql_header(job: Job) -> dict[str, str]:
    """The comment at the top of a job's template, by its keywords."""
    entries: dict[str, str] = {}
    name = ""
    for line in (include_dir() / "sql" / f"{job.name}.sql").read_text().splitlines():
        if not line.startswith("--"):
            break
        text = line.removeprefix("--")
        if match := re.match(r" (grain|window|units|instant|reading) +(.*)", text):
            name = match[1]
            entries[name] = match[2]
        elif name:
            entries[name] += f" {text.strip()}"
    return {name: text.replace("_<n>d", "`_<n>d`") for name, text in entries.items()}


def _sources(job: Job) -> str:
    found: list[str] = []
    waiting = [f"{job.name}.sql"]
    while waiting:
        for name in re.findall(r'include "(source/\w+\.sql)"', (include_dir() / "sql" / waiting.pop()).read_text()):
            if name not in found:
                found.append(name)
                waiting.append(name)
    return ", ".join(f"[`{Path(name).stem}`](../../include/sql/{name})" for name in sorted(found))


def _plain(key: str) -> str:
    return re.sub(r"\{(\w+)[^}]*\}", r"\1", key)


if __name__ == "__main__":
    sys.exit(main())
