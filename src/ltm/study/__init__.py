"""A study: the sections of all rooms composed, checked, planned and built."""

from ltm.study.study import Study, load

__all__ = ["Study", "load"]
