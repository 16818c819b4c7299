"""The learner's own record: what was predicted, broken, repaired, and with how many hints.

It is one small file in the learner's own folder, and it is sent nowhere. Nothing is recorded
outside such a folder, in CI, and where ``LABKIT_RECORD=off`` is set; see `place`.
"""

from labkit import news
from labkit.record.asked import Note, hint, predict
from labkit.record.keeper import listen
from labkit.record.place import place
from labkit.record.view import mine, suggest

__all__ = ["Note", "hint", "mine", "place", "predict", "suggest"]
if listen not in news.listeners:
    news.listeners.append(listen)
