"""The fourth unseen set.

39 faults and 23 controls. First run, the tracer frozen: 37 faults flagged, 34 ops, 33 lines, 36
sets of parameters, with 1 false alarm on 62 silent forms. Three of the misses were wrong truths (a
NaN loss whose gradients stay finite, the name of an op, an optimizer that was built before the
trace began); with those put right it is 37, 35, 34 and 37. Missed: the ratio of a policy to itself,
whose two gradients cancel, and a quantiser whose bound of zero passed for a product with zero.
Misplaced: the recurrence of a stiff equation (the square after it was blamed), a codebook (the
choice of a code, not the detach), a generator (the detach of the critic's own loss). Alarm:
gradients that torch.func computes and the program writes by hand.
"""
