"""Helpers of the oracle: counts, ratios, percentiles, risk rules and instants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

Row = dict[str, Any]


def by_form(sessions: Iterable[Row]) -> defaultdict[int, list[Row]]:
    sessions_by_form = defaultdict(list)
    for session in sessions:
        sessions_by_form[session["form_id"]].append(session)
    return sessions_by_form


def distinct(rows: Iterable[Row], name: str) -> set[Any]:
    return {row[name] for row in rows} - {None}


def times(sessions: Iterable[Row]) -> list[datetime]:
    return [session["submitted_at"] for session in sessions]


def since(sessions: Iterable[Row], start: datetime) -> list[Row]:
    return [session for session in sessions if session["submitted_at"] >= start]


def ago(as_of: datetime, days: int) -> datetime:
    return as_of.astimezone(timezone.utc) - timedelta(days=days)


def is_alive(form: Row, as_of: datetime) -> bool:
    return bool(form["created_at"] < as_of and (form["archived_at"] is None or form["archived_at"] >= as_of))


def inactive(user: Row, since: datetime) -> bool:
    return user["last_login_at"] is None or user["last_login_at"] < since


def risks(settings: Row, figures: Row) -> dict[str, int]:
    """The weight of each risk that applies."""
    sso = settings["sso_enforced"] is True
    length, idle = settings["password_min_length"], settings["session_idle_minutes"]
    rules = {
        "mfa_not_required": (3, settings["mfa_required"] is False and not sso),
        "short_passwords": (2, length is not None and length < 8 and not sso),
        "no_breached_password_check": (1, settings["breached_password_check"] is False),
        "long_idle_timeout": (2, idle is not None and (idle == 0 or idle > 60)),
        "no_ip_allowlist": (1, settings["ip_allowlist"] == []),
        "inactive_admins": (2, figures["admins_inactive_90d"] > 0),
        "dormant_users": (1, figures["users_inactive_180d"] * 5 > figures["users"]),
    }
    return {code: weight for code, (weight, applies) in rules.items() if applies}


def status(current: int, previous: int, earlier: int) -> str:
    if current:
        return "retained" if previous else "reactivated" if earlier else "new"
    return "churned" if previous else "dormant" if earlier else "never_used"


def duration(session: Row) -> timedelta | None:
    return session["ended_at"] - session["started_at"] if session["ended_at"] else None


def is_valid(duration: timedelta) -> bool:
    return timedelta() <= duration <= timedelta(hours=24)


def exact(duration: timedelta) -> Decimal:
    return Decimal(to_microseconds(duration)) / 1_000_000


def to_microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    return to_microseconds(instant - datetime(1970, 1, 1, tzinfo=timezone.utc))


def percentile(sorted_durations: list[timedelta], share: float) -> float | None:
    """By linear interpolation, as PostgreSQL's percentile_cont and numpy's default have it."""
    if not sorted_durations:
        return None
    seconds = [duration.total_seconds() for duration in sorted_durations]
    position = share * (len(seconds) - 1)
    low, high = int(position), min(int(position) + 1, len(seconds) - 1)
    value = seconds[low] + (position - low) * (seconds[high] - seconds[low])
    return rounded(Decimal(f"{value:.15g}"), 1)


def ratio(dividend: int, divisor: int, places: int) -> float | None:
    return rounded(Decimal(dividend) / divisor, places) if divisor else None


def rounded(number: Decimal, places: int) -> float:
    return float(number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def bson_time(instant: datetime | None) -> datetime | None:
    """The instant in UTC and whole milliseconds, as BSON stores a date."""
    if instant is None:
        return None
    utc = instant.astimezone(timezone.utc)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
