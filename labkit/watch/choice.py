"""What happens on a trigger: raise, skip, or roll back, with a limit."""

from torch import Tensor

from labkit.watch.course import Course
from labkit.watch.entry import Entry
from labkit.watch.inquiry import Finding
from labkit.watch.trigger import Blowup, Trigger


class Choice:
    """The user's choice, and how often in a row it was needed."""

    def __init__(self, word: str, limit: int, course: Course):
        self.word, self.limit, self.course = word, limit, course
        self.in_a_row = 0

    def went_well(self, entry: Entry) -> None:
        """A batch was accepted: a row of skips ends here, a row of roll-backs at a new state."""
        if entry.stepped and (self.word == "skip" or self.course.proven):
            self.in_a_row = 0

    def act(
        self, trigger: Trigger, finding: Finding | None, gradients: dict[str, Tensor | None]
    ) -> None:
        """Leave the program in a state that is finite, and go on or raise.

        Args:
            trigger: the alarm.
            finding: what the replay found.
            gradients: as they were when the alarm came: a raise leaves them to be looked at.
        """
        self.in_a_row += 1
        course, stuck = self.course, self.in_a_row > self.limit
        if self.word == "rollback" and course.ring:
            self._roll_back()
        elif finding is not None:
            course.resume(finding.start)
            if self.word == "skip":
                course.ring[-1] = finding.start
        elif not stuck and self.word != "raise":
            raise Blowup(trigger, f"no finite state to {self.word} to: ")
        if self.word == "raise" or stuck:
            for name, gradient in gradients.items():
                course.holdings.parameters[name].grad = gradient
            times = f"{self.word} did not help {self.limit} times in a row: " if stuck else ""
            raise Blowup(trigger, times if self.word != "raise" else "")

    def _roll_back(self) -> None:
        if not self.course.proven and len(self.course.ring) > 1:
            self.course.ring.pop()  # that state was finite, and led here again
        self.course.resume(self.course.ring[-1])
        self.course.proven = False
