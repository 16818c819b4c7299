"""What an analysis hands to the story: a verdict, the event to blame and the way from it."""

from dataclasses import dataclass, field

from labkit.probes.events import Event
from labkit.probes.frames import Place
from labkit.probes.verdict import Verdict


@dataclass
class Finding:
    """What one line of enquiry found: a verdict, the event to blame, and how it got out."""

    verdict: Verdict
    event: Event | None
    path: list[Event] = field(default_factory=list)  # from the culprit to the harm, inclusive
    remark: str = ""
    phase: str = ""  # overrides the event's
    op: str = ""  # overrides the event's name
    place: Place | None = None  # overrides the event's
    name: str = ""
    leaves: set[int] = field(default_factory=set)  # ids of the parameters it harms
    events: tuple[str, ...] = ()  # words for the links of the path, where they are known
    spoilt: dict[int, str] = field(default_factory=dict)  # parameters that went bad, and how
    at: int = 0  # when the harm was done
