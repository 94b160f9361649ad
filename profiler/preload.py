"""Preload: what a process may have imported before others are forked from it (runs/zygote.py): it opens no GPU.

With diffusers come torch and its compiler, four fifths of the time that a worker takes to start. torchao asks CUDA for
GPUs while it is imported, as diffusers' models do with it, and after that no forked process can use one.
"""

import diffusers
import torch

if torch.version.cuda is None:
    import diffusers.models.unets  # noqa: F401
