"""The guide's tools under the guide's names, without the blind spots of the originals."""

from labkit.guide.bisect_knob import Edge, bisect_knob
from labkit.guide.check_gradient_flow import check_gradient_flow
from labkit.guide.check_tensor import check_tensor
from labkit.guide.debug_forward_pass import debug_forward_pass
from labkit.guide.register_nan_hooks import register_nan_hooks
from labkit.guide.test_extreme_inputs import test_extreme_inputs
from labkit.guide.trace_gradient_path import trace_gradient_path
from labkit.guide.train_with_crash_recovery import train_with_crash_recovery

__all__ = [
    "Edge",
    "bisect_knob",
    "check_gradient_flow",
    "check_tensor",
    "debug_forward_pass",
    "register_nan_hooks",
    "test_extreme_inputs",
    "trace_gradient_path",
    "train_with_crash_recovery",
]
