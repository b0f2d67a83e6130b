"""The design that the engine is measured against: an ordinary PyTorch implementation of SPEC.

Cells come one by one from a ``DataLoader``; the likelihood is dense; stage 2 encodes every cell at
every step; generation takes 64 cells at a time and computes the context at each step. The modules
are the model's own, so that what is compared is how they are fed, trained and called.
"""
