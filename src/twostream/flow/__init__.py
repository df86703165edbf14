"""Optical flow: estimators, 8-bit fields, the store and the extraction into it."""
