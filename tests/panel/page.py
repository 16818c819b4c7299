"""The page of a panel, without a browser."""


def hand(panel, **settings):
    """What the page sends when the hand moves a control."""
    state = {"settings": {**panel.settings, **settings}}
    data = {"method": "update", "state": state, "buffer_paths": []}
    panel._handle_msg({"content": {"data": data}, "buffers": [], "header": {"msg_id": "1"}})
