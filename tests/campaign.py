"""What a sweep over many scenes takes: bounds, and the formula behind the table in docs/scaling.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilled_splat.jobs.graph import Job, in_order


def shortest(jobs: Sequence[Job], seconds: Mapping[str, float], slots: int) -> float:
    """Return what no schedule can beat: the longest chain of jobs, or all the work shared out evenly."""
    ends: dict[str, float] = {}
    for job in in_order(jobs):
        ends[job.name] = seconds[job.name] + max((ends[need] for need in job.needs), default=0.0)
    return max(max(ends.values(), default=0.0), sum(seconds[job.name] for job in jobs) / slots)


@dataclass(frozen=True)
class Campaign:
    """A sweep over many scenes, in the numbers that its cost depends on. All scenes count as equal.

    Attributes:
        scenes: number of scenes.
        students: students of each scene.
        slots: jobs that run at a time, usually one on each GPU.
        teacher_seconds: training of one teacher.
        student_seconds: training of one student.
        other_seconds: evaluation of one student.
        start_seconds: start of each process: imports, photos.
        teacher_gaussians: Gaussians of a teacher.
        student_gaussians: Gaussians of a student, the mean over the sizes.
        photo_megabytes: photos of one scene.
        saves: checkpoints that each training writes, counted at its final size.
    """

    scenes: int
    students: int
    slots: int
    teacher_seconds: float
    student_seconds: float
    other_seconds: float = 30.0
    start_seconds: float = 20.0
    teacher_gaussians: float = 3e6
    student_gaussians: float = 4e5
    photo_megabytes: float = 500.0
    saves: int = 60

    @property
    def chain_seconds(self) -> float:
        """One scene on slots enough: a teacher, a student and its evaluation, one after the other."""
        return self.teacher_seconds + self.student_seconds + self.other_seconds + 3 * self.start_seconds

    @property
    def work_seconds(self) -> float:
        """All jobs of all scenes, one after the other."""
        student = self.student_seconds + self.other_seconds + 2 * self.start_seconds
        return self.scenes * (3 * (self.teacher_seconds + self.start_seconds) + self.students * student)

    @property
    def least_seconds(self) -> float:
        """What no schedule can beat."""
        return max(self.work_seconds / self.slots, self.chain_seconds)

    @property
    def most_seconds(self) -> float:
        """What ours never exceeds: a slot is idle only while a longest chain goes on (Graham 1966)."""
        return self.work_seconds / self.slots + (1 - 1 / self.slots) * self.chain_seconds

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return self.scenes * (3 + 2 * self.students)

    @property
    def jobs_per_minute(self) -> float:
        """How often a job ends, and another is started."""
        return 60 * self.jobs / self.least_seconds

    @property
    def gigabytes(self) -> float:
        """What lies in the run folders in the end."""
        gaussians = 3 * self.teacher_gaussians + self.students * self.student_gaussians
        return self.scenes * gaussians * CHECKPOINT_BYTES / 1e9

    @property
    def gigabytes_at_a_time(self) -> float:
        """The same where the teachers of a scene are removed when its students are done, as many scenes as slots."""
        students = self.scenes * self.students * self.student_gaussians
        return (students + 3 * min(self.slots, self.scenes) * self.teacher_gaussians) * CHECKPOINT_BYTES / 1e9

    @property
    def megabytes_per_second(self) -> float:
        """What shared storage must deliver on average: photos to each job, teachers to students, checkpoints back."""
        photos = self.jobs * self.photo_megabytes
        reads = self.scenes * self.students * 2 * 3 * self.teacher_gaussians * CHECKPOINT_BYTES / 1e6
        writes = self.saves * 1e3 * self.gigabytes
        return (photos + reads + writes) / self.least_seconds


CHECKPOINT_BYTES = 3 * 59 * 4
"""A Gaussian in a checkpoint: 59 floats at degree 3, and Adam's two moments of each."""
