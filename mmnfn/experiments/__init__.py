"""Studies: many trainings and tests from one file, with seeds, that go on after a kill."""

from .job import Job, Record
from .study import Study, read_study

__all__ = ['Job', 'Record', 'Study', 'read_study']
