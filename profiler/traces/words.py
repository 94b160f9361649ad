"""Words: the names of the ranges that our own traced pass opens."""

STEP = "steplens.step"
PHASE = "steplens.phase."
GLOO = "gloo:"  # torch's own ranges around gloo's transfers
NCCL_MESSAGE = "record_param_comms"  # torch's own operator of each NCCL call
MODULE = "steplens.module."  # followed by the module's qualified name; the UNet's own is empty
RECOMPUTE = "recompute"  # the phase of checkpointing's second forward
COMPILED = "steplensCompiled"  # a key of the file: which modules the kernels of compiled code serve (compiled.py)
