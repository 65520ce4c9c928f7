"""Tests who may open the reports page, and where it sends a browser without a login."""

from __future__ import annotations

from fastapi import HTTPException, Request
from fastapi.testclient import TestClient

from bi_ops.airflow.reports_connection import reports_client_settings
from bi_ops.reports.web import create_app


def test_reports_require_plugin_access() -> None:
    """A user without access to plugins sees no report."""

    def refuse(_request: Request) -> None:
        raise HTTPException(403)

    guarded = TestClient(create_app(reports_client_settings, refuse))
    paths = ["/", "/page.js", "/page.css", "/vega.js", "/api/page", "/api/freshness", "/bi.charts"]
    for path in [*paths, "/api/reports/retention", "/api/reports/retention.csv"]:
        assert guarded.get(path).status_code == 403, path


def test_logged_out_browser_is_led_to_login() -> None:
    """Only the page itself, opened in a browser, leads to the login; other requests get an error alone."""

    def refuse(_request: Request) -> None:
        raise HTTPException(401)

    app = TestClient(create_app(reports_client_settings, refuse, login_path='/login?next=x&y="'))
    browser = {"Accept": "text/html,*/*"}
    response = app.get("/", headers=browser)
    assert response.status_code == 401
    assert '<a href="/login?next=x&amp;y=&#34;">' in response.text
    policy = response.headers["content-security-policy"]
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    for other in (app.get("/"), app.get("/api/page", headers=browser)):
        assert (other.status_code, other.json()) == (401, {"detail": "Unauthorized"})
