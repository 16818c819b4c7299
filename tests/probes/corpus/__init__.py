"""Small programs with a known fault, each with its repaired form, and healthy controls."""
