"""Describes the security settings, and the risks that include/sql/security_risk_clients.sql finds in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A security setting of a client.

    Attributes:
        name: Its field in `security_risk_clients`.
        title: Its name for people.
        advice: What to set, for a client whose setting is unknown.
    """

    name: str
    title: str
    advice: str


@dataclass(frozen=True)
class Risk:
    """A risk, which a rule of the SQL template finds.

    Attributes:
        code: Its code in the field `risks`.
        points: Its weight in the risk score.
        text: What is wrong.
        advice: What to change.
        setting: The field of the setting that causes it; empty if none does.
    """

    code: str
    points: int
    text: str
    advice: str
    setting: str = ""


SETTINGS = (
    Setting("sso_enforced", "Single sign-on enforced", "Enforce single sign-on for all users."),
    Setting("mfa_required", "Second factor required", "Require a second factor from every user."),
    Setting("password_min_length", "Minimum password length", "Require passwords of at least 8 characters."),
    Setting("breached_password_check", "Known passwords refused", "Refuse passwords that are known from breaches."),
    Setting("session_idle_minutes", "Idle session ends after, minutes", "End idle sessions after at most 60 minutes."),
    Setting("ip_allowlist", "Addresses allowed to log in", "Restrict logins to the hospital's own addresses."),
    Setting("data_retention_days", "Data kept for, days", "Agree on how long data is kept, and set it."),
)

RISKS = (
    Risk(
        "mfa_not_required",
        3,
        "Neither a second factor nor single sign-on is required.",
        "Require a second factor from every user, or enforce single sign-on.",
        "mfa_required",
    ),
    Risk(
        "short_passwords",
        2,
        "Passwords may be shorter than 8 characters.",
        "Require passwords of at least 8 characters, or enforce single sign-on.",
        "password_min_length",
    ),
    Risk(
        "no_breached_password_check",
        1,
        "Passwords that are known from breaches are accepted.",
        "Switch on the check that refuses passwords known from breaches.",
        "breached_password_check",
    ),
    Risk(
        "long_idle_timeout",
        2,
        "An idle session stays open for more than an hour, or for ever.",
        "End idle sessions after at most 60 minutes.",
        "session_idle_minutes",
    ),
    Risk(
        "no_ip_allowlist",
        1,
        "Users can log in from any address.",
        "Restrict logins to the hospital's own addresses.",
        "ip_allowlist",
    ),
    Risk(
        "inactive_admins",
        2,
        "An administrator has not logged in for 90 days.",
        "Deactivate administrators who have not logged in for 90 days, or take the role from them.",
    ),
    Risk(
        "dormant_users",
        1,
        "More than a fifth of the users have not logged in for 180 days.",
        "Deactivate users who have not logged in for 180 days.",
    ),
)
UNKNOWN_SETTING_ADVICE = "MEG has no value: ask the client."
