"""Leads a browser without a login to Airflow's login, and from there back to the view that its address names.

A redirect leads to the first view: the part of an address after `#`, which names the view, never leaves the browser.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path

import jinja2
from fastapi import Response

_FILE = Path(__file__).parent / "static" / "login.html"


def login_responses(login_path: str) -> Callable[[], Response]:
    """Read the page that leads to the login, and return what creates its response, with status 401.

    The page's script adds the hash of the address to the parameter `next` of the login, and opens the login.

    Args:
        login_path: The path of Airflow's login with the parameter `next`, the path of the reports page.
    """
    text = jinja2.Template(_FILE.read_text(), autoescape=True).render(login_path=login_path)
    [script] = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; img-src data:; base-uri 'none'; frame-ancestors 'self'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return partial(Response, text, HTTPStatus.UNAUTHORIZED, headers, "text/html")
