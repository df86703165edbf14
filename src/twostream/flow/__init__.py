"""Optical flow: estimators, 8-bit fields, the store and the extraction into it."""

from twostream.flow.colour import flow_to_colour
from twostream.flow.estimators import ESTIMATORS, FlowError, FlowEstimator, compute, create_estimator
from twostream.flow.store import FlowSettings, FlowStore, FlowStoreError, StoredFlow

__all__ = [
    "ESTIMATORS",
    "FlowError",
    "FlowEstimator",
    "FlowSettings",
    "FlowStore",
    "FlowStoreError",
    "StoredFlow",
    "compute",
    "create_estimator",
    "flow_to_colour",
]
