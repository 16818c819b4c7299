"""The fifth unseen set, written after the fourth had been learned from.

20 faults and 15 controls. First run, the tracer frozen: 18 faults flagged, 18 ops, 17 lines, 17
sets of parameters, with 1 false alarm on 35 silent forms. One truth was wrong (a power whose NaN
reaches every parameter). Missed: an optimizer that steps before the backward, and a flag that was
set on a module. Misplaced: a parameter that was computed to be infinite, where a softplus hid it
until the loss. Alarm: an evaluation that returns a number. The flag is named now, but not the line
that set it, so it is no program of the corpus but a test of its own.
"""
