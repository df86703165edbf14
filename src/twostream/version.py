"""The version, alone in its file so that packaging and provenance read it without importing anything else."""

__version__ = "0.1.0"
