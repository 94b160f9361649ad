"""Preload: what a process may have imported before others are forked from it (runs/zygote.py): it opens no GPU.

With diffusers come torch and its compiler, four fifths of the time that a worker takes to start. Where torch has CUDA,
diffusers asks for GPUs while it is imported, as does torchao, which its models import, and after that no forked process
can use one: torch and the tracing half of its compiler must do there.

Python's collector of cycles would walk over these half a million objects again and again, a second of CPU while they
are imported and a tenth of a run later, in the midst of timed steps, too: they stay to the end, so it never looks.
"""

import gc

gc.disable()

import torch  # noqa: E402

if torch.version.cuda is None:
    import diffusers.models.unets  # noqa: F401
else:
    import torch._dynamo

gc.freeze()
gc.enable()
