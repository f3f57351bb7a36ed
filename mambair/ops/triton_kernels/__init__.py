"""The scans on GPUs as Triton kernels. Nothing here is imported before a scan on a GPU asks for it.

A sequence of tokens is one image and direction, or one sequence and group of channels. It is cut into segments of whole
chunks of 64 tokens, so that also a single image has work for all of a GPU:

1. ``packing`` puts the small projections (step, B, C) in the order of the scan, 16 tokens beside each other;
2. ``forward.segment_ends``: where does each segment end when it starts from zero;
3. ``segment_scan``: from these ends, the state with which each segment really starts;
4. ``forward.outputs``: the scan of each segment from its start.

Backward has the same four stages, from the last token to the first. No sum depends on the order in which programs run.
"""
