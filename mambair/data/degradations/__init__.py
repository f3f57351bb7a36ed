"""Synthetic degradations of photographs: parameters are drawn first, as plain steps, and applied second.

Sources: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021;
Zhang et al., "Designing a Practical Degradation Model for Deep Blind Image Super-Resolution" (BSRGAN), 2021.
"""
