"""Finds the SQL templates in include/sql and renders them as Airflow does for a task."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2


def include_dir() -> Path:
    """The folder include/: inside the package where plugins are deployed alone (Amazon MWAA), else beside plugins/."""
    package = Path(__file__).parents[1]
    bundled = package / "include"
    return bundled if bundled.is_dir() else package.parents[1] / "include"


def render_sql(template: str) -> str:
    """The SQL of a template, with its includes."""
    return _environment(include_dir() / "sql").get_template(template).render()


@cache  # it keeps the compiled templates, and compiles one again when its file has changed
def _environment(folder: Path) -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=jinja2.select_autoescape())
