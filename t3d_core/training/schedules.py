"""The learning-rate schedules there are (paper 4.4); `optimization` says what each does."""

from typing import Literal

ScheduleKind = Literal["constant", "step", "plateau", "cosine", "one_cycle"]
