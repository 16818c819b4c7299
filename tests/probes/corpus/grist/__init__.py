"""GRIST's 22 PyTorch programs.
First run, the tracer frozen: 22 flagged, 22 ops, 22 lines, 19 sets of parameters, with 2 false
alarms on 22 repaired forms. What was mended for them: a leaf that is made anew in each step (``w =
w - lr * w.grad``) was reported once a step, and a bias whose terms add up to exactly zero was
called dead. Four truths were wrong: three listed a bias that stays finite, and one repaired form
diverged by itself until its input was made smaller.
"""
