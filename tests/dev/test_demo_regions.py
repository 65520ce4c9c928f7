"""Tests that the demo's data tells a story: the reports page has something to show in every month."""

from __future__ import annotations

from datetime import date
from typing import Any

import pendulum
import pytest

from dev import demo_meg, demo_regions
from dev.embedded_stack import DatabaseServers

USAGE = """
    SELECT
        institution.id,
        count(*) FILTER (WHERE quarter = %(quarter)s) AS last_quarter,
        count(*) FILTER (WHERE quarter = %(quarter)s - interval '3 months') AS previous,
        count(*) FILTER (WHERE month = '2026-08-01') AS august,
        count(*) FILTER (WHERE month = '2026-07-01') AS july,
        %(today)s - max(session.submitted_at) FILTER (WHERE session.submitted_at < %(today)s)::date AS days_since_last
    FROM megforms_institution AS institution
    JOIN megforms_auditform AS form ON form.institution_id = institution.id
    JOIN megforms_auditsession AS session ON session.form_id = form.id
    JOIN megforms_observation AS observation ON observation.session_id = session.id
    CROSS JOIN date_trunc('month', session.submitted_at AT TIME ZONE 'UTC') AS month
    CROSS JOIN date_trunc('quarter', month) AS quarter
    WHERE institution.is_active AND NOT institution.is_demo
    GROUP BY institution.id
"""
CLIENTS = """
    SELECT institution.name, count(*) AS users
    FROM megforms_institution AS institution
    JOIN megforms_auditor AS auditor ON auditor.institution_id = institution.id
    GROUP BY institution.id
"""


@pytest.mark.parametrize("today", [date(2026, 10, 20), date(2026, 11, 20), date(2026, 12, 20)], ids=str)
def test_demo_clients_grow_decline_leave(servers: DatabaseServers, today: date) -> None:
    """Whenever the demo is started, a client of each kind is there: the last quarter ended up to three months ago."""
    until = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    quarter = pendulum.instance(today).first_of("quarter").subtract(months=3)
    rows = _query(servers, demo_regions.demo_config("uk", until), USAGE, today=today, quarter=quarter)
    changes = [100 * (row["last_quarter"] / row["previous"] - 1) for row in rows if row["previous"] >= 20]
    leaving = [row for row in rows if row["previous"] >= 20 and row["last_quarter"] < 0.6 * row["previous"]]
    assert any(row["days_since_last"] >= 30 for row in leaving)
    assert max(changes) > 10
    assert sum(change < -25 for change in changes) < len(changes) / 2, "most clients are well"
    assert sum(row["august"] for row in rows) < 0.8 * sum(row["july"] for row in rows)


@pytest.mark.parametrize("region", demo_regions.DEMO_FORMS)
def test_demo_clients_names_and_sizes(servers: DatabaseServers, region: str) -> None:
    """Each client has a name of its own, and there are small, medium and large ones."""
    rows = _query(servers, demo_regions.demo_config(region, date(2026, 12, 1)), CLIENTS)
    assert len({row["name"] for row in rows}) == len(rows) >= 20
    users = [row["users"] for row in rows]
    assert min(users) < 50
    assert any(50 <= number < 250 for number in users)
    assert max(users) >= 250


def _query(servers: DatabaseServers, demo: demo_meg.DemoConfig, query: str, **values: Any) -> list[dict[str, Any]]:
    demo_meg.seed_database(servers.postgres, "meg_demo", demo)
    with servers.postgres.connect("meg_demo") as connection:
        cursor = connection.execute(query, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]
