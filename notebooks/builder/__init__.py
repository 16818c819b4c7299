"""How a notebook is made from its text: read, run, tidy, refuse. One way only."""
