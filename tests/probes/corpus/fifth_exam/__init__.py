"""Whole programs as users write them: a model, a loop, an optimizer; 41 faults and 28 controls.

Written blind, from public reports, papers and well-known bugs, after all other sets had been
learned from. First run: 38 of 41 faults flagged, 36 ops, 37 lines, 38 sets of parameters, and all
97 repaired and healthy forms silent. Two truths were too narrow; with those put right 37 ops. The
misses were things that are absent: gradients of torch.autograd.grad that were looked at and never
written to .grad, a loss that is computed and never added, a loss over one class. A model whose
average was called in its place was flagged at the wrong line. All are mended in general terms.
"""
