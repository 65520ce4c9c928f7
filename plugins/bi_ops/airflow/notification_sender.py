"""Sends a notification through Apprise to every service of a connection, as each service can show it.

Apprise is called directly, since the provider's notifier does not say whether a service took a notification.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from bi_ops.errors import ConnectionConfigError, NotificationError

if TYPE_CHECKING:
    from apprise import Apprise, NotifyBase


@dataclass(frozen=True)
class Notification:
    """What is sent.

    Attributes:
        title: One line.
        text: The body as plain text.
        type: Its kind, which many services show as a colour.
        html: The body for services that show HTML, such as email; empty if they get the text too.
        images: PNGs by file name, for services that take attachments; the others ignore them.
    """

    title: str
    text: str
    type: Literal["info", "success", "warning", "failure"]
    html: str = ""
    images: Mapping[str, bytes] = field(default_factory=dict)


def send_notification(
    notification: Notification,
    conn_id: str,
    *,
    delivered: Collection[int] = (),
    on_delivered: Callable[[int], None] = lambda _: None,
) -> None:
    """Send a notification to every service of a connection, also to those after one that refuses it.

    Args:
        notification: The notification.
        conn_id: The connection.
        delivered: The positions of the services, in the connection's extra, that took it in an earlier attempt.
        on_delivered: Called with the position of each service that took it.

    Raises:
        ConnectionConfigError: There is no such connection, or it cannot be used.
        NotificationError: A service did not take the notification.
    """
    from apprise import Apprise

    from bi_ops.airflow.connections import load_notification_services

    unknown = refused = 0
    for position, service in enumerate(load_notification_services(conn_id)):
        if position in delivered:
            continue
        apprise = Apprise()
        if not apprise.add(service["path"], tag=service.get("tag")):
            unknown += 1
        elif _send(notification, apprise):
            on_delivered(position)
        else:
            refused += 1
    if unknown:
        raise ConnectionConfigError(
            "Apprise does not know the URL of a service",
            context=f"connection {conn_id}",
            expected="URLs as in https://github.com/caronc/apprise/wiki",
            actual=f"{unknown} of another form",
            hint="Correct the path in the connection's extra.",
        )
    if refused:
        raise NotificationError(
            "the notification was not delivered",
            context=f"connection {conn_id}",
            expected="every service to take it",
            actual="refused or not reached; Apprise's own lines above say more",
            hint="Retried automatically. If it persists, check the service, and its URL in the connection's extra.",
        )


def _send(notification: Notification, services: Apprise) -> bool:
    """Whether every service of an Apprise object took the notification: a URL in a connection may name several."""
    with TemporaryDirectory() as folder:  # not in memory: Apprise 1.9 attaches only files to emails
        images = []
        for name, content in notification.images.items():
            images.append(str(Path(folder, name)))
            Path(folder, name).write_bytes(content)
        results = {_send_to_one(notification, service, images) for service in services}  # also after a refusal
        return False not in results


def _send_to_one(notification: Notification, service: NotifyBase, images: list[str]) -> bool:
    from apprise import Apprise, NotifyFormat, NotifyType

    as_html = bool(notification.html) and _shows_html(service, notification.html)
    return bool(
        Apprise(service).notify(
            notification.html if as_html else notification.text,
            title=notification.title,
            notify_type=NotifyType(notification.type),
            body_format=NotifyFormat.HTML if as_html else NotifyFormat.TEXT,
            attach=images or None,
        )
    )


def _shows_html(service: NotifyBase, html: str) -> bool:
    """Whether a service takes HTML of this length by default, or because its URL says `format=html`."""
    from apprise import NotifyFormat

    # Apprise 2 lets a service take several formats, and then has a method that names the one it prefers.
    preferred = service.resolve_format() if hasattr(service, "resolve_format") else service.notify_format
    return bool(preferred == NotifyFormat.HTML and len(html) <= service.body_maxlen)
