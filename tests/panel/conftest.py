"""What a panel sends to its page."""

import pytest

from labkit.panel import Panel


@pytest.fixture
def sent(panel, monkeypatch):
    """Updates that the panel sends to the page."""
    messages = []

    def send(self, message, buffers=None):
        if message.get("method") == "update":
            messages.append(message["state"])

    monkeypatch.setattr(Panel, "_send", send)
    return messages
