"""A plain table: the same words on a page and in a terminal."""

import pytest

from labkit.table import Table

ROWS = (("exp", "x > 88 & more"), ("log", "<never>"))


def test_a_terminal_gets_aligned_columns():
    assert str(Table("edges", ("op", "told"), ROWS)).splitlines() == [
        "op   told",
        "exp  x > 88 & more",
        "log  <never>",
    ]


def test_a_page_gets_heads_with_a_scope_and_safe_words():
    page = Table("edges", ("op", "told"), ROWS)._repr_html_()
    assert page.count('<th scope="col"') == 2
    assert "<caption>edges</caption>" in page
    assert "x &gt; 88 &amp; more" in page
    assert "&lt;never&gt;" in page


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match=r"row 1: expected 2 cells; got 1"):
        Table("edges", ("op", "told"), (ROWS[0], ("log",)))


def test_its_name_is_one_line():
    assert repr(Table("edges", ("op", "told"), ROWS)) == (
        "edges: 2 rows (print it to see it as text)"
    )
