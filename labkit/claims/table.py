"""Rows of one kind that a notebook shows as a table, and a terminal as lines."""

from dataclasses import fields


class Table(tuple):
    """A tuple of rows: instances of one dataclass, each of whose fields is a column."""

    def __new__(cls, rows=()) -> "Table":
        """Take the rows from any iterable."""
        return super().__new__(cls, rows)

    def __repr__(self) -> str:
        return "\n".join(" | ".join(_cells(row)) for row in self)

    def _repr_markdown_(self) -> str:
        if not self:
            return ""
        heads = [field.name.replace("_", " ") for field in fields(self[0])]
        cells = [[cell.replace("|", "\\|") for cell in _cells(row)] for row in self]
        lines = [heads, ["---"] * len(heads), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: object) -> list[str]:
    return [_words(getattr(row, field.name)) for field in fields(row)]


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
