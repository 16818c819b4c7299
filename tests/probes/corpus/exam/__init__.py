"""Whole training programs with one planted fault each, by another examiner.

Written blind while the fourth and the fifth unseen set were learned from: 62 faults planted in
whole training programs, 29 controls of the same kind. First run, on the tracer as it was before the
fourth set: 59 faults flagged, 58 ops, 56 lines, 58 sets of parameters, with 4 false alarms on 91
silent forms. Two truths were too narrow (infinite data that is named as such, a rounding that holds
back most entries of more parameters than two) and one repaired form was dead itself (a term that
cancels in its softmax); with those put right it is 59, 59, 57 and 59, with 3 alarms. The same set
once more, after the fourth and the fifth had been learned from, is a measure of what was learned:
59, 59, 59 and 59, with 1 alarm. Missed both times: a derivative that was taken without
create_graph, a backward of one's own that returns None, a teacher that froze the body it shares
with its student. Alarm both times: a server that is written from what its clients learned. All four
were mended in general terms, so the set holds no known miss; one more line was then counted as
right, the return of that backward.
"""
