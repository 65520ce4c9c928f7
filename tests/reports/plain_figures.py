"""The definitions of the page's figures in plain Python, over all documents; it shares no code with the queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from statistics import median
from typing import Any

from bi_ops.reports.filters import Filters
from tests.reports.figure_documents import Rows

Row = dict[str, Any]
STATUSES = ("retained", "churned", "new", "reactivated", "dormant", "never_used")


def before(period: str, steps: int = 1) -> str:
    """The month or quarter some periods before."""
    year, part = period.split("-")
    length = 4 if part.startswith("Q") else 12
    number = int(year) * length + int(part.strip("Q")) - 1 - steps
    return f"{number // length}-Q{number % length + 1}" if length == 4 else f"{number // 12}-{number % 12 + 1:02}"


def months_up_to(month: str | None, count: int) -> list[str]:
    return [before(month, steps) for steps in reversed(range(count))] if month else []


def quarter_of(month: str) -> str:
    return f"{month[:4]}-Q{(int(month[5:]) + 2) // 3}"


def change(now: float | None, base: float | None) -> float | None:
    return round(100 * (now - base) / base, 1) if now is not None and base else None


class PlainFigures:
    """Every figure of the page for some filters."""

    def __init__(self, rows: Rows, filters: Filters) -> None:
        self.rows, self.filters = rows, filters
        ledger = rows["bi_loads"]
        known = {row["region"] for row in ledger}
        if filters.regions:
            known &= set(filters.regions)
        if filters.institutions:
            homes = {row["region"] for row in rows["institutions"] if row["name"] in filters.institutions}
            known = known & homes or known
        self.regions = sorted(known)
        self.loaded = {
            job: {
                region: {row["period"] for row in ledger if (row["job"], row["region"]) == (job, region)}
                for region in known
            }
            for job in ("monthly_submissions", "monthly_sessions", "quarterly_form_churn")
        }
        for row in rows["quarterly_form_churn"]:
            if row["region"] in known:
                self.loaded["quarterly_form_churn"][row["region"]].add(row["period"])
        self.month = self.newest("monthly_submissions", self.regions)
        self.quarter = self.newest("quarterly_form_churn", self.regions)

    def selects(self, period: str) -> bool:
        first, last = self.filters.from_month, self.filters.to_month
        if "Q" in period:
            first, last = first and quarter_of(first), last and quarter_of(last)
        return (not first or period >= first) and (not last or period <= last)

    def common(self, job: str, regions: Iterable[str]) -> set[str]:
        """The periods that each of the regions has; one without any holds the others back from none."""
        sets = [periods for region in regions if (periods := self.loaded[job][region])]
        return set.intersection(*sets) if sets else set()

    def newest(self, job: str, regions: Iterable[str]) -> str | None:
        return max(filter(self.selects, self.common(job, regions)), default=None)

    def shown(self, job: str, regions: Iterable[str]) -> list[str]:
        """Each selected period from the first that a region has to the last."""
        having = set().union(*(self.loaded[job][region] for region in regions))
        axis = sorted(having)[-1:]
        while axis and axis[0] > min(having):
            axis.insert(0, before(axis[0]))
        return [period for period in axis if self.selects(period)]

    def lacking(self, job: str, period: str) -> list[str]:
        lacking = [region for region in self.regions if period not in self.loaded[job][region]]
        return lacking if len(lacking) < len(self.regions) else []

    def documents(self, collection: str, name: str = "institution_name") -> list[Row]:
        """The selected documents, whatever their period."""
        return [
            row
            for row in self.rows[collection]
            if (not self.filters.regions or row["region"] in self.filters.regions)
            and (not self.filters.institutions or row[name] in self.filters.institutions)
            and (
                not self.filters.form_types
                or row.get("form_type", "audit") in self.filters.form_types
                or "form_type" not in row
            )
        ]

    def of_period(self, job: str, period: str | None, regions: Iterable[str]) -> list[Row] | None:
        """The selected documents of a period, of those of the regions that have it; None if none has."""
        having = [region for region in regions if period in self.loaded[job][region]]
        rows = [row for row in self.documents(job) if row["region"] in having and row["period"] == period]
        return rows if having else None

    def total(self, job: str, period: str | None, regions: Iterable[str], count: Callable[[list[Row]], Any]) -> Any:
        rows = self.of_period(job, period, regions)
        return None if rows is None else count(rows)

    def common_total(
        self, job: str, period: str | None, regions: Iterable[str], count: Callable[[list[Row]], Any]
    ) -> Any:
        return self.total(job, period, regions, count) if period in self.common(job, regions) else None

    def tiles(self) -> list[Row]:
        clients = self.clients()
        active = [row for row in clients if row["is_active"]]
        all_active = len(active) if clients else None
        security = self.documents("security_risk_clients", "name")
        submissions = self._month_tile("submissions", "monthly_submissions", sum_of("submissions"))
        institutions = self._month_tile("active_institutions", "monthly_submissions", institutions_in_use)
        return [
            submissions,
            self._month_tile("sessions", "monthly_sessions", sum_of("sessions")),
            {**institutions, "total": len(clients) or None},
            {
                "name": "active_users",
                "value": sum(row["users_active_30d"] for row in clients) if clients else None,
                "total": sum(row["users"] for row in clients) if clients else None,
            },
            self._month_tile("forms_in_use", "monthly_submissions", share_in_use),
            {
                "name": "clients_at_risk",
                "value": sum(row["attention"]["level"] == "at risk" for row in active) if clients else None,
                "total": all_active,
            },
            {
                "name": "high_security_risk",
                "value": sum(row["risk_level"] == "high" for row in security) if security else None,
                "total": len(security) or None,
            },
        ]

    def _month_tile(self, name: str, job: str, count: Callable[[list[Row]], Any]) -> Row:
        now, last, year_ago = (
            self.common_total(job, self.month and before(self.month, steps), self.regions, count)
            for steps in (0, 1, 12)
        )

        def compare(base: float | None) -> Row | None:
            if now is None or not base:
                return None
            return (
                {"points": round(now - base, 1), "base": base}
                if name == "forms_in_use"
                else {"percent": change(now, base), "base": base}
            )

        series = [
            {"period": month, "value": self.total(job, month, self.regions, count), "partial": self.lacking(job, month)}
            for month in months_up_to(self.month, 13)
            if self.selects(month)
        ]
        return {
            "name": name,
            "value": now,
            "total": None,
            "change_month": compare(last),
            "change_year": compare(year_ago),
            "series": series,
        }

    def clients(self) -> list[Row]:
        rows = [self._client(row) for row in self.documents("institutions", "name")]
        return sorted(
            rows, key=lambda row: (-row["attention"]["score"], row["name"], row["region"], row["institution_id"])
        )

    def _client(self, institution: Row) -> Row:
        region, number = institution["region"], institution["institution_id"]

        def own(job: str, period: str | None, count: Callable[[list[Row]], Any]) -> Any:
            rows = self.of_period(job, period, [region] if region in self.regions else [])
            return None if rows is None else count([row for row in rows if row["institution_id"] == number])

        churn = "quarterly_form_churn"
        quarter = self.newest(churn, [region])
        now, last, year_ago = (
            own(churn, quarter and before(quarter, steps), sum_of("submissions")) for steps in (0, 1, 4)
        )
        churned = own(churn, quarter, with_status("churned"))
        retained = own(churn, quarter, with_status("retained"))
        submitted_at, users = institution["last_submitted_at"], institution["users"]
        [security] = [
            row
            for row in self.rows["security_risk_clients"]
            if (row["region"], row["institution_id"]) == (region, number)
        ] or [{}]
        row = {
            **{name: institution[name] for name in ("region", "institution_id", "name", "country", "is_active")},
            **{name: institution[name] for name in ("users", "users_active_30d")},
            "size": "large" if users >= 250 else "medium" if users >= 50 else "small",
            "submissions": own("monthly_submissions", self.month, sum_of("submissions")),
            "series": [
                {"period": month, "value": own("monthly_submissions", month, sum_of("submissions"))}
                for month in months_up_to(self.month, 13)
                if self.selects(month)
            ],
            "quarter": quarter,
            "quarter_submissions": now,
            "change_quarter": change(now, last),
            "change_year": change(now, year_ago),
            "change_quarter_count": now - last if now is not None and last is not None else None,
            "days_since_last": (institution["as_of"] - submitted_at) // timedelta(days=1) if submitted_at else None,
            "forms_churned": churned,
            "forms_used_before": None if churned is None else churned + retained,
            "risk_level": security.get("risk_level"),
            "risk_score": security.get("risk_score"),
        }
        return {**row, "attention": attention(row, last, institution)}

    def client(self, row: Row) -> Row:
        region, number = row["region"], row["institution_id"]

        def own(job: str, period: str, name: str) -> int | None:
            rows = self.of_period(job, period, [region])
            return None if rows is None else sum(each[name] for each in rows if each["institution_id"] == number)

        jobs = {"submissions": "monthly_submissions", "sessions": "monthly_sessions"}
        shown = sorted({period for job in jobs.values() for period in self.shown(job, [region])})
        mine = {
            name: [
                each for each in self.documents(name) if (each["region"], each["institution_id"]) == (region, number)
            ]
            for name in ("monthly_submissions", "quarterly_form_churn", "forms", "top_users")
        }
        month = [
            each
            for each in mine["monthly_submissions"]
            if each["period"] == self.month and self.month in self.loaded["monthly_submissions"][region]
        ]
        types = {each["form_type"] for each in month}
        status = {
            each["form_id"]: each["status"] for each in mine["quarterly_form_churn"] if each["period"] == row["quarter"]
        }
        peers = [peer for peer in self.clients() if peer["is_active"] and peer["size"] == row["size"]]
        submissions = [peer["submissions"] for peer in peers if peer["submissions"] is not None]
        changes = [peer["change_quarter"] for peer in peers if peer["change_quarter"] is not None]
        ranked = row in peers and row["submissions"] is not None
        return {
            "months": [
                {
                    "period": period,
                    **{name: own(job, period, name) for name, job in jobs.items()},
                    **{f"{name}_last_year": own(job, before(period, 12), name) for name, job in jobs.items()},
                }
                for period in shown
            ],
            "form_types": {
                name: (
                    sum(each["submissions"] for each in month if each["form_type"] == name),
                    sum(each["submissions"] > 0 for each in month if each["form_type"] == name),
                )
                for name in types
            },
            "forms": {each["form_id"]: status.get(each["form_id"]) for each in mine["forms"]},
            "people": sorted((each["action"], each["rank"], each["user_name"]) for each in mine["top_users"]),
            "peers": {
                "size": row["size"],
                "clients": len(peers),
                "submissions_rank": sorted(submissions, reverse=True).index(row["submissions"]) + 1 if ranked else None,
                "submissions_median": median(submissions) if submissions else None,
                "change_quarter_median": round(median(changes), 1) if changes else None,
            },
        }

    def region(self, name: str) -> Row:
        regions = [name] if name else self.regions
        submissions, sessions, churn = "monthly_submissions", "monthly_sessions", "quarterly_form_churn"
        count = sum_of("submissions")
        institutions = [row for row in self.documents("institutions", "name") if row["region"] in regions or not name]
        month, quarter = self.newest(submissions, regions), self.newest(churn, regions)
        by_month = {
            period: self.common_total(submissions, period, regions, count) for period in months_up_to(month, 24)
        }
        recent, earlier = list(by_month.values())[12:], list(by_month.values())[:12]
        year = None if None in recent or not month else sum(recent)

        def growth(job: str, period: str | None, last: str) -> Row:
            now, base, year_ago = (
                self.common_total(job, period and before(period, steps), regions, count)
                for steps in (0, 1, 4 if job == churn else 12)
            )
            return {"period": period, "submissions": now, last: change(now, base), "change_year": change(now, year_ago)}

        def retention(period: str) -> Row:
            counts = {status: self.common_total(churn, period, regions, with_status(status)) for status in STATUSES}
            used = counts["retained"] + counts["churned"]
            shares = {
                "retention_pct": round(100 * counts["retained"] / used, 1) if used else None,
                "churn_pct": round(100 * counts["churned"] / used, 1) if used else None,
            }
            return {"quarter": period, **counts, **shares, "partial": [] if name else self.lacking(churn, period)}

        return {
            "region": name,
            "clients": len(institutions) or None,
            "active_clients": sum(row["is_active"] for row in institutions) if institutions else None,
            "month": growth(submissions, month, "change_month"),
            "quarter": growth(churn, quarter, "change_quarter"),
            "year": {
                "periods": [before(month, 11), month] if month else [],
                "submissions": year,
                "change": None if year is None or None in earlier else change(year, sum(earlier)),
            },
            "series": [
                {
                    "period": period,
                    "submissions": self.total(submissions, period, regions, count),
                    "sessions": self.total(sessions, period, regions, sum_of("sessions")),
                    "partial": []
                    if name
                    else sorted({*self.lacking(submissions, period), *self.lacking(sessions, period)}),
                }
                for period in self.shown(submissions, regions)
            ],
            "retention": [retention(period) for period in sorted(self.common(churn, regions)) if self.selects(period)],
            "platforms": {
                platform: self.common_total(
                    submissions,
                    month,
                    regions,
                    lambda rows, platform=platform: sum(row["submissions_by_platform"][platform] for row in rows),
                )
                for platform in ("web", "ios", "android", "public")
            },
        }


def sum_of(name: str) -> Callable[[list[Row]], int]:
    return lambda rows: sum(row[name] for row in rows)


def with_status(status: str) -> Callable[[list[Row]], int]:
    return lambda rows: sum(row["status"] == status for row in rows)


def institutions_in_use(rows: list[Row]) -> int:
    return len({(row["region"], row["institution_id"]) for row in rows if row["submissions"] > 0})


def share_in_use(rows: list[Row]) -> float | None:
    return round(100 * sum(row["submissions"] > 0 for row in rows) / len(rows), 1) if rows else None


def attention(row: Row, last: int | None, institution: Row) -> Row:
    """The rule in plain numbers."""
    points: list[tuple[int, str]] = []
    now, days = row["quarter_submissions"], row["days_since_last"]
    if last is not None and last >= 20 and 4 * (last - now) >= last:
        lost = 100 * (last - now) // last
        points.append((40 if 2 * (last - now) >= last else 20, f"submissions down {lost} % on last quarter"))
    if days is None and institution["created_at"] < institution["as_of"] - timedelta(days=90):
        points.append((40, "no submission ever"))
    if days is not None and days >= 30:
        points.append((40 if days >= 60 else 20, f"no submission for {days} days"))
    churned, used = row["forms_churned"], row["forms_used_before"]
    if churned is not None and churned >= 2 and 3 * churned >= used:
        points.append((20 if 3 * churned >= 2 * used else 10, f"{churned} of {used} forms churned"))
    score = min(100, sum(each for each, _ in points))
    if not row["is_active"]:
        return {"score": 0, "level": "none", "reasons": []}
    level = "at risk" if score >= 40 else "watch" if score >= 20 else "none"
    return {"score": score, "level": level, "reasons": [text for _, text in sorted(points, key=lambda each: -each[0])]}
