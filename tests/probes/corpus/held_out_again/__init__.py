"""The second unseen set, written after the first had been learned from.

First run, the tracer frozen: 12 of 12 ops, lines and sets of parameters, without a false alarm on
22 silent forms.
"""
