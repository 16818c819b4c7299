"""What a tool prints, kept as plain data: one line an item, with a mark, a name and words."""

from dataclasses import dataclass

GOOD, LOOK, BAD = "✅", "⚠️ ", "❌"


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line."""

    mark: str  # GOOD, LOOK or BAD
    name: str  # what was looked at
    text: str

    @property
    def ok(self) -> bool:
        """Nothing to look at."""
        return self.mark == GOOD

    def __str__(self) -> str:
        return f"{self.mark} {self.name}: {self.text}" if self.name else f"{self.mark} {self.text}"


@dataclass(frozen=True, repr=False)
class Lines:
    """All lines of one call; true if there is nothing to look at."""

    lines: tuple[Line, ...]

    def __bool__(self) -> bool:
        return all(line.ok for line in self.lines)

    def __getitem__(self, name: str) -> Line:
        """The line with this name."""
        return next(line for line in self.lines if line.name == name)

    @property
    def odd(self) -> tuple[Line, ...]:
        """The lines that need a look."""
        return tuple(line for line in self.lines if not line.ok)

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines))

    def __repr__(self) -> str:  # in a notebook: the lines were printed already
        return f"{len(self.odd)} of {len(self.lines)} lines need a look"


def printed(lines: list[Line]) -> Lines:
    """Print the lines and return them."""
    result = Lines(tuple(lines))
    print(result)
    return result
