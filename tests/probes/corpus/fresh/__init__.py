"""The third unseen set.

24 faults and 18 controls. First run, the tracer frozen: 21 faults flagged, 17 ops, 19 lines, 21
sets of parameters, with 1 false alarm on 42 silent forms. Missed: an optimizer that holds the
original of a copied model, a saturated sigmoid where the loss was zero already, a hook that leaves
nothing of a gradient. Misplaced: a NaN in one row of a buffer whose other rows were written later,
a NaN born in the backward of torch.func, an infinite rate that left by ``.item()`` and came back
with its sign turned, the last node before a leaf. Alarm: blocks behind a gate that an all-zero
layer computes. All of it was mended in general terms; two of its truths were wrong before that.
"""
