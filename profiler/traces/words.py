"""Words: the names of the ranges that our own traced pass opens."""

STEP = "steplens.step"
PHASE = "steplens.phase."
MODULE = "steplens.module."  # followed by the module's qualified name; the UNet's own is empty
RECOMPUTE = "recompute"  # the phase of checkpointing's second forward
