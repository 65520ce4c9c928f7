"""Tests what a mail server and a web server get of a notification with HTML and images, through Apprise."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bi_ops.airflow.notification_sender import Notification, send_notification
from bi_ops.errors import NotificationError
from dev.webhook_server import Listener, listening
from tests.airflow.mail_server import MailServer, mail_server

pytestmark = pytest.mark.fast

PNG = b"\x89PNG\r\n\x1a\nchart"
NOTIFICATION = Notification("Títle", "plain text", "info", "<h1>Page</h1>", {"chart.png": PNG})


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_messages(mail: MailServer) -> None:
    mail.messages.clear()


def connect(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    config = [{"path": path} for path in paths]
    monkeypatch.setenv("AIRFLOW_CONN_BI_DIGEST", json.dumps({"conn_type": "apprise", "extra": {"config": config}}))


@pytest.mark.parametrize("inline", ["no", "yes"])
def test_mail_has_html_and_images(monkeypatch: pytest.MonkeyPatch, mail: MailServer, inline: str) -> None:
    """A mail has the HTML, its text as an alternative, and the images: attached, or shown with `inline=yes`."""
    connect(monkeypatch, mail.url(inline=inline))
    send_notification(NOTIFICATION, "bi_digest")
    [message] = mail.messages
    assert (message["subject"], message["to"]) == ("Títle", "team@example.com")
    page, plain = message.get_body(("html",)), message.get_body(("plain",))
    assert page is not None
    assert plain is not None
    assert page.get_content().startswith("<h1>Page</h1>")
    assert ("cid:chart.png" in page.get_content()) is (inline == "yes")
    assert "Page" in plain.get_content()
    [image] = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert image.get_filename() == "chart.png"
    assert image.get_payload(decode=True) == PNG
    assert image.get_content_disposition() == ("inline" if inline == "yes" else "attachment")


def test_other_services_get_text(monkeypatch: pytest.MonkeyPatch, mail: MailServer, listener: Listener) -> None:
    """The text goes to a service of texts, to mail that asks for it, and where the HTML is too long."""
    hook = f"json://127.0.0.1:{listener.port}"
    connect(monkeypatch, f"{hook}, {hook}/?format=html", mail.url(format="text"))
    send_notification(NOTIFICATION, "bi_digest")
    send_notification(replace(NOTIFICATION, html="<p>" + "x" * 40_000), "bi_digest")
    bodies = [message["message"] for message in listener.messages]
    assert bodies == ["plain text", "<h1>Page</h1>", "plain text", "plain&nbsp;text"]  # as Apprise converts it
    [attachment] = listener.messages[0]["attachments"]
    assert attachment["filename"] == "chart.png"
    assert base64.b64decode(attachment["base64"]) == PNG
    assert [message.get_content_type() for message in mail.messages] == ["multipart/mixed"] * 2
    assert all(message.get_body(("html",)) is None for message in mail.messages)


def test_refusal_spares_other_services(monkeypatch: pytest.MonkeyPatch, mail: MailServer, listener: Listener) -> None:
    """A service that refuses does not keep the notification from the next, which does not get it again."""
    connect(monkeypatch, f"json://127.0.0.1:{listener.port}", mail.url())
    taken: list[int] = []
    listener.status = 500
    with pytest.raises(NotificationError, match="was not delivered"):
        send_notification(NOTIFICATION, "bi_digest", on_delivered=taken.append)
    assert (taken, len(mail.messages)) == ([1], 1)
    listener.status = 200
    send_notification(NOTIFICATION, "bi_digest", delivered=taken.copy(), on_delivered=taken.append)
    assert (taken, len(mail.messages), len(listener.messages)) == ([1, 0], 1, 1)
