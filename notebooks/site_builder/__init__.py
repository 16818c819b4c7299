"""How the pages without a kernel are made: capture what moves, render what is written."""
