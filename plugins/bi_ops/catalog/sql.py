"""Where the SQL templates are, and how they are rendered without Airflow: as Airflow renders them for a task."""

from __future__ import annotations

from pathlib import Path

import jinja2


def include_dir() -> Path:
    """The folder of the SQL: inside the package where plugins travel alone (Amazon MWAA), else beside plugins/."""
    package = Path(__file__).parents[1]
    packed = package / "include"
    return packed if packed.is_dir() else package.parents[1] / "include"


def render_sql(template: str) -> str:
    """The SQL of a template, with what it includes."""
    loader = jinja2.FileSystemLoader(include_dir() / "sql")
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, autoescape=jinja2.select_autoescape()
    )
    return environment.get_template(template).render()
