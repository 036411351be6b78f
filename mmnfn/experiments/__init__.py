"""Studies: many trainings and tests from one file, with seeds, that go on after a kill."""

from .study import Job, Study, read_study

__all__ = ['Job', 'Study', 'read_study']
