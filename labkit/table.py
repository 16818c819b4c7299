"""A plain table: a page shows it as one, a terminal as aligned columns."""

import html
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of words under their heads.

    Args:
        caption: what it is a table of, one line.
        heads: one for each column.
        rows: as long as `heads`, every one.

    Raises:
        ValueError: a row is longer or shorter.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.heads):
                raise ValueError(
                    f"row {number}: expected {len(self.heads)} cells; got {len(row)}, {row!r}"
                )

    def __repr__(self) -> str:
        return f"{self.caption}: {len(self.rows)} rows (print it to see it as text)"

    def __str__(self) -> str:
        lines = [self.heads, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col" style="{_CELL}">{html.escape(h)}</th>' for h in self.heads)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        caption = html.escape(self.caption)
        return (
            f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )


_CELL = "text-align:left;vertical-align:top"  # Jupyter's own style sets words to the right


def _cell(words: str) -> str:
    return f'<td style="{_CELL}">{html.escape(words)}</td>'
